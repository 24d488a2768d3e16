//! `keadm backup edge`, `keadm upgrade edge` and `keadm rollback edge`.
//!
//! What is exchanged and how it comes back is `modules/nodeupgrade`. Here are the flags, and the supervisor: a process of its own, so that
//! neither the end of edgecore nor that of this terminal ends it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use beehive::Env;
use clap::{Args, Subcommand};
use config::edge::DEFAULT_PATH;
use nodeupgrade::{Journal, JournalFolder, Order, Outcome, Prepared, Source, TakenUp, Trust};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config_location;
use crate::kubeedge_flags::{NoKubeEdgeFlags, OfUpgrade, OfUpgradeAlone};

/// What the unit of each supervisor begins with, where systemd is. Each has a name of its own: one that failed may still have its.
const UNIT: &str = "kubehive-upgrade";
/// What an order to upgrade is, and none of which goes with a question how it went or with the end of one that was begun.
const OF_AN_ORDER: [&str; 10] = [
    "from",
    "image_archive",
    "to_version",
    "checksum",
    "image_digest",
    "key",
    "signature",
    "force",
    "offline_ok",
    "timeout",
];
/// A fifth of a second between two looks at the journal.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// 30 s without a supervisor: one that was ended is started again by systemd before that.
const UNSUPERVISED_MAX: Duration = Duration::from_secs(30);

/// What is copied.
#[derive(Subcommand)]
pub enum BackupCommand {
    /// Copies edgecore, edgecore.yaml and the store with its key into a folder of their version (backup, beside the store)
    Edge(OfConfig),
}

/// `keadm upgrade`.
#[derive(Args)]
#[command(arg_required_else_help = true)]
pub struct Upgrade {
    #[command(flatten)]
    of_kubeedge: NoKubeEdgeFlags<OfUpgradeAlone>,
    /// `None` only beside flags that are refused.
    #[command(subcommand)]
    side: Option<UpgradeCommand>,
}

/// Which side is upgraded.
#[derive(Subcommand)]
enum UpgradeCommand {
    /// Exchanges edgecore for a new one, and puts the old one back if that is not healthy in time
    Edge(Box<UpgradeEdge>),
    /// Another side, or none.
    #[command(external_subcommand)]
    Other(Vec<String>),
}

/// Which side goes back.
#[derive(Subcommand)]
pub enum RollbackCommand {
    /// Puts edgecore and edgecore.yaml of a backup in place of what runs, and goes on with that if they are not healthy in time
    Edge(RollbackEdge),
}

/// Whose node.
#[derive(Args)]
pub struct OfConfig {
    /// The node's edgecore.yaml
    #[arg(long, default_value = DEFAULT_PATH, value_parser = config_location::parser())]
    config: PathBuf,
}

/// When the new edgecore is good.
#[derive(Args)]
pub(crate) struct OfHealth {
    /// The node's edgecore.yaml
    #[arg(long, default_value = DEFAULT_PATH, value_parser = config_location::parser())]
    pub(crate) config: PathBuf,
    /// It is enough that the new edgecore answers and stays: for a node without the cloud, or one that is not Ready before
    #[arg(long)]
    offline_ok: bool,
    /// Seconds within which it has to be healthy
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(10..=3600))]
    timeout: u64,
}

impl OfHealth {
    /// The order of this.
    ///
    /// # Errors
    /// When nobody knows where keadm is.
    pub(crate) fn order(&self) -> Result<Order> {
        // It is written down for the next start of the machine.
        let (config, keadm) = (self.config.clone(), lasting(own_program()?));
        Ok(Order { config, keadm, offline_ok: self.offline_ok, within: self.timeout })
    }
}

/// Exchanges edgecore.
///
/// The new one comes from a file, no registry is needed. First everything is looked at that could keep it from running, then program,
/// settings and store are copied, then a supervisor of its own exchanges the program (and keadm, where an archive has both), starts
/// it, and waits until the node is linked and Ready. If it is not in time, what was there before is put back.
#[derive(Args)]
struct UpgradeEdge {
    #[command(flatten)]
    health: OfHealth,
    /// The new edgecore
    #[arg(long, conflicts_with = "image_archive")]
    from: Option<PathBuf>,
    /// An archive of the image installation-package, of which edgecore and keadm are taken
    #[arg(long)]
    image_archive: Option<PathBuf>,
    /// The version that it has to be, as 0.2.0
    #[arg(long = "toVersion")]
    to_version: Option<String>,
    /// SHA-256 that the file has to have
    #[arg(long)]
    checksum: Option<String>,
    /// The digest by which registries know the image in the archive
    #[arg(long)]
    image_digest: Option<String>,
    /// A public key (PEM: Ed25519 or ECDSA P-256) by which --signature has to be
    #[arg(long, requires = "signature")]
    key: Option<PathBuf>,
    /// cosign's signature: of an image its archive (NAME.sig.tar), of a program the text of `cosign sign-blob`
    #[arg(long, requires = "key")]
    signature: Option<PathBuf>,
    /// Take an older version, too, and one that skips a release
    #[arg(long)]
    force: bool,
    /// Show how the last upgrade or rollback went, or how far it is
    #[arg(long, conflicts_with_all = OF_AN_ORDER)]
    status: bool,
    /// Finish an upgrade that was ended in the middle; the unit does it before each start of edgecore
    #[arg(long, conflicts_with_all = OF_AN_ORDER, conflicts_with = "status")]
    take_up: bool,
    /// What this verb itself starts.
    #[arg(long, hide = true, conflicts_with_all = OF_AN_ORDER, conflicts_with_all = ["status", "take_up"])]
    supervise: bool,
    #[command(flatten)]
    of_kubeedge: NoKubeEdgeFlags<OfUpgrade>,
}

/// Goes back to a backup.
#[derive(Args)]
pub struct RollbackEdge {
    #[command(flatten)]
    health: OfHealth,
    /// The version of the backup; the newest one before the version that runs if left out
    #[arg(long)]
    historical_version: Option<String>,
    /// Put the store of the backup back as well: what came in since then is lost, and what the cloud holds comes from there again
    #[arg(long)]
    restore_store: bool,
}

/// `keadm backup`.
///
/// # Errors
/// When there is nothing to copy, or the disk does not take it.
pub async fn backup(command: &BackupCommand, env: &Env, say: &mut dyn FnMut(String)) -> Result<()> {
    let BackupCommand::Edge(of) = command;
    let backup = nodeupgrade::back_up(&of.config, &own_program()?, env, say).await?;
    for file in &backup.files {
        say(format!("{} is copied", file.path.display()));
    }
    say(format!(
        "edgecore {} and the store are backed up in {}; secrets lie in it, and the key to them",
        backup.version,
        backup.folder.display()
    ));
    Ok(())
}

/// `keadm upgrade`.
///
/// # Errors
/// When a check fails, or what was there before had to be put back.
pub async fn upgrade(command: &Upgrade, env: &Env, say: &mut dyn FnMut(String)) -> Result<()> {
    let order = match &command.side {
        Some(UpgradeCommand::Edge(order)) => order,
        None => bail!("`keadm upgrade edge` upgrades this node"),
        Some(UpgradeCommand::Other(words)) if words.first().is_some_and(|word| word == "cloud") => bail!(
            "there is no `keadm upgrade cloud` here: `keadm init --force` of the new release, with the flags of the first time, upgrades CloudCore"
        ),
        Some(UpgradeCommand::Other(words)) => {
            bail!(
                "`{}` is nothing that is upgraded: edge",
                words.first().map_or("", String::as_str).escape_debug()
            )
        }
    };
    let config = &order.health.config;
    if order.status {
        return status(config, say);
    }
    if order.take_up {
        return take_up(config, env, say).await;
    }
    if order.supervise {
        let _hangup = deaf_to_hangup()?;
        // What it was started from may go; and where it cannot have a session of its own, it has one.
        let _ = rustix::process::setsid();
        // However it ended, it is done: whoever starts this again does not do it again.
        return nodeupgrade::supervise(config, env, say).await.map(drop);
    }
    let source = match (&order.from, &order.image_archive) {
        (Some(file), _) => Source::Program(file.clone()),
        (None, Some(file)) => Source::Image(file.clone()),
        (None, None) => {
            bail!("--from FILE names the new edgecore, --image-archive FILE an image that has one")
        }
    };
    let trust = Trust {
        checksum: order.checksum.clone(),
        image_digest: order.image_digest.clone(),
        signature: order.key.clone().zip(order.signature.clone()),
        version: order.to_version.clone(),
        force: order.force,
    };
    match nodeupgrade::prepare(&order.health.order()?, &source, &trust, env, say).await? {
        Prepared::Already => Ok(()),
        Prepared::Ready => hand_over(config, env, say).await,
    }
}

/// `keadm rollback`.
///
/// # Errors
/// When there is no backup, a check fails, or what was there before had to be put back.
pub async fn rollback(command: &RollbackCommand, env: &Env, say: &mut dyn FnMut(String)) -> Result<()> {
    let RollbackCommand::Edge(order) = command;
    let named = order.historical_version.as_deref();
    match nodeupgrade::prepare_rollback(&order.health.order()?, named, order.restore_store, env, say).await? {
        Prepared::Already => Ok(()),
        Prepared::Ready => hand_over(&order.health.config, env, say).await,
    }
}

fn journals(config: &Path, say: &mut dyn FnMut(String)) -> Result<JournalFolder> {
    Ok(JournalFolder::of(&nodeupgrade::trusted_settings(config, say)?.database.data_source))
}

/// Where keadm is found later on: the folder that `keadm batch` brings one in goes at the end, and the package's lies here.
fn lasting(own: PathBuf) -> PathBuf {
    let goes_with_a_batch = own.to_str().is_some_and(|own| own.starts_with(crate::batch::FOLDER));
    if !goes_with_a_batch {
        return own;
    }
    let (of_package, by_hand) = (PathBuf::from("/usr/bin/keadm"), PathBuf::from("/usr/local/bin/keadm"));
    if of_package.exists() && !by_hand.exists() { of_package } else { by_hand }
}

fn own_program() -> Result<PathBuf> {
    std::env::current_exe().context("where keadm is")
}

fn status(config: &Path, say: &mut dyn FnMut(String)) -> Result<()> {
    let journals = journals(config, say)?;
    let Some(journal) = journals.load()? else {
        say("no upgrade of this node is known".to_owned());
        return Ok(());
    };
    let is_supervised = journals.lock()?.is_none();
    nodeupgrade::status(&journal, is_supervised).into_iter().for_each(say);
    Ok(())
}

async fn take_up(config: &Path, env: &Env, say: &mut dyn FnMut(String)) -> Result<()> {
    // Before each start of edgecore, also on a machine that is no node yet: edgecore says that better.
    if !config.exists() {
        return Ok(());
    }
    let _hangup = deaf_to_hangup()?;
    let journal = match nodeupgrade::take_up(config, env, say).await? {
        TakenUp::Nothing | TakenUp::Supervised => return Ok(()),
        TakenUp::AwaitsStart(journal) => match start_supervisor(config, env) {
            Ok(()) => {
                say("edgecore is the one of before; a supervisor looks how it is once it runs".to_owned());
                journal
            }
            Err(error) => {
                say(format!("nobody looks how edgecore is once it runs: {error:#}"));
                nodeupgrade::end_unwatched(config, say)?.map_or(journal, Box::new)
            }
        },
        TakenUp::Finished(journal) => journal,
    };
    nodeupgrade::status(&journal, journal.progress.awaits_start()).into_iter().for_each(&mut *say);
    if journal.progress.is_booting {
        say("edgecore does not run: whoever has called this starts it now".to_owned());
    }
    match journal.progress.outcome {
        Some(Outcome::Failed) => bail!("neither the old nor the new edgecore is sure"),
        _ => Ok(()),
    }
}

/// A terminal that is closed does not end what goes on without it. It holds from now on, to the end of the process.
fn deaf_to_hangup() -> Result<Signal> {
    signal(SignalKind::hangup()).context("SIGHUP")
}

/// Starts the supervisor, and says what it does until it has ended.
///
/// # Errors
/// When it cannot be started, was ended, or what was there before had to be put back.
pub(crate) async fn hand_over(config: &Path, env: &Env, say: &mut dyn FnMut(String)) -> Result<()> {
    let config = std::path::absolute(config).context("where edgecore.yaml is")?;
    let journals = journals(&config, say)?;
    let shown = journals.load()?.map_or(0, |journal| journal.steps.len());
    start_supervisor(&config, env)?;
    say("handed over to a supervisor: it goes on if this is ended (`keadm upgrade edge --status`)".to_owned());
    follow(&journals, shown, env, say).await
}

/// The name of a supervisor's unit.
fn unit(id: [u8; 16]) -> String {
    format!("{UNIT}-{:032x}", u128::from_be_bytes(id))
}

fn start_supervisor(config: &Path, env: &Env) -> Result<()> {
    let (own, unit) = (own_program()?, unit(env.random_id()));
    let config = std::path::absolute(config).context("where edgecore.yaml is")?;
    let mut command = if nodeupgrade::has_systemd() {
        let mut command = Command::new("systemd-run");
        command.args(["--quiet", "--collect", "--property=Restart=on-failure", "--property=RestartSec=2s"]);
        // An edgecore that runs in no unit of its own is started by the supervisor, and outlives it.
        command.arg("--property=KillMode=process").arg(format!("--unit={unit}")).arg(own);
        command
    } else {
        Command::new(own)
    };
    command.args(["upgrade", "edge", "--supervise", "--config"]).arg(config).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().context("cannot start the supervisor")?;
    if nodeupgrade::has_systemd() {
        let status = child.wait().context("systemd-run")?;
        if !status.success() {
            bail!(
                "systemd-run does not start the supervisor ({status}): `systemctl status {unit}`; --take-up does without"
            );
        }
    }
    Ok(())
}

async fn follow(
    journals: &JournalFolder,
    mut shown: usize,
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let mut unsupervised_since = env.now();
    loop {
        // It is replaced in one step: what cannot be read now is a fault of the disk.
        let journal = journals.load()?.context("the journal is gone")?;
        for step in journal.steps.iter().skip(shown) {
            let sign = if step.succ { "ok    " } else { "failed" };
            say(format!("{sign}  {:?}: {}", step.phase, step.reason));
        }
        shown = journal.steps.len();
        if journal.progress.is_done() {
            return ended(&journal);
        }
        if journals.lock()?.is_none() {
            unsupervised_since = env.now();
        } else if env.now().since(unsupervised_since) > UNSUPERVISED_MAX {
            bail!(
                "the supervisor was ended in the phase {:?}: `keadm upgrade edge --take-up` finishes it",
                journal.progress.phase
            );
        }
        env.sleep(LOOK_EVERY).await;
    }
}

/// What is wanted runs, or the last line says why not.
fn ended(journal: &Journal) -> Result<()> {
    let last = nodeupgrade::status(journal, false).pop().unwrap_or_default();
    match journal.progress.outcome {
        Some(Outcome::Confirmed) => Ok(()),
        _ => bail!("{last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        order: UpgradeEdge,
    }

    fn parsed(arguments: &[&str]) -> Result<UpgradeEdge, String> {
        let words = ["edge"].iter().chain(arguments);
        let line = <Line as clap::Parser>::try_parse_from(words).map_err(|error| error.to_string())?;
        Ok(line.order)
    }

    #[test]
    fn kubeedges_place_means_the_file_that_mappers_do_not_reach() {
        for (told, meant) in
            [(config::edge::KUBEEDGE_PATH, DEFAULT_PATH), ("/srv/edgecore.yaml", "/srv/edgecore.yaml")]
        {
            let order = parsed(&["--status", "--config", told]).unwrap();
            assert_eq!(order.health.config, Path::new(meant));
        }
    }

    #[test]
    fn who_asks_how_it_went_orders_nothing() {
        for verb in ["--status", "--take-up", "--supervise"] {
            assert!(parsed(&[verb, "--config", "/c"]).is_ok(), "{verb}");
            for flag in [
                &["--from", "f"] as &[&str],
                &["--image-archive", "f"],
                &["--toVersion", "1.2.3"],
                &["--checksum", "ab"],
                &["--image-digest", "ab"],
                &["--key", "k", "--signature", "s"],
                &["--force"],
                &["--offline-ok"],
                &["--timeout", "20"],
            ] {
                let error = parsed(&[&[verb], flag].concat()).err();
                assert!(error.is_some_and(|error| error.contains("cannot be used with")), "{verb} {flag:?}");
            }
        }
        assert!(parsed(&["--status", "--take-up"]).is_err() && parsed(&["--supervise", "--status"]).is_err());
    }

    #[test]
    fn what_goes_with_a_batch_is_not_written_down_for_later() {
        let brought = lasting(format!("{}a1b2/keadm", crate::batch::FOLDER).into());
        assert!(brought.starts_with("/usr") && brought.ends_with("bin/keadm"), "{}", brought.display());
        assert_eq!(lasting("/opt/keadm".into()), PathBuf::from("/opt/keadm"));
    }

    #[test]
    fn a_flag_of_an_older_keadm_that_knew_no_sides_is_refused_with_what_to_write() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            upgrade: Upgrade,
        }
        let parsed = |words: &[&str]| {
            let words = ["upgrade"].iter().chain(words);
            let line = <Line as clap::Parser>::try_parse_from(words).map_err(|error| error.to_string())?;
            Ok::<_, String>(line.upgrade.side)
        };
        for words in [
            &["--toVersion=v1.20.0"] as &[&str],
            &["--toVersion", "v1.20.0", "--upgradeID", "x"],
            &["--toVersion"],
        ] {
            let told = parsed(words).map(|_| ()).unwrap_err();
            assert!(told.contains("no --toVersion here: it is one of `keadm upgrade edge`"), "{told}");
        }
        let edge = parsed(&["edge", "--toVersion", "1.2.3", "--from", "f"]).unwrap();
        assert!(
            matches!(edge, Some(UpgradeCommand::Edge(order)) if order.to_version.as_deref() == Some("1.2.3"))
        );
        let cloud = parsed(&["cloud", "--set", "a=b"]).unwrap();
        assert!(matches!(cloud, Some(UpgradeCommand::Other(words)) if words[0] == "cloud"));
        assert!(parsed(&[]).map(|_| ()).unwrap_err().contains("edge"), "help");
    }

    #[test]
    fn each_supervisor_has_a_name_of_its_own() {
        let env = Env::real();
        let (first, second) = (unit(env.random_id()), unit(env.random_id()));
        assert_ne!(first, second);
        assert!(first.starts_with("kubehive-upgrade-") && first.len() == 49, "{first}");
    }
}
