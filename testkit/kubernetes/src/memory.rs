//! What a pod's VM takes beside its containers: in the guest (kernel and agent), and on the node (QEMU, its helper, the shim).

use ah_sandbox::vm_memory_mib;
use ah_testkit_figures::Row;
use ah_vmm::TCG_CODE_MIB;
use anyhow::{Context as _, Result};

use crate::Options;
use crate::site::{LARGE_MEMORY_MIB, LARGE_VM, MEMORY_MIB, OVERHEAD_MIB, Site, VM};

const GOAL_MIB: f64 = 64.0;
/// What overheads are rounded up to.
const STEP_MIB: f64 = 16.0;

/// A page of the guest, MiB.
const PAGE_MIB: f64 = 4.0 / 1024.0;

/// One VM, MiB.
struct Found {
    /// What the kernel took before it counted anything.
    reserved: f64,
    /// What kernel and agent use; caches that the kernel gives up are not counted.
    used: f64,
    /// All that containers cannot have: the same, and what the kernel keeps free (proc(5), MemAvailable).
    withheld: f64,
    node: Node,
}

/// The node's processes of one VM, the guest's memory left out, MiB.
#[derive(Default)]
struct Node {
    total: f64,
    /// Of that, what may be written and executed: code that an emulator made of the guest's.
    emulated: f64,
}

pub(crate) async fn measure(site: &Site, options: &Options) -> Result<()> {
    let small = one(site, VM, MEMORY_MIB).await?;
    let large = one(site, LARGE_VM, LARGE_MEMORY_MIB).await?;
    let row = |name: &str, value, goal| {
        Row { name, value, unit: "MiB", reference: None, goal }.print(options.json);
    };
    let goal = Some(("at most 64 MiB", small.used <= GOAL_MIB));
    row("guest without a policy, used by kernel and agent, VM of 256 MiB", small.used, goal);
    row("of that, taken by the kernel before it counts", small.reserved, None);
    row("guest without a policy, not to be had by containers, VM of 256 MiB", small.withheld, None);
    row("guest without a policy, used by kernel and agent, VM of 2 GiB", large.used, None);
    row("of that, taken by the kernel before it counts", large.reserved, None);
    row("guest without a policy, not to be had by containers, VM of 2 GiB", large.withheld, None);
    row("node, shim, QEMU and helpers without the guest", small.node.total, None);
    row("of that, code that an emulator made", small.node.emulated, None);
    // A guest uses all of its memory sooner or later, so what it is given beside the containers counts whole; an emulator's code, too.
    let hardware = f64::from(OVERHEAD_MIB) + small.node.total - small.node.emulated;
    let emulated = hardware + f64::from(TCG_CODE_MIB);
    row("podOverhead, computed: overhead_mib and the node's", rounded_up(hardware), None);
    row("podOverhead where guests are emulated, computed", rounded_up(emulated), None);
    Ok(())
}

fn rounded_up(mib: f64) -> f64 {
    (mib / STEP_MIB).ceil() * STEP_MIB
}

async fn one(site: &Site, handler: &str, memory_mib: u32) -> Result<Found> {
    let (running, _) = site.run(handler, "echo up; exec sleep 1000000").await?;
    let answer = running.container.exec(&["cat", "/proc/meminfo", "/proc/zoneinfo"]).await?;
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    let size_mib = u32::try_from(vm_memory_mib(memory_mib.into(), OVERHEAD_MIB, false))?;
    let node = node(site, size_mib)?;
    running.pod.remove().await?;
    let size = f64::from(size_mib);
    let of = |name| Ok::<_, anyhow::Error>(kib(&text, name)? / 1024.0);
    let caches = of("Buffers:")? + of("Cached:")? - of("Shmem:")? + of("SReclaimable:")?;
    let used = size - of("MemFree:")? - kept_by_processors_mib(&text)? - caches;
    let (reserved, withheld) = (size - of("MemTotal:")?, size - of("MemAvailable:")?);
    Ok(Found { reserved, used, withheld, node })
}

/// Free pages that MemFree does not count, since each processor keeps some at hand (zoneinfo's `count:` below `pagesets`), MiB.
fn kept_by_processors_mib(zoneinfo: &str) -> Result<f64> {
    let counts = zoneinfo.lines().filter_map(|line| line.trim().strip_prefix("count:"));
    let pages: Vec<f64> = counts.map(|count| count.trim().parse()).collect::<Result<_, _>>()?;
    anyhow::ensure!(!pages.is_empty(), "no count: in {zoneinfo}");
    Ok(pages.iter().sum::<f64>() * PAGE_MIB)
}

/// The number behind a word (proc(5), meminfo and smaps), KiB.
fn kib(text: &str, name: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.with_context(|| format!("no {name} in {text}"))?.parse().context("a number of KiB")
}

/// Proportional memory of the processes of the one VM that runs, without the mapping that is the guest's memory.
fn node(site: &Site, size_mib: u32) -> Result<Node> {
    let words = "containerd-shim-anchorhold-v2|qemu-system|vhost-device-vsock|__anchorhold-vm-";
    let script = format!(
        "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline | grep -Eq '{words}' && [ ${{p#/proc/}} != $$ ] && cat $p/smaps; done; true"
    );
    let output = site.node.namespaces().command("sh").args(["-c", &script]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let guest = f64::from(size_mib) * 1024.0;
    let (mut found, mut is_guest, mut is_emulated) = (Node::default(), false, false);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("Size:"), _) => is_guest = kib(line, "Size:")? == guest,
            (Some("Pss:"), _) if !is_guest => {
                let mib = kib(line, "Pss:")? / 1024.0;
                found.total += mib;
                found.emulated += if is_emulated { mib } else { 0.0 };
            }
            // a mapping's first line: its addresses and what may be done there
            (Some(word), Some(rights)) if !word.ends_with(':') => {
                is_emulated = rights.starts_with("rwx");
            }
            _ => {}
        }
    }
    anyhow::ensure!(found.total > 0.0, "no process of the VM found");
    Ok(found)
}
