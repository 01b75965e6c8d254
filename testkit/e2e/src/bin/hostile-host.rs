//! The host as an attacker, for the demo: the same run with one thing changed. Succeeds when the attack is refused.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use ah_policy::InitData;
use ah_sandbox::{Blame, Stop};
use ah_testkit_e2e::Heard;
use ah_testkit_e2e::attack::{self, Where};
use anchorhold::cli::{Images, Source};
use anchorhold::dirs::Dirs;
use anchorhold::keys::Accept;
use anchorhold::run::Launch;
use anchorhold::{guest, prepare, ui};
use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(about = "The host as an attacker: the same run with one thing changed")]
struct Cli {
    #[command(subcommand)]
    attack: Attack,
}

#[derive(Subcommand)]
enum Attack {
    /// Change one byte of the workload's layer on disk
    FlipLayerByte(Pod),
    /// Hand over another policy, HOST_DATA kept
    OtherPolicy(Pod),
}

#[derive(Args)]
struct Pod {
    #[arg(short = 'f', long)]
    file: PathBuf,
    #[arg(long)]
    images: Vec<PathBuf>,
}

fn main() -> Result<ExitCode> {
    ah_vmm::supervisor::run_if_asked();
    let cli = Cli::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(cli.attack))
}

async fn run(attack: Attack) -> Result<ExitCode> {
    eprintln!("{}", ui::SOFTWARE_TEE);
    let (pod, expect) = match &attack {
        Attack::FlipLayerByte(pod) => (pod, Blame::Verity),
        Attack::OtherPolicy(pod) => (pod, Blame::Init),
    };
    let folder = tempfile::tempdir()?;
    let heard = Heard::default();
    let mut launch = honest(pod, &heard).await?;
    match &attack {
        Attack::FlipLayerByte(_) => {
            let last = launch.sandbox.layers.len() - 1;
            attack::flip_layer_byte(&mut launch, last, Where::Block(0), folder.path())?;
            println!("hostile host: one bit of a layer's disk is changed");
        }
        Attack::OtherPolicy(_) => {
            launch.sandbox.initdata_disk = Some(allow_all()?.to_disk());
            println!("hostile host: the initdata disk carries a policy that allows everything");
        }
    }
    match launch.start(Arc::new(heard.clone()), Stop::never()).await {
        Ok(outcome) => {
            bail!("NOT refused: the pod ended with {}\n{}", outcome.exit_code, heard.everything())
        }
        Err(error) if error.blame() == expect => {
            println!("{error}");
            println!(
                "=> refused, nothing was released ({} decisions of the key service)",
                heard.decisions().len()
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(error).context("refused by another part than expected"),
    }
}

async fn honest(pod: &Pod, heard: &Heard) -> Result<Launch> {
    let var = |name| std::env::var_os(name).map(PathBuf::from);
    let data = var("ANCHORHOLD_DATA").context("ANCHORHOLD_DATA is not set")?;
    let parent = data.parent().context("ANCHORHOLD_DATA has no parent")?;
    let dirs = Dirs::below(parent);
    let image = guest::load(&dirs, var("ANCHORHOLD_GUEST").as_deref())?;
    let images = Images { images: pod.images.clone(), ..Images::default() };
    let source = Source { file: pod.file.clone(), images };
    let prepared = prepare::prepare(&dirs, &source).await?;
    Launch::new(
        &dirs,
        &image,
        ah_evidence::Tee::Software,
        prepared,
        Accept::DangerSoftwareTee,
        Some(heard.observer()),
    )
    .await
}

/// The host's own policy.
fn allow_all() -> Result<InitData> {
    let rules: String = ah_agent_api::METHODS
        .iter()
        .filter_map(|method| method.rule)
        .map(|rule| format!("default {rule} := true\n"))
        .collect();
    Ok(InitData::build(&format!("package agent_policy\n{rules}"), &Default::default())?)
}
