//! The agent's binary: `serve`, started by init, and the two subcommands with which it starts itself again.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use ah_agent::{cli, console, serve};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [one] if one == "runtime" || one == "pause" => return ah_container::runtime_process(one),
        _ => {}
    }
    let result = match cli::parse(&arguments) {
        Ok(settings) => serve::run(&settings).map_err(|e| serve::text(&e)),
        Err(e) => Err(e.to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            console::tell(console::Level::Error, &text);
            eprintln!("anchorhold-agent: {text}");
            ExitCode::FAILURE
        }
    }
}
