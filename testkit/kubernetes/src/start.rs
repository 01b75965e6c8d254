//! From RunPodSandbox to the first output, the image being there: in a VM without a policy, with runc, and the bare boot of the same kernel.

use ah_testkit_bare_boot::BareBoot;
use ah_testkit_figures::{Row, median, on_two_cores};
use anyhow::Result;

use crate::site::{RUNC, Site, VM};
use crate::{Options, bare};

const FIRST_LINE: &str = "echo first; exec sleep 1000000";
/// All but the kernel's boot, on two idle cores under TCG.
const GOAL_SECONDS: f64 = 1.2;

pub(crate) async fn measure(site: &Site, options: &Options) -> Result<()> {
    let (spec, tools) = bare::spec(options, "").await?;
    let bare_boot = BareBoot::of(spec, tools, &options.bench_init)?;
    let (mut vm, mut runc, mut boot) = (Vec::new(), Vec::new(), Vec::new());
    // The first of each makes what the node keeps.
    for round in 0..=options.rounds {
        let times = [pod(site, VM).await?, pod(site, RUNC).await?, bare_boot.seconds().await?];
        if round > 0 {
            let [one, two, three] = times;
            vm.push(one);
            runc.push(two);
            boot.push(three);
        }
    }
    let (vm, runc, boot) = (median(&mut vm), median(&mut runc), median(&mut boot));
    let row = |name, value, reference, goal| {
        Row { name, value, unit: "s", reference, goal }.print(options.json);
    };
    row("pod start to first output, in a VM without a policy; against runc", vm, Some(runc), None);
    row("the same; against the bare boot of the kernel", vm, Some(boot), None);
    let own = vm - boot;
    let goal = on_two_cores().then_some(("at most 1.2 s on two idle cores", own <= GOAL_SECONDS));
    row("the same less the bare boot; against runc", own, Some(runc), goal);
    Ok(())
}

async fn pod(site: &Site, handler: &str) -> Result<f64> {
    let (running, seconds) = site.run(handler, FIRST_LINE).await?;
    running.pod.remove().await?;
    Ok(seconds)
}
