//! Build, demo, test, bench, layers, tcb: the one way that people and CI run things.
#![forbid(unsafe_code)]

mod bench;
mod cmd;
mod demo;
mod fuzz;
mod image;
mod kernel;
mod kubernetes;
mod layers;
mod left_out;
mod lint;
mod map;
mod setup;
mod soak;
mod tcb;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Sets up, builds, demonstrates, tests and measures Anchorhold"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs what is missing, builds everything and shows the main job, attacks included
    Demo(demo::Options),
    /// Installs what is missing and runs the checks and tests of the workspace; `--kubernetes` those on a real Kubernetes
    Test(test::Options),
    /// Installs what is missing: Debian packages, tools, the guest image
    Setup,
    /// Formatting, clippy, zone arrows, trusted computing base, dependency policy
    Lint,
    /// Checks that crates depend only on zones they may trust (zones.toml), and that ARCHITECTURE.md says of each what it says itself
    Layers,
    /// Size of what the guest must trust: packages, lines, unsafe blocks, bytes (tcb.json)
    Tcb(tcb::Options),
    /// Runs the fuzz targets for a while
    Fuzz(fuzz::Options),
    /// The same again and again, for long: what only shows then
    Soak(soak::Options),
    /// Builds a container image of one of the project's programs, as an OCI layout
    Image(image::Options),
    /// Builds a smaller guest kernel from Debian's source (some seven minutes on two cores), and a guest image with it
    Kernel,
    /// Prints measured figures beside their goals
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Setup => setup::run(),
        Command::Lint => lint::run(),
        Command::Layers => layers::run(),
        Command::Tcb(options) => tcb::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Image(options) => image::run(&options),
        Command::Kernel => kernel::run(),
        Command::Bench(options) => bench::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
