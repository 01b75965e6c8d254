//! Build, demo, test, bench, layers, tcb: the one way that people and CI run things.
#![forbid(unsafe_code)]

fn main() {}
