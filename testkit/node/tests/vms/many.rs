//! Pods one after another, and many at once.

use std::time::Duration;

use ah_testkit_node::PodConfig;

use crate::machine::{IMAGE, LIMIT, Machine, machine, machine_with};

/// How often pods come and go: `cargo xtask soak pods` says more.
fn cycles() -> u32 {
    match std::env::var("ANCHORHOLD_SOAK_CYCLES") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => 10,
    }
}

/// The first pod makes what the node keeps, as its bridge.
#[tokio::test(flavor = "multi_thread")]
async fn pods_that_come_and_go_leave_nothing_behind() {
    let Some(machine) = machine().await else { return };
    let mut before = None;
    for number in 0..=cycles() {
        let pod = machine.pod(&format!("cycle{number}")).await;
        let container = pod.create(pod.container("main", IMAGE, &["echo", "ran"])).await.unwrap();
        container.start().await.unwrap();
        assert_eq!(container.wait(LIMIT).await.unwrap(), 0);
        let run_dir = machine.run_dir();
        // what is counted in the end is there to be counted
        assert!(run_dir.is_dir() && machine.scratch_disks() > 0);
        pod.remove().await.unwrap();
        machine.until_nothing_is_left().await;
        assert!(!run_dir.exists(), "{}", run_dir.display());
        before.get_or_insert_with(|| machine.held());
    }
    let before = before.unwrap();
    println!("{} pods; held before:\n{before}and after:\n{}", cycles(), machine.held());
    machine.until_held_is_at_most(&before).await;
}

/// Pods started at once.
const CROWD: usize = 20;
/// Beyond the shim's own limit for a boot, which says clearly what it waited for.
const CROWD_LIMIT: Duration = Duration::from_secs(900);

impl Machine {
    /// A pod that prints a word and is removed; else what was told instead, in words.
    async fn one_of_many(&self, number: usize) -> Result<(), String> {
        let name = format!("crowd{number}");
        let pod = self.node.run_pod(&PodConfig::new(&name, "vm")).await;
        let pod = pod.map_err(|status| status.to_string())?;
        let main = pod.container("main", IMAGE, &["echo", &name]);
        let ran = async {
            let container = pod.create(main).await.map_err(|status| status.to_string())?;
            container.start().await.map_err(|status| status.to_string())?;
            container.wait(CROWD_LIMIT).await.map_err(|error| error.to_string())?;
            container.output().map_err(|error| error.to_string())
        }
        .await;
        pod.remove().await.map_err(|status| status.to_string())?;
        assert_eq!(ran?, format!("{name}\n"));
        Ok(())
    }
}

/// On a small machine some may not boot within the shim's limit: then they have to say so, and leave nothing.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_pods_at_once_come_up_or_fail_clearly_and_leave_nothing() {
    let Some(machine) = machine_with(&[("boot_limit_seconds", "400")]).await else { return };
    let machine = std::sync::Arc::new(machine);
    let before = machine.held_after_a_pod().await;
    let one = |number: usize| {
        let machine = std::sync::Arc::clone(&machine);
        tokio::spawn(async move { machine.one_of_many(number).await })
    };
    let pods: Vec<_> = (0..CROWD).map(one).collect();
    let mut told = Vec::new();
    for pod in pods {
        let ended = tokio::time::timeout(CROWD_LIMIT, pod).await;
        match ended.expect("a pod that neither comes up nor fails").unwrap() {
            Ok(()) => {}
            Err(failure) => told.push(failure),
        }
    }
    println!("{} of {CROWD} came up; the others said: {told:#?}", CROWD - told.len());
    for failure in &told {
        let is_clear = failure.contains("no agent after 400s");
        assert!(is_clear, "{failure}\n{}", machine.node.logs());
    }
    assert!(told.len() < CROWD, "none came up");
    machine.until_nothing_is_left().await;
    machine.until_held_is_at_most(&before).await;
}
