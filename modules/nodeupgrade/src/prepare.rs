//! An upgrade until edgecore is stopped: the checks, the new program in its folder, the backup. Nothing that runs is changed by it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context as _, Result, anyhow, bail};
use beehive::Env;
use config::edge::EdgeCore;

use crate::backup::{self, Backup};
use crate::checks::{self, told};
use crate::exchange::{Exchange, When};
use crate::image::{ImageArchive, PROGRAM_MAX};
use crate::journal::{Bar, Event, Journal, JournalFolder, JournalLock};
use crate::plan::Phase;
use crate::process::Process;
use crate::signature::PublicKey;
use crate::version::Version;
use crate::{files, program, service};

/// What edgecore is called in an image and in a backup.
const EDGECORE: &str = "edgecore";
const KEADM: &str = "keadm";
const SETTINGS: &str = "edgecore.yaml";

/// What holds for an upgrade and for a rollback.
#[derive(Debug, Clone)]
pub struct Order {
    /// The node's `edgecore.yaml`.
    pub config: PathBuf,
    /// It is enough that the new edgecore answers and stays, without the cloud.
    pub offline_ok: bool,
    /// Seconds within which it has to be healthy.
    pub within: u64,
}

/// Where the new program comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The program itself.
    Program(PathBuf),
    /// An archive of the installation package's image.
    Image(PathBuf),
}

impl Source {
    fn file(&self) -> &Path {
        match self {
            Source::Program(file) | Source::Image(file) => file,
        }
    }
}

/// What the new program is held against, before it is run.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// SHA-256 of the file, in hexadecimal.
    pub checksum: Option<String>,
    /// The digest by which registries know the image.
    pub image_digest: Option<String>,
    /// A public key in PEM, and cosign's signature.
    pub signature: Option<(PathBuf, PathBuf)>,
    /// The version that it has to be.
    pub version: Option<String>,
    /// An older version, or one that skips a release, is taken as well.
    pub force: bool,
}

/// The node that is upgraded, as it is now.
struct Node {
    settings: EdgeCore,
    journals: JournalFolder,
    _lock: JournalLock,
    process: Process,
    program: PathBuf,
    version: Version,
}

/// A new file that waits for its name.
struct Staged {
    /// What it is called in a backup.
    name: &'static str,
    path: PathBuf,
    sum: String,
    when: When,
}

/// Fetches and looks at the new program, and backs up the old one. [`crate::supervise`] does the rest.
///
/// # Errors
/// With the name of the check that failed, and its cure. Nothing is changed then.
pub async fn prepare(
    order: &Order,
    source: &Source,
    trust: &Trust,
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let node = look(order, env, say).await?;
    let mut journal = begin(&node, order, Event::Upgrade, env).await?;
    let staged = fetch(&node, source, trust, &mut journal, env, say).await;
    finish(&node, order, journal, staged, None, env, say)
}

/// Takes the programs and settings of a backup as the new ones: of the version that is named, else of the newest other one.
///
/// # Errors
/// As [`prepare`]; and when there is no such backup.
pub async fn prepare_rollback(
    order: &Order,
    named: Option<&str>,
    with_store: bool,
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let node = look(order, env, say).await?;
    let backup = backup::find(&node.settings.database.data_source, named, &node.version);
    let backup =
        told("Backup", backup, |found| format!("{} in {}", found.version, found.folder.display()), say)?;
    let mut journal = begin(&node, order, Event::Rollback, env).await?;
    journal.to_version = backup.version.to_string();
    journal.store_from = with_store.then(|| backup.store());
    let staged = fetch_backup(&node, order, &backup, env, say).await;
    finish(&node, order, journal, staged, Some(&backup.folder), env, say)
}

/// Copies what runs on the node, or else the edgecore in the folder of `keadm`, with its settings and its store.
///
/// # Errors
/// When there is no edgecore, an upgrade is under way, or the disk does not take the copies.
pub async fn back_up(config: &Path, keadm: &Path, env: &Env) -> Result<Backup> {
    let settings = EdgeCore::load(config)?;
    let store = &settings.database.data_source;
    let _lock = JournalFolder::of(store).lock()?.context("an upgrade of this node is under way")?;
    let program = match Process::on_store(store) {
        Some(process) => process.program()?,
        None => keadm.with_file_name(EDGECORE),
    };
    let version = program::version_of(&program, EDGECORE, env).await?;
    copy_all(&version, &program, config, store, seconds(env), None)
}

fn seconds(env: &Env) -> u64 {
    env.wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

async fn look(order: &Order, env: &Env, say: &mut dyn FnMut(String)) -> Result<Node> {
    let settings = EdgeCore::load(&order.config)?;
    let store = &settings.database.data_source;
    let journals = JournalFolder::of(store);
    let lock = journals.lock()?.context(
        "Lock: another upgrade of this node is under way: `keadm upgrade edge --status` shows how far it is",
    )?;
    if let Some(last) = journals.load()?
        && !last.progress.is_done()
        && !matches!(last.progress.phase, Phase::PreCheck | Phase::BackUp)
    {
        bail!(
            "Lock: the last upgrade was ended in the phase {:?} and is not finished: `keadm upgrade edge --take-up` finishes it",
            last.progress.phase
        );
    }
    let says = |found: &(Process, PathBuf)| format!("{} runs (process {})", found.1.display(), found.0.pid());
    let (process, program) = told("EdgeCore", checks::running(store), says, say)?;
    let version = program::version_of(&program, EDGECORE, env).await;
    let version = told("Version", version, |version| format!("edgecore {version} runs"), say)?;
    told("Held", checks::not_held(store), |()| "nobody holds this node as it is".to_owned(), say)?;
    let ready = checks::ready(&settings, order.offline_ok, env).await;
    told("NodeReady", ready, String::clone, say)?;
    Ok(Node { settings, journals, _lock: lock, process, program, version })
}

/// The journal, on the disk before anything is made.
async fn begin(node: &Node, order: &Order, event: Event, env: &Env) -> Result<Journal> {
    let store = &node.settings.database.data_source;
    let config = std::path::absolute(&order.config).context("where edgecore.yaml is")?;
    let mut journal = Journal::new(event, node.version.as_str(), "", &config, store);
    journal.launch = service::launch_of(&node.process, env).await?;
    let socket = node.settings.modules.edge_stream.socket().map(Path::to_owned);
    journal.bar = Bar { socket, offline_ok: order.offline_ok, within: order.within };
    // Whatever is staged until it is known what that is goes with an end in the middle.
    let candidates = [node.program.clone(), node.program.with_file_name(KEADM), config];
    journal.exchanges = candidates.into_iter().map(Exchange::candidate).collect();
    node.journals.keep_room()?;
    node.journals.save(&journal)?;
    Ok(journal)
}

async fn fetch(
    node: &Node,
    source: &Source,
    trust: &Trust,
    journal: &mut Journal,
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Result<Vec<Staged>> {
    let file = source.file();
    let sum = files::sum_of(
        &mut File::open(file).with_context(|| format!("cannot read {}", file.display()))?,
        u64::MAX,
    )?;
    told("Checksum", checksum(trust, &sum.0), String::clone, say)?;
    let folder = files::folder_of(&node.program);
    let store = &node.settings.database.data_source;
    let wanted = backup::room_for(&[&node.program, &node.program.with_file_name(KEADM)], store);
    let room = checks::room((folder, sum.1), (files::folder_of(store), wanted));
    told("Room", room, String::clone, say)?;
    let image = match source {
        Source::Program(_) => None,
        Source::Image(path) => {
            let opened = ImageArchive::open(path).and_then(|archive| Ok((archive.image()?, archive)));
            let says = |found: &(crate::image::Image, ImageArchive)| found.0.digest.clone();
            let opened = told("Image", opened, says, say)?;
            Some(opened)
        }
    };
    let digest = image.as_ref().map(|(image, _)| image.digest.as_str());
    told("Trust", trusted(trust, file, digest), |said| (*said).to_owned(), say)?;
    let staged = match &image {
        None => vec![stage_file(file, &node.program)?],
        Some((image, archive)) => stage_image(node, image, archive)?,
    };
    let first = staged.first().context("nothing is staged")?;
    let waits = Exchange::staged(&first.path);
    told(
        "Program",
        program::fits_machine(&waits),
        |()| format!("{} is for this machine", file.display()),
        say,
    )?;
    let version = new_version(node, &waits, trust, env).await;
    let version = told("VersionSkew", version, |new| format!("{} to {new}", node.version), say)?;
    journal.to_version = version.to_string();
    if files::sum_of_file(&node.program)?.as_ref() == Some(&first.sum) {
        bail!("{} is that very program already: there is nothing to do", node.program.display());
    }
    Ok(staged)
}

fn checksum(trust: &Trust, sum: &str) -> Result<String> {
    let Some(wanted) = &trust.checksum else {
        return Ok(format!("{sum}, which nobody has asked for (--checksum)"));
    };
    let wanted = wanted.strip_prefix("sha256:").unwrap_or(wanted).to_ascii_lowercase();
    if wanted != sum {
        bail!(
            "the file has {sum}, and {} is wanted: fetch it again, from whom you trust",
            wanted.escape_debug()
        );
    }
    Ok(wanted)
}

/// The image's digest and the signature, as far as they are given.
fn trusted(trust: &Trust, file: &Path, digest: Option<&str>) -> Result<&'static str> {
    if let Some(wanted) = &trust.image_digest {
        let found = digest
            .context("--image-digest is of an image, and --from of a program: --checksum holds that")?;
        if found != wanted && found.strip_prefix("sha256:") != Some(wanted) {
            bail!("the image has the digest {found}, and {} is wanted", wanted.escape_debug());
        }
    }
    let Some((key, signature)) = &trust.signature else {
        return Ok("no signature is asked for (--key, --signature)");
    };
    let key = PublicKey::read(key)?;
    match digest {
        Some(digest) => key.check_image(digest, signature)?,
        None => key.check_file(file, signature)?,
    }
    Ok("the signature is of that key")
}

async fn new_version(node: &Node, waits: &Path, trust: &Trust, env: &Env) -> Result<Version> {
    let version = program::version_of(waits, EDGECORE, env).await?;
    if let Some(wanted) = &trust.version {
        let named = Version::parse(wanted)
            .with_context(|| format!("--toVersion {} is no version, as 0.1.0", wanted.escape_debug()))?;
        if !version.is(&named) {
            bail!("it is {version}, and --toVersion says {named}");
        }
    }
    match node.version.refusal(&version) {
        Some(why) if !trust.force => {
            bail!("{why}. --force does it all the same, and is for whoever knows both")
        }
        _ => Ok(version),
    }
}

fn stage_file(from: &Path, path: &Path) -> Result<Staged> {
    let waits = Exchange::staged(path);
    let mode = files::mode_of(path)?;
    let sum = files::copy(from, &waits, mode)?;
    if files::size_of(&waits) > PROGRAM_MAX {
        files::remove(&waits)?;
        bail!("{} is longer than {PROGRAM_MAX} bytes", from.display());
    }
    Ok(Staged { name: EDGECORE, path: path.to_owned(), sum, when: When::Swap })
}

/// edgecore, and keadm where both the image and the machine have one beside it.
fn stage_image(node: &Node, image: &crate::image::Image, archive: &ImageArchive) -> Result<Vec<Staged>> {
    let keadm = node.program.with_file_name(KEADM);
    let mut staged = Vec::new();
    for (name, path, when) in [(EDGECORE, &node.program, When::Swap), (KEADM, &keadm, When::Confirm)] {
        if when == When::Confirm && !path.is_file() {
            continue;
        }
        let waits = Exchange::staged(path);
        let mode = files::mode_of(path)?;
        match archive.program(image, name, || files::make(&waits, mode))? {
            Some((sum, file)) => {
                file.sync_all().with_context(|| format!("cannot write {}", waits.display()))?;
                staged.push(Staged { name, path: path.clone(), sum, when });
            }
            None if when == When::Confirm => {}
            None => {
                bail!("the image has no /usr/local/bin/{name}: the one of the installation package is wanted")
            }
        }
    }
    Ok(staged)
}

async fn fetch_backup(
    node: &Node,
    order: &Order,
    backup: &Backup,
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Result<Vec<Staged>> {
    let keadm = node.program.with_file_name(KEADM);
    let mut staged = Vec::new();
    for (name, path, when) in [
        (EDGECORE, node.program.as_path(), When::Swap),
        (SETTINGS, order.config.as_path(), When::Swap),
        (KEADM, &keadm, When::Confirm),
    ] {
        let Some(file) = backup.files.iter().find(|file| file.name == name) else { continue };
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if files::sum_of_file(&path)?.as_ref() == Some(&file.sha256) {
            continue;
        }
        let waits = Exchange::staged(&path);
        let sum = files::copy(&backup.place(file), &waits, file.mode)?;
        if sum != file.sha256 {
            bail!(
                "{} is damaged: its SHA-256 is not that of the day it was made",
                backup.place(file).display()
            );
        }
        staged.push(Staged { name, path, sum, when });
    }
    if staged.iter().all(|staged| staged.path != node.program) {
        bail!("the backup {} holds the program that runs", backup.folder.display());
    }
    let waits = Exchange::staged(&node.program);
    told("Program", program::fits_machine(&waits), |()| "is for this machine".to_owned(), say)?;
    let version = program::version_of(&waits, EDGECORE, env).await;
    told("VersionSkew", version, |old| format!("{} back to {old}", node.version), say)?;
    Ok(staged)
}

/// Backs up what runs, and leaves the journal where the supervisor begins; or notes why it does not come to that.
fn finish(
    node: &Node,
    order: &Order,
    mut journal: Journal,
    staged: Result<Vec<Staged>>,
    spared: Option<&Path>,
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let now = seconds(env);
    let came = staged.and_then(|staged| {
        journal.note(now, &Ok(format!("{} may follow {}", journal.to_version, journal.from_version)));
        journal.exchanges =
            staged.iter().map(|staged| exchange(staged, Path::new(""))).collect::<Result<_>>()?;
        journal.progress.succeeded();
        node.journals.save(&journal)?;
        let store = &node.settings.database.data_source;
        let backup = copy_all(&node.version, &node.program, &order.config, store, now, spared)?;
        journal.exchanges =
            staged.iter().map(|staged| exchange(staged, &backup.folder)).collect::<Result<_>>()?;
        journal.backup.clone_from(&backup.folder);
        Ok(backup)
    });
    match came {
        Ok(backup) => {
            let said = format!("{} is backed up in {}", backup.version, backup.folder.display());
            say(format!("ok      BackUp: {said}"));
            journal.note(now, &Ok(said));
            journal.progress.succeeded();
            node.journals.save(&journal)
        }
        Err(error) => {
            let why = format!("{error:#}");
            journal.note(now, &Err(why.clone()));
            journal.progress.failed(&why);
            for path in [&node.program, &node.program.with_file_name(KEADM), &order.config] {
                drop(files::remove(&Exchange::staged(path)));
            }
            // The cause is told to whoever waits; a disk that is full keeps nothing.
            drop(node.journals.report(&journal));
            drop(node.journals.save(&journal));
            Err(anyhow!("{why}. Nothing was changed"))
        }
    }
}

fn copy_all(
    version: &Version,
    program: &Path,
    config: &Path,
    store: &Path,
    now: u64,
    spared: Option<&Path>,
) -> Result<Backup> {
    let keadm = program.with_file_name(KEADM);
    let mut of = vec![(EDGECORE, program), (SETTINGS, config)];
    if keadm.is_file() {
        of.push((KEADM, &keadm));
    }
    backup::make(version, &of, store, now, spared).context("BackUp")
}

fn exchange(staged: &Staged, backup: &Path) -> Result<Exchange> {
    let old =
        files::sum_of_file(&staged.path)?.with_context(|| format!("{} is gone", staged.path.display()))?;
    let (path, new, when) = (staged.path.clone(), staged.sum.clone(), staged.when);
    Ok(Exchange { path, old, new, when, backup: backup.join(staged.name) })
}
