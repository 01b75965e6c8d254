//! containerd-shim-anchorhold-v2, as containerd starts it.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;

use ah_shim::{Action, Call};

fn main() -> ExitCode {
    // Before anything else: the same program supervises the VM's processes.
    ah_vmm::supervisor::run_if_asked();
    let done =
        Call::parse(std::env::args().skip(1)).map_err(Into::into).and_then(|call| run(&call));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // containerd shows what a failed start printed; nobody may be listening
            let _ = writeln!(std::io::stderr(), "containerd-shim-anchorhold-v2: {}", told(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(call: &Call) -> Result<(), Box<dyn std::error::Error>> {
    match call.action {
        Action::Version => {
            writeln!(
                std::io::stdout(),
                "containerd-shim-anchorhold-v2 {}",
                env!("CARGO_PKG_VERSION")
            )?;
        }
        Action::Start => write!(std::io::stdout(), "{}", ah_shim::start(call)?)?,
        Action::Delete => std::io::stdout().write_all(&ah_shim::delete(call)?)?,
        Action::Serve => ah_shim::serve(call)?,
    }
    Ok(())
}

/// An error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
