//! Where a new program comes from: a file, an image's archive or a backup. It is looked at before it is run, and waits beside the old one.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use beehive::Env;

use crate::backup::{self, Backup};
use crate::checks::{self, told};
use crate::exchange::{Exchange, When};
use crate::files;
use crate::image::{ARCHIVE_MAX, Image, ImageArchive, PROGRAM_MAX};
use crate::journal::Journal;
use crate::node::Node;
use crate::order::{EDGECORE, KEADM, Order, SETTINGS};
use crate::program::Program;
use crate::signature::PublicKey;
use crate::version::Version;
use crate::working::{HandedIn, WorkingCopy};

/// Where the new program comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The program itself.
    Program(PathBuf),
    /// An archive of the installation package's image.
    Image(PathBuf),
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

/// A new file that waits for its name.
pub(crate) struct Staged {
    /// What it is called in a backup.
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) sum: String,
    pub(crate) when: When,
}

/// What has come of what was handed in.
pub(crate) enum Fetched {
    /// It waits.
    Staged(Vec<Staged>),
    /// It is what is there.
    Already,
}

/// Copies what was handed in, looks at it, and stages what is new in it.
///
/// # Errors
/// With the name of the check that failed, and its cure.
pub(crate) async fn fetch(
    node: &Node,
    source: &Source,
    trust: &Trust,
    journal: &mut Journal,
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Result<Fetched> {
    let (path, most) = match source {
        Source::Program(path) => (path, PROGRAM_MAX),
        Source::Image(path) => (path, ARCHIVE_MAX),
    };
    let handed_in = HandedIn::open(path, most)?;
    let wanted = backup::room_for(&[&node.program, &node.program.with_file_name(KEADM)], node.store());
    let folder = files::folder_of(&node.program);
    let room = checks::room(
        (folder, handed_in.length),
        (files::folder_of(node.store()), wanted.saturating_add(handed_in.length)),
    );
    told("Room", room, String::clone, say)?;
    let copy = handed_in.copy_into(&node.journals.incoming())?;
    told("Checksum", checksum(trust, &copy.sum), String::clone, say)?;
    let image = match source {
        Source::Program(_) => None,
        Source::Image(path) => {
            let opened = copy.file().and_then(|file| Ok(file.try_clone()?));
            let opened = opened.and_then(|file| ImageArchive::of(file, path));
            let opened = opened.and_then(|archive| Ok((archive.image()?, archive)));
            Some(told("Image", opened, |found: &(Image, ImageArchive)| found.0.digest.clone(), say)?)
        }
    };
    let digest = image.as_ref().map(|(image, _)| image.digest.as_str());
    told("Trust", trusted(trust, &copy, digest), |said| (*said).to_owned(), say)?;
    let staged = match &image {
        None => vec![stage_file(&copy, &node.program)?],
        Some((image, archive)) => stage_image(node, image, archive)?,
    };
    let first = staged.first().context("nothing is staged")?;
    if files::sum_of_file(&node.program)?.as_ref() == Some(&first.sum) {
        return Ok(Fetched::Already);
    }
    for staged in &staged {
        let called = match source {
            Source::Program(path) => path.display().to_string(),
            Source::Image(path) => format!("{} of {}", staged.name, path.display()),
        };
        let version = version_of(staged, &called, env).await;
        let says = |_: &Version| format!("{called} is for this machine, and says its version");
        let version = told("Program", version, says, say)?;
        let version = match staged.name {
            EDGECORE => new_version(node, version, trust),
            name => of_the_same_release(version, name, &journal.to_version),
        };
        let version = told("VersionSkew", version, |new| format!("{} to {new}", node.version), say)?;
        if staged.name == EDGECORE {
            journal.to_version = version.to_string();
        }
    }
    Ok(Fetched::Staged(staged))
}

/// Which version a staged program is of that this machine can start. It is looked at by one open: what has its name is what was
/// written there, and is what is run. Errors are about what the person knows, by what that is called.
async fn version_of(staged: &Staged, called: &str, env: &Env) -> Result<Version> {
    let waits = Exchange::staged(&staged.path);
    let program = Program::open(&waits)?.called(called.to_owned());
    let sum = program.sum()?;
    if sum != staged.sum {
        bail!("{} was changed: its SHA-256 is {sum}, and was {}", waits.display(), staged.sum);
    }
    program.fits_machine()?;
    program.version(staged.name, env).await
}

/// keadm goes with its edgecore: another one's would not know what to do with it.
fn of_the_same_release(version: Version, name: &str, wanted: &str) -> Result<Version> {
    if version.as_str() != wanted {
        bail!("{name} is {version}, and edgecore beside it {wanted}: take the image of one release");
    }
    Ok(version)
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
fn trusted(trust: &Trust, copy: &WorkingCopy, digest: Option<&str>) -> Result<&'static str> {
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
        None => key.check_bytes(&copy.bytes()?, &copy.handed_in, signature)?,
    }
    Ok("the signature is of that key")
}

fn new_version(node: &Node, version: Version, trust: &Trust) -> Result<Version> {
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

fn stage_file(copy: &WorkingCopy, path: &Path) -> Result<Staged> {
    let sum =
        files::copy_opened(copy.file()?, &copy.handed_in, &Exchange::staged(path), files::mode_of(path)?)?;
    if sum != copy.sum {
        bail!("the disk does not give back of {} what it was given", copy.handed_in.display());
    }
    Ok(Staged { name: EDGECORE, path: path.to_owned(), sum, when: When::Swap })
}

/// edgecore, and keadm where both the image and the machine have one beside it.
fn stage_image(node: &Node, image: &Image, archive: &ImageArchive) -> Result<Vec<Staged>> {
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

/// Stages what of a backup is another one than what is there.
///
/// # Errors
/// When it is damaged, or holds what runs.
pub(crate) async fn fetch_backup(
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
        let Some(file) = backup.file(name) else { continue };
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
    let first = staged.first().context("nothing is staged")?;
    let called = format!("{} of the backup {}", first.name, backup.folder.display());
    let version = version_of(first, &called, env).await;
    let says = |_: &Version| format!("{called} is for this machine, and says its version");
    let version = told("Program", version, says, say)?;
    say(format!("ok      VersionSkew: {} back to {version}", node.version));
    Ok(staged)
}
