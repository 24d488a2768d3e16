//! `cargo demo`: the whole idea on one machine, with nothing faked.
//!
//! A cluster of one box, a node that joins it, a pod, a device, a cut and what comes after it. Every step is observed
//! from outside our code (`kubectl`, the runtime's own `ctr`, `mosquitto_sub`, pymodbus) and printed with its time.

mod console;
mod relay;
mod setup;
mod story;
mod testbed;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::console::Console;
use crate::story::Step;

#[derive(Parser)]
#[command(name = "demo", about = "Tells the story of KubeHive on this machine")]
struct Cli {
    /// Tell the story once, clean up, and exit 0 only if every step was observed
    #[arg(long)]
    once: bool,
    /// With --once: break this step on purpose; the run must fail
    #[arg(long, value_enum, requires = "once", value_name = "STEP")]
    r#break: Option<Step>,
    /// Tell it against this cluster instead of one of our own; what the story makes in it, CloudCore's definitions and namespace among it, is deleted at the end
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<std::path::PathBuf>,
    /// The cargo profile of the binaries: `release` is what ships, and takes a quarter of an hour to build
    #[arg(long, default_value = "demo")]
    profile: String,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let console = Console::new();
    match run(&cli, &console) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console.line(&format!("\nFAILED: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli, console: &Console) -> Result<()> {
    let tools = setup::prepare(&cli.profile, console)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (testbed, result) = story::tell(&tools, cli.kubeconfig.clone(), cli.r#break, console).await?;
        if let Err(error) = &result {
            console.line(&format!("\nstopped: {error:#}"));
            testbed.show_logs(console);
        } else if !cli.once {
            testbed.stay(console).await?;
        }
        testbed.leave(console).await;
        result
    })
}
