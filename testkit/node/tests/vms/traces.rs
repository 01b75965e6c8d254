//! What a collector of traces gets to know of a pod.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::machine::{IMAGE, build, machine_of};

/// Spans as lines of JSON, which the collector has written so far.
fn spans(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_the_spans_of_a_pod_from_the_request_to_the_guest() {
    const COLLECTOR: &str = "127.0.0.1:4317";
    let address = format!("http://{COLLECTOR}");
    let Some(machine) = machine_of(&[], Some(&address)).await else { return };
    let file = machine.settings.path().join("spans");
    let mut collect = machine.node.namespaces().command(build().join("trace-collector"));
    collect.arg(COLLECTOR).arg(&file);
    let log = machine.settings.path().join("collector.log");
    let _collector = machine.node.namespaces().start("trace-collector", collect, &log).unwrap();
    let pod = machine.pod("traced").await;
    let container = pod.create(pod.container("main", IMAGE, &["echo", "ran"])).await.unwrap();
    container.start().await.unwrap();
    let missing = match pod.create(pod.container("no", IMAGE, &["/not/there"])).await {
        Ok(container) => container.start().await.err(),
        Err(error) => Some(error),
    };
    assert!(missing.is_some());
    let id = pod.id.clone();
    pod.remove().await.unwrap();
    machine.until_nothing_is_left().await;

    let of_shim = || spans(&file).into_iter().filter(|span| span["service"] == "anchorhold-shim");
    machine.until("the last span", async || of_shim().any(|span| span["name"] == "Shutdown")).await;
    let all: Vec<Value> = of_shim().collect();
    let print = || format!("{:#?}\n{}", spans(&file), machine.node.logs());
    let sandbox = all.iter().find(|span| span["name"] == "guest CreateSandbox").unwrap();
    let of_containerd = || spans(&file).into_iter().find(|span| span["service"] == "containerd");
    if of_containerd().is_none() {
        // as Debian 12 builds it: the pod's UID is the trace of all
        let trace = &all[0]["trace"];
        assert!(all.iter().all(|span| span["trace"] == *trace), "{}", print());
    } else {
        let request = "runtime.v1.RuntimeService/RunPodSandbox";
        let above = || spans(&file).into_iter().find(|span| span["name"] == request);
        machine.until("containerd's span", async || above().is_some()).await;
        assert_eq!(above().unwrap()["trace"], sandbox["trace"], "{}", print());
    }
    assert!(all.iter().all(|span| span["sandbox"] == id.as_str()), "{}", print());
    let ids: BTreeSet<&str> = all.iter().map(|span| span["span"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), all.len(), "{}", print());
    // each request to the guest, and each stage of the VM's start, is within the call that made it
    let within = [
        ("Create", "VM: kernel up"),
        ("Create", "VM: agent ready"),
        ("Create", "guest CreateSandbox"),
        ("Create", "guest CreateContainer"),
        ("Start", "guest StartContainer"),
    ];
    for (outer, inner) in within {
        let parent = |span: &Value| all.iter().find(|above| above["span"] == span["parent"]);
        let found = all.iter().find(|span| {
            span["name"] == inner && parent(span).is_some_and(|above| above["name"] == outer)
        });
        let inner = found.unwrap_or_else(|| panic!("{inner} in {outer}: {}", print()));
        let outer = parent(inner).unwrap();
        let time = |span: &Value, key: &str| span[key].as_u64().unwrap();
        assert!(time(outer, "begin") <= time(inner, "begin"), "{}", print());
        assert!(time(inner, "end") <= time(outer, "end"), "{}", print());
    }
    let failed: Vec<&Value> = all.iter().filter(|span| !span["error"].is_null()).collect();
    let named = |span: &&Value| ["Create", "Start"].map(Value::from).contains(&span["name"]);
    assert!(failed.iter().any(named), "{}", print());
}
