//! `keadm batch`: runs keadm on many machines by ssh, as KubeEdge's does, with this machine's ssh and scp.
//!
//! What is unlike KubeEdge's: host keys are checked, no shell reads `keadmCmd`, keadm is brought to a folder of the user's own and not to one in
//! `/tmp` that others may have made, the token of `join` stands on no command line, what a node says is kept apart, nothing is downloaded, and the exit
//! code is 1 if a node failed.

mod file;
mod news;
mod node;
mod package;
mod ssh;
mod template;
mod words;

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use beehive::Env;
use clap::{Args, Subcommand};
use tokio::task::JoinSet;

use file::BatchNode;
use news::{News, Steps};
pub(crate) use node::FOLDER;
use node::Tools;
pub use ssh::answer_ssh;

/// Which file, and how long a node may take.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct BatchCommand {
    #[command(subcommand)]
    other: Option<OtherBatch>,
    /// The file that says which nodes, how they are reached, and what keadm is to do there
    #[arg(short = 'c', long, required = true)]
    config: Option<PathBuf>,
    /// How many seconds one node may take
    #[arg(long, default_value_t = 1800, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    node_timeout: u64,
}

/// What is not done to nodes.
#[derive(Subcommand)]
enum OtherBatch {
    /// Writes a file to begin with: config.yaml, in this folder
    GenConfig {
        /// Where it is written
        #[arg(short = 'o', long, default_value = "config.yaml")]
        output: PathBuf,
    },
}

/// Does what the file says on its nodes, so many at once, and says what became of each.
///
/// # Errors
/// When the file cannot be done, or a node failed: with each of them and why.
pub async fn batch(order: &BatchCommand, env: &Env, say: &mut dyn FnMut(String)) -> Result<()> {
    if let Some(OtherBatch::GenConfig { output }) = &order.other {
        return write_example(output, say);
    }
    let path = order.config.as_deref().context("--config is missing")?;
    let (batch, warnings) = file::read(path)?;
    for warning in warnings {
        say(format!("warning: {warning}"));
    }
    let scratch =
        tempfile::Builder::new().prefix("keadm-batch-").tempdir().context("cannot make a folder")?;
    let tools = Tools {
        programs: ssh::Programs::here()?,
        packages: batch.packages,
        folder: scratch.path().to_owned(),
        within: Duration::from_secs(order.node_timeout),
        env: env.clone(),
    };
    let in_all = batch.nodes.len();
    say(format!("{in_all} nodes, {} at once", batch.at_once.min(in_all)));
    let failed = run_all(batch.nodes.into(), batch.at_once, &tools, say).await?;
    summary(in_all, &failed, say)
}

/// All nodes, in the file's order. Answers those that failed, and why.
async fn run_all(
    mut waiting: VecDeque<BatchNode>,
    at_once: usize,
    tools: &Tools,
    say: &mut dyn FnMut(String),
) -> Result<Vec<(String, String)>> {
    let (news, mut heard) = news::channel();
    let (mut running, mut failed) = (JoinSet::new(), Vec::new());
    loop {
        while running.len() < at_once
            && let Some(node) = waiting.pop_front()
        {
            let (tools, steps) = (tools.clone(), Steps { name: node.name.clone(), news: news.clone() });
            running.spawn_local(async move { run_one(&node, &tools, &steps).await });
        }
        tokio::select! {
            biased;
            Some(news) = heard.recv() => tell(news, &mut failed, say),
            ended = running.join_next() => match ended {
                Some(ended) => ended.context("a node's work broke off")?,
                None => break,
            },
        }
    }
    while let Ok(news) = heard.try_recv() {
        tell(news, &mut failed, say);
    }
    Ok(failed)
}

async fn run_one(node: &BatchNode, tools: &Tools, steps: &Steps) {
    let begun = tools.env.now();
    let (outcome, said) = node::run(node, tools, steps).await;
    let seconds = tools.env.now().since(begun).as_secs();
    let _ = steps.news.send(News::Ended { name: node.name.clone(), outcome, said, seconds }).await;
}

fn tell(news: News, failed: &mut Vec<(String, String)>, say: &mut dyn FnMut(String)) {
    match news {
        News::Step { name, what } => say(format!("[{name}] {what}")),
        News::Ended { name, outcome, said, seconds } => {
            said.lines().for_each(|line| say(format!("[{name}] | {line}")));
            match outcome {
                Ok(()) => say(format!("[{name}] done in {seconds} s")),
                Err(error) => {
                    let why = daemon::sentence(&error);
                    say(format!("[{name}] failed after {seconds} s: {why}"));
                    failed.push((name, why));
                }
            }
        }
    }
}

fn summary(in_all: usize, failed: &[(String, String)], say: &mut dyn FnMut(String)) -> Result<()> {
    if failed.is_empty() {
        say(format!("{in_all} nodes: all are done"));
        return Ok(());
    }
    let lines = failed.iter().map(|(name, why)| format!("\n  {name}: {why}"));
    bail!(
        "{in_all} nodes: {} done, {} failed:{}",
        in_all - failed.len(),
        failed.len(),
        lines.collect::<String>()
    )
}

fn write_example(output: &Path, say: &mut dyn FnMut(String)) -> Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(output);
    let mut made = made.with_context(|| {
        format!("cannot make {}: a file that is there is left as it is", output.display())
    })?;
    made.write_all(file::EXAMPLE.as_bytes()).with_context(|| format!("cannot write {}", output.display()))?;
    say(format!("{}: fill it in, and run `keadm batch -c {0}`", output.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_written_once_and_for_its_owner() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        write_example(&path, &mut |_| {}).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "mine").unwrap();
        assert!(write_example(&path, &mut |_| {}).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn a_batch_with_a_failure_fails_and_names_it() {
        assert!(summary(2, &[], &mut |_| {}).is_ok());
        let failed = [("a".to_owned(), "no".to_owned())];
        assert_eq!(
            summary(3, &failed, &mut |_| {}).unwrap_err().to_string(),
            "3 nodes: 2 done, 1 failed:\n  a: no"
        );
    }
}
