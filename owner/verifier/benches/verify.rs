//! Verifications a second on one core: whole chain and report signature every time, nothing kept in between.
//!
//! `cargo bench -p ah-verifier` prints the time of one; the goal is 500 a second, so at most 2 ms.
#![allow(missing_docs, reason = "criterion's macros make public items")]

#[path = "../tests/support/mod.rs"]
mod support;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use support::{collateral, now, report, roots, signed};

fn bench(criterion: &mut Criterion) {
    let (raw, collateral, roots) = (signed(&report()), collateral(), roots());
    let mut group = criterion.benchmark_group("verify");
    group.throughput(Throughput::Elements(1));
    group.bench_function("chain and report", |bencher| {
        bencher.iter(|| ah_verifier::verify(black_box(&raw), &collateral, now(), &roots).unwrap());
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
