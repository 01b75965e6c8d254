//! Generates the wire types from `proto/`, with the pure Rust parser: no `protoc` is needed.

use protobuf_codegen::{Codegen, Customize};

const FILES: [&str; 7] =
    ["content", "cri", "images", "introspection", "snapshots", "types", "version"];

fn main() {
    let inputs: Vec<String> = FILES.iter().map(|name| format!("proto/{name}.proto")).collect();
    for input in &inputs {
        println!("cargo::rerun-if-changed={input}");
    }
    Codegen::new()
        .pure()
        .include("proto")
        .inputs(&inputs)
        .customize(Customize::default().lite_runtime(true).gen_mod_rs(true))
        .cargo_out_dir("wire")
        .run()
        .expect("the .proto files are well formed");
}
