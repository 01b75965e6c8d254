//! Generates the wire types from `proto/` with the pure Rust parser: no `protoc` is needed.

use protobuf_codegen::{Codegen, Customize};

const FILES: [&str; 4] = ["task", "events", "metrics", "options"];

fn main() {
    let inputs: Vec<String> = FILES.iter().map(|name| format!("proto/{name}.proto")).collect();
    for input in &inputs {
        println!("cargo::rerun-if-changed={input}");
    }
    Codegen::new()
        .pure()
        .include("proto")
        .inputs(&inputs)
        .cargo_out_dir("wire")
        .customize(Customize::default().lite_runtime(true).gen_mod_rs(true))
        .run()
        .expect("the .proto files are well formed");
}
