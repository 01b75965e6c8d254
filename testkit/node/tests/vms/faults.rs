//! Programs that are killed or do not answer, at each stage of a pod's life.

use std::time::{Duration, Instant};

use ah_testkit_node::PodConfig;

use crate::machine::{IMAGE, LIMIT, build, is_ready, machine, machine_with};

/// The kernel finds no init and stops there: `panic=0` keeps it from ending.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_does_not_boot_in_time_is_told_with_its_console() {
    let Some(machine) = machine_with(&[("boot_limit_seconds", "20")]).await else { return };
    let broken = machine.settings.path().join("broken");
    std::fs::create_dir(&broken).unwrap();
    let guest = build().parent().unwrap().join("guest-image");
    std::os::unix::fs::symlink(guest.join("vmlinuz"), broken.join("vmlinuz")).unwrap();
    std::fs::write(broken.join("initrd"), [1; 4096]).unwrap();
    std::fs::write(broken.join("cmdline.software"), "console=ttyS0 quiet panic=0").unwrap();
    let file = machine.settings.path().join("vm.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace(&format!("{guest:?}"), &format!("{broken:?}"));
    std::fs::write(&file, text).unwrap();
    let error = machine.node.run_pod(&PodConfig::new("stuck", "vm")).await.unwrap_err();
    let told = error.to_string();
    assert!(told.contains("no agent after 20s") && told.contains("Kernel panic"), "{told}");
    machine.until_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_outlive_containerd() {
    let Some(mut machine) = machine().await else { return };
    let pod = machine.pod("outlives").await;
    let count = "i=0; while :; do i=$((i+1)); echo line $i; sleep 1; done";
    let container = pod.create(pod.container("main", IMAGE, &["sh", "-c", count])).await.unwrap();
    container.start().await.unwrap();
    machine
        .until("the first line", async || {
            container.output().is_ok_and(|text| text.contains("line 1"))
        })
        .await;
    machine.node.end_containerd("KILL").unwrap();
    machine.node.start_containerd().await.unwrap();
    assert!(is_ready(&pod).await);
    let entered = container.exec(&["echo", "again"]).await.unwrap();
    assert_eq!(entered.stdout, b"again\n");
    let before = container.output().unwrap().lines().count();
    machine
        .until("more lines", async || container.output().unwrap().lines().count() > before)
        .await;
    pod.remove().await.unwrap();
    machine.until_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_takes_its_vm_along_and_the_pod_can_be_removed() {
    let Some(machine) = machine().await else { return };
    let before = machine.held_after_a_pod().await;
    let pod = machine.pod("killed").await;
    let container = pod.create(pod.container("main", IMAGE, &["sleep", "1000"])).await.unwrap();
    container.start().await.unwrap();
    let shims = machine.processes(&["containerd-shim-anchorhold-v2", "-id"]);
    machine.signal("KILL", &shims[0]);
    machine.until_nothing_is_left().await;
    machine.until("a sandbox that is not ready", async || !is_ready(&pod).await).await;
    // what containerd says of a container whose end nobody saw
    assert_ne!(container.wait(LIMIT).await.unwrap(), 0);
    pod.remove().await.unwrap();
    machine.until_held_is_at_most(&before).await;
}

/// Before there is an agent, and before containerd has an answer to its call.
#[tokio::test(flavor = "multi_thread")]
async fn a_shim_or_vm_killed_while_it_boots_is_told_and_leaves_nothing() {
    let Some(machine) = machine().await else { return };
    let before = machine.held_after_a_pod().await;
    for words in [&["containerd-shim-anchorhold-v2", "-id"][..], &["qemu-system", "-sandbox"]] {
        let pod = PodConfig::new("early", "vm");
        let kill = async {
            let booting = &["qemu-system", "-sandbox"];
            machine.until("a VM", async || !machine.processes(booting).is_empty()).await;
            machine.signal("KILL", &machine.processes(words)[0]);
        };
        let begun = Instant::now();
        let (told, ()) = tokio::join!(machine.node.run_pod(&pod), kill);
        assert!(told.is_err() && begun.elapsed() < LIMIT, "{told:?}");
        machine.until_nothing_is_left().await;
        assert_eq!(machine.scratch_disks(), 0);
    }
    // the node is as good as before
    let pod = machine.pod("after").await;
    pod.remove().await.unwrap();
    machine.until_nothing_is_left().await;
    machine.until_held_is_at_most(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_vm_ends_its_containers() {
    let Some(machine) = machine().await else { return };
    let before = machine.held_after_a_pod().await;
    let pod = machine.pod("crash").await;
    let container = pod.create(pod.container("main", IMAGE, &["sleep", "1000"])).await.unwrap();
    container.start().await.unwrap();
    let machines = machine.processes(&["qemu-system", "-sandbox"]);
    machine.signal("KILL", &machines[0]);
    assert_eq!(container.wait(LIMIT).await.unwrap(), 137);
    machine.until("a sandbox that is not ready", async || !is_ready(&pod).await).await;
    pod.remove().await.unwrap();
    machine.until_nothing_is_left().await;
    machine.until_held_is_at_most(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_answer_holds_nothing_up() {
    let Some(machine) = machine().await else { return };
    let before = machine.held_after_a_pod().await;
    let pod = machine.pod("silent").await;
    let container = pod.create(pod.container("main", IMAGE, &["sleep", "1000"])).await.unwrap();
    container.start().await.unwrap();
    let machines = machine.processes(&["qemu-system", "-sandbox"]);
    machine.signal("STOP", &machines[0]);
    pod.remove().await.unwrap();
    machine.until_nothing_is_left().await;
    machine.until_held_is_at_most(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_vsock_device_ends_its_containers() {
    let Some(machine) = machine().await else { return };
    let before = machine.held_after_a_pod().await;
    let pod = machine.pod("deaf").await;
    let container = pod.create(pod.container("main", IMAGE, &["sleep", "1000"])).await.unwrap();
    container.start().await.unwrap();
    if std::path::Path::new("/dev/vhost-vsock").exists() {
        eprintln!("skipped: this kernel has vhost-vsock, so there is no such process");
    } else {
        let devices = machine.processes(&["vhost-device-vsock", "--uds-path="]);
        machine.signal("KILL", devices.first().expect("the VM's vsock device"));
        assert_eq!(container.wait(LIMIT).await.unwrap(), 137);
        machine.until("a sandbox that is not ready", async || !is_ready(&pod).await).await;
    }
    pod.remove().await.unwrap();
    machine.until_nothing_is_left().await;
    machine.until_held_is_at_most(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_outlives_the_snapshotter_and_gets_more_containers_from_the_next() {
    let Some(mut machine) = machine().await else { return };
    let pod = machine.pod("outlives").await;
    let first = pod.create(pod.container("first", IMAGE, &["sleep", "1000"])).await.unwrap();
    first.start().await.unwrap();
    machine.node.end_snapshotter("KILL").unwrap();
    let entered = first.exec(&["echo", "here"]).await.unwrap();
    assert_eq!(entered.stdout, b"here\n");
    let refused = pod.create(pod.container("second", IMAGE, &["echo", "late"])).await;
    assert!(refused.is_err(), "a container without a root");
    machine.node.start_snapshotter().await.unwrap();
    // containerd takes its time to connect again, and the kubelet asks again
    let begun = Instant::now();
    let second = loop {
        match pod.create(pod.container("second", IMAGE, &["echo", "late"])).await {
            Ok(second) => break second,
            Err(error) => assert!(begun.elapsed() < LIMIT, "{error}\n{}", machine.node.logs()),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    second.start().await.unwrap();
    assert_eq!(second.wait(LIMIT).await.unwrap(), 0);
    assert_eq!(second.output().unwrap(), "late\n");
    pod.remove().await.unwrap();
    machine.until_nothing_is_left().await;
}
