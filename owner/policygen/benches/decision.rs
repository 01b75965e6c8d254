//! Time of one CreateContainer decision in a running pod, and of loading its policy.
#![allow(missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;

use ah_agent_api::{PolicyRequest, Request};
use ah_permit::Policy;
use ah_pod::{EnvVar, Role};
use ah_policygen::{Options, generate};
use criterion::{Criterion, criterion_group, criterion_main};
use support::{Case, container, pod};

/// A pod of `count` containers with `variables` environment variables each, all but the last created.
fn case(count: usize, variables: usize) -> (Case, Request) {
    let mut pod = pod();
    pod.containers = (0..count).map(|n| container(&format!("c{n}"), Role::Main)).collect();
    for container in &mut pod.containers {
        let more = (container.env.len()..variables).map(|n| EnvVar {
            name: format!("VARIABLE_{n}"),
            value: format!("value number {n} of this container").into(),
        });
        container.env.extend(more);
    }
    let mut case = Case::new(pod);
    let last = format!("c{}", count - 1);
    let id = case.id(&last);
    case.run_until(|r| matches!(r, Request::CreateContainer(c) if c.container_id == id));
    let request = Request::CreateContainer(case.create(&last));
    (case, request)
}

fn decisions(criterion: &mut Criterion) {
    for (count, variables) in [(10, 15), (20, 60)] {
        let (case, request) = case(count, variables);
        let name = format!("CreateContainer, {count} containers, {variables} variables");
        criterion.bench_function(&name, |bencher| {
            bencher.iter(|| black_box(case.allowed(request.clone())));
        });
        criterion.bench_function(&format!("{name}: input alone"), |bencher| {
            bencher.iter(|| black_box(PolicyRequest::to_input(&request).unwrap()));
        });
        let text = generate(&case.pod, &Options::default()).unwrap().policy;
        criterion.bench_function(&format!("load the policy of {count} containers"), |bencher| {
            bencher.iter(|| black_box(Policy::compile(&text).unwrap()));
        });
    }
}

criterion_group!(benches, decisions);
criterion_main!(benches);
