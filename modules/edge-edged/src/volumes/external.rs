//! Mounting what lies outside a pod's folder and is no CSI driver's: local disks and NFS. Blocks.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process_group};

use super::claims::{Backing, External};
use super::host;
use super::{Volume, VolumeLocation};
use crate::disk::beneath::Folder;
use crate::disk::{folders, layout};
use crate::error::StepError;

/// 2 KiB of what a program says.
const OUTPUT_MAX: usize = 2 << 10;
/// 2 min for mount(8): so long it tries by itself (`retry` in nfs(5)).
const MOUNT_DEADLINE: Duration = Duration::from_secs(120);
/// 20 ms between looks at a program.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Where the helpers of mount(8) lie.
const HELPERS: [&str; 4] = ["/sbin", "/usr/sbin", "/usr/local/sbin", "/bin"];

/// A volume that is mounted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub(crate) volume: Volume,
    /// It was mounted now, and not found so.
    pub(crate) is_new: bool,
}

/// Mounts a volume of a pod, unless it is. `None`: it is a CSI driver's.
pub(crate) fn set_up(root: &Folder, uid: &str, wanted: &External) -> Result<Option<Mounted>, StepError> {
    let fault = |error: StepError| {
        StepError::Missing(format!("MountVolume.SetUp failed for volume \"{}\" : {error}", wanted.name))
    };
    let read_only = wanted.read_only;
    match &wanted.backing {
        Backing::HostPath(source) => {
            host::check_path(source).map_err(fault)?;
            let at = VolumeLocation::Host(PathBuf::from(&source.path));
            Ok(Some(Mounted { volume: Volume { at, read_only }, is_new: false }))
        }
        Backing::Local { path, mount_options } => {
            let at = layout::volume(uid, "local-volume", &wanted.name);
            local(root, Path::new(path), mount_options, read_only, at).map(Some).map_err(fault)
        }
        Backing::Nfs { server, path, mount_options } => {
            let at = layout::volume(uid, "nfs", &wanted.name);
            nfs(root, server, path, mount_options, read_only, at).map(Some).map_err(fault)
        }
        Backing::Csi(_) => Ok(None),
    }
}

fn local(
    root: &Folder,
    path: &Path,
    options: &[String],
    read_only: bool,
    at: PathBuf,
) -> Result<Mounted, StepError> {
    let config = |text: String| StepError::Missing(text);
    if !path.is_absolute() || path.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(config(format!("invalid path: {} must not contain '..'", path.display())));
    }
    let found = fs::metadata(path)
        .map_err(|error| config(format!("path \"{}\" does not exist: {error}", path.display())))?;
    if found.file_type().is_block_device() {
        return Err(config(format!(
            "{} is a block device: this node mounts local volumes that are directories",
            path.display()
        )));
    }
    if !found.is_dir() {
        return Err(config("only directory and block device are supported".to_owned()));
    }
    let is_new = is_free(root, &at)?;
    if is_new {
        root.bind(path, &at, &bind_options(options, read_only)?)?;
    }
    Ok(Mounted { volume: Volume { at: VolumeLocation::Ours(at), read_only }, is_new })
}

/// The options of a PersistentVolume as the kernel has them for a bind mount.
fn bind_options(options: &[String], read_only: bool) -> Result<Vec<String>, StepError> {
    let known =
        ["ro", "rw", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "bind", "rbind"];
    if let Some(other) = options.iter().find(|option| !known.contains(&option.as_str())) {
        return Err(StepError::Missing(format!("mount option \"{other}\" is not one of a bind mount")));
    }
    let own = options.iter().filter(|option| !matches!(option.as_str(), "bind" | "rbind" | "rw"));
    Ok(own.cloned().chain(read_only.then(|| "ro".to_owned())).collect())
}

fn nfs(
    root: &Folder,
    server: &str,
    path: &str,
    options: &[String],
    read_only: bool,
    at: PathBuf,
) -> Result<Mounted, StepError> {
    let source = nfs_source(server, path)?;
    let is_new = is_free(root, &at)?;
    if is_new {
        let options = read_only.then(|| "ro".to_owned()).into_iter().chain(options.iter().cloned());
        let options: Vec<String> = options.collect();
        mount_by_program("nfs", &source, &root.shown().join(&at), &options)?;
    }
    Ok(Mounted { volume: Volume { at: VolumeLocation::Ours(at), read_only }, is_new })
}

/// Whether nothing is mounted at a volume's place, which is made then. What is mounted is not asked: it may be a server that does not
/// answer.
fn is_free(root: &Folder, at: &Path) -> Result<bool, StepError> {
    if let Some(parent) = at.parent() {
        folders::lead_to(root, parent)?;
    }
    if root.is_mount(at)? {
        return Ok(false);
    }
    folders::lead_to(root, at).map(|_| true)
}

/// The pod beside `uid` that has a local volume mounted, if there is one: what the files belong to is that one's. Answers where.
pub(crate) fn others_mount(root: &Folder, uid: &str, at: &Path) -> Result<Option<PathBuf>, StepError> {
    let (own, pods) = (layout::pod(uid), Path::new(layout::PODS));
    let is_others = |other: &PathBuf| {
        other.starts_with(pods) && !other.starts_with(&own) && layout::kind(other) == layout::kind(at)
    };
    Ok(root.shown_elsewhere(at)?.into_iter().find(is_others))
}

/// `server:path`, an IPv6 address in brackets.
fn nfs_source(server: &str, path: &str) -> Result<String, StepError> {
    let wrong = || StepError::Config(format!("`{server}:{path}` is no NFS export"));
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%[]".contains(&byte);
    // A name that begins like an option would be one.
    if server.is_empty() || server.starts_with('-') || !server.bytes().all(is_name) || !path.starts_with('/')
    {
        return Err(wrong());
    }
    if path.contains(['\0', '\n']) {
        return Err(wrong());
    }
    let is_v6 = server.parse::<std::net::Ipv6Addr>().is_ok();
    Ok(if is_v6 { format!("[{server}]:{path}") } else { format!("{server}:{path}") })
}

/// Asks mount(8), which finds the helper of the file system; said by name where there is none. No shell sees any of it.
fn mount_by_program(kind: &str, source: &str, at: &Path, options: &[String]) -> Result<(), StepError> {
    let helper = format!("mount.{kind}");
    if !HELPERS.iter().any(|folder| Path::new(folder).join(&helper).exists()) {
        return Err(StepError::Missing(format!(
            "mount failed: you might need a /sbin/{helper} helper program, which this node does not have (package nfs-common or nfs-utils)"
        )));
    }
    let mut arguments = vec!["-t".to_owned(), kind.to_owned()];
    if !options.is_empty() {
        arguments.extend(["-o".to_owned(), options.join(",")]);
    }
    arguments.extend([source.to_owned(), at.display().to_string()]);
    let (status, said) = run("mount", &arguments, MOUNT_DEADLINE)?;
    if status == "exit status 0" {
        return Ok(());
    }
    Err(StepError::Missing(format!(
        "mount failed: {status}\nMounting command: mount\nMounting arguments: {}\nOutput: {said}",
        arguments.join(" ")
    )))
}

/// Runs a program to its end, or to the deadline, when it and what it has begun are killed. Answers how it ended, in Go's words, and
/// what it said. One that the kernel cannot end, since a server does not answer it, is left to itself.
fn run(program: &str, arguments: &[String], deadline: Duration) -> Result<(String, String), StepError> {
    let fault = |error: std::io::Error| StepError::file("run", Path::new(program), &error);
    let mut command = Command::new(program);
    // A group of its own, in which its helpers are, too.
    command.args(arguments).stdin(Stdio::null()).process_group(0);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(fault)?;
    let (mut waited, mut status) = (Duration::ZERO, None);
    while waited < deadline {
        status = child.try_wait().map_err(fault)?;
        if status.is_some() {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
        waited += LOOK_EVERY;
    }
    let ended = match status {
        Some(status) => {
            status.code().map_or_else(|| "signal".to_owned(), |code| format!("exit status {code}"))
        }
        None => {
            let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            // It may have ended this moment.
            let _ = group.map(|group| kill_process_group(group, Signal::KILL));
            std::thread::sleep(LOOK_EVERY);
            let _ = child.try_wait();
            format!("no end within {} s", deadline.as_secs())
        }
    };
    let said = [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
    let said: Vec<u8> = said.into_iter().flatten().flat_map(|pipe| at_hand(&pipe)).take(OUTPUT_MAX).collect();
    Ok((ended, String::from_utf8_lossy(&said).trim().to_owned()))
}

/// What is in a pipe: whoever still holds its other end is not waited for.
fn at_hand(pipe: &OwnedFd) -> Vec<u8> {
    let mut bytes = vec![0; OUTPUT_MAX];
    let flags = rustix::fs::fcntl_getfl(pipe).map(|flags| flags | OFlags::NONBLOCK);
    let read = flags.and_then(|flags| rustix::fs::fcntl_setfl(pipe, flags));
    let count = read.and_then(|()| rustix::io::read(pipe, &mut bytes)).unwrap_or(0);
    bytes.truncate(count);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(backing: Backing) -> External {
        External { volume: "v".into(), name: "pv".into(), read_only: true, backing }
    }

    #[test]
    fn an_export_is_named_as_mount_wants_it_and_no_option_is_smuggled_in() {
        assert_eq!(nfs_source("nas.local", "/data"), Ok("nas.local:/data".to_owned()));
        assert_eq!(nfs_source("fd00::1", "/data"), Ok("[fd00::1]:/data".to_owned()));
        for (server, path) in
            [("-osuid", "/x"), ("", "/x"), ("a b", "/x"), ("nas", "x"), ("nas;reboot", "/x")]
        {
            assert!(nfs_source(server, path).is_err(), "{server}:{path}");
        }
        let options = ["nosuid".to_owned(), "rbind".to_owned()];
        assert_eq!(bind_options(&options, true), Ok(vec!["nosuid".to_owned(), "ro".to_owned()]));
        assert!(bind_options(&["size=1".to_owned()], false).is_err());
    }

    #[test]
    fn a_local_disk_is_mounted_in_the_pods_folder_once_and_only_a_folder() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(disk.path().join("there"), "x").unwrap();
        let root = Folder::root(dir.path()).unwrap();
        let of = |path: &Path| {
            let path = path.display().to_string();
            set_up(&root, "u", &wanted(Backing::Local { path, mount_options: Vec::new() }))
        };
        let file = of(&disk.path().join("there")).unwrap_err().to_string();
        let words =
            "MountVolume.SetUp failed for volume \"pv\" : only directory and block device are supported";
        assert_eq!(file, words);
        assert!(of(&disk.path().join("none")).unwrap_err().to_string().contains("does not exist"));
        let at = layout::volume("u", "local-volume", "pv");
        let first = match of(disk.path()) {
            // Only root can mount.
            Err(error) if error.to_string().contains("not permitted") => return,
            other => other.unwrap().unwrap(),
        };
        assert!(
            first.is_new && first.volume == Volume { at: VolumeLocation::Ours(at.clone()), read_only: true }
        );
        let shown = dir.path().join(&at);
        assert_eq!(fs::read_to_string(shown.join("there")).unwrap(), "x");
        assert!(fs::write(shown.join("more"), "x").is_err(), "it is read-only");
        assert!(!of(disk.path()).unwrap().unwrap().is_new);
        root.detach_below(&layout::pod("u")).unwrap();
        assert!(disk.path().join("there").exists() && !shown.join("there").exists());
    }

    #[test]
    fn a_program_that_does_not_end_is_ended_with_what_it_began_and_its_words_are_bounded() {
        let script = |text: &str| ["-c".to_owned(), text.to_owned()];
        let limit = Duration::from_secs(30);
        assert_eq!(
            run("sh", &script("echo a; echo b >&2"), limit),
            Ok(("exit status 0".to_owned(), "a\nb".to_owned()))
        );
        let (status, said) = run("sh", &script("yes | head -c 9000; exit 32"), limit).unwrap();
        assert_eq!((status.as_str(), said.len() <= OUTPUT_MAX), ("exit status 32", true));
        // Its child holds the pipe, and is not waited for.
        let begun = std::time::Instant::now();
        let (status, said) =
            run("sh", &script("echo tries; sleep 600 & wait"), Duration::from_secs(1)).unwrap();
        assert_eq!((status.as_str(), said.as_str()), ("no end within 1 s", "tries"));
        assert!(begun.elapsed() < Duration::from_secs(300));
        assert!(run("/nowhere/mount", &[], limit).is_err());
    }

    #[test]
    fn a_local_disk_that_another_pod_has_is_known() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = Folder::root(dir.path()).unwrap();
        let path = disk.path().display().to_string();
        let of = |uid: &str| {
            set_up(&root, uid, &wanted(Backing::Local { path: path.clone(), mount_options: Vec::new() }))
        };
        let at = |uid: &str| layout::volume(uid, "local-volume", "pv");
        if of("u1").is_err() {
            // Only root can mount.
            return;
        }
        assert_eq!(others_mount(&root, "u1", &at("u1")), Ok(None));
        of("u2").unwrap();
        assert_eq!(others_mount(&root, "u2", &at("u2")), Ok(Some(at("u1"))));
        for uid in ["u1", "u2"] {
            root.detach_below(&layout::pod(uid)).unwrap();
        }
        assert_eq!(others_mount(&root, "u2", &at("u2")), Ok(None));
    }

    #[test]
    fn nfs_without_its_helper_is_refused_by_name() {
        if HELPERS.iter().any(|folder| Path::new(folder).join("mount.nfs").exists()) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let root = Folder::root(dir.path()).unwrap();
        let nfs = Backing::Nfs { server: "nas".into(), path: "/x".into(), mount_options: Vec::new() };
        let error = set_up(&root, "u", &wanted(nfs)).unwrap_err().to_string();
        assert!(error.contains("/sbin/mount.nfs helper program"), "{error}");
    }
}
