//! SCTP between pods: the guest's kernel has it for those that say so.

use std::fs;

use ah_testkit_images::{Entry, LayerSpec, Packing, busybox};
use ah_testkit_node::{Container, Pod, PodConfig};

use crate::machine::{LIMIT, Machine, build, machine};

const SCTP_IMAGE: &str = "localhost/sctp:1";

async fn pod(machine: &Machine, name: &str, hints: &str) -> Pod {
    let mut config = PodConfig::new(name, "vm");
    config.annotations.insert("anchorhold.dev/runtime-hints".into(), hints.into());
    let pod = machine.node.run_pod(&config).await;
    pod.unwrap_or_else(|status| panic!("{status}\n{}", machine.node.logs()))
}

async fn run(pod: &Pod, command: &[&str]) -> Container {
    let container = pod.create(pod.container("main", SCTP_IMAGE, command)).await.unwrap();
    container.start().await.unwrap();
    container
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_sctp_is_spoken_by_pods_that_say_so_and_by_no_other() {
    let Some(machine) = machine().await else { return };
    let target = build().parent().unwrap().to_owned();
    let program = target.join("guest/x86_64-unknown-linux-gnu/guest/examples/sctp_echo");
    let program = Entry::file("sctp_echo", fs::read(program).unwrap()).mode(0o755);
    let image = busybox().unwrap().with_layer(LayerSpec::of(Packing::Gzip, [program]));
    machine.node.import(&[(SCTP_IMAGE, &image)]).await.unwrap();

    let server = pod(&machine, "server", r#"{"sctp":true}"#).await;
    let serving = run(&server, &["/sctp_echo", "serve", "3868"]).await;
    machine.until("a server", async || serving.output().unwrap().contains("serving")).await;
    let address = format!("{}:3868", server.status().await.unwrap().network.ip);

    let client = pod(&machine, "client", r#"{"sctp":true}"#).await;
    // 1: the kernel takes no more modules
    let ask = format!("cat /proc/sys/kernel/modules_disabled; /sctp_echo ask {address} over-sctp");
    let asking = run(&client, &["sh", "-c", &ask]).await;
    assert_eq!(asking.wait(LIMIT).await.unwrap(), 0, "{}", asking.output().unwrap());
    assert_eq!(asking.output().unwrap().trim_end(), "1\nover-sctp");
    client.remove().await.unwrap();

    let silent = pod(&machine, "silent", "{}").await;
    let asking = run(&silent, &["sh", "-c", &ask]).await;
    assert_ne!(asking.wait(LIMIT).await.unwrap(), 0);
    let said = asking.output().unwrap();
    assert!(said.starts_with("1\n") && said.contains("rotocol not supported"), "{said}");
    for pod in [server, silent] {
        pod.remove().await.unwrap();
    }
    machine.until_nothing_is_left().await;
}
