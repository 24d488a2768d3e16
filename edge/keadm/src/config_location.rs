//! Where `edgecore.yaml` lies, and the link that is left where KubeEdge's users look for it.
//!
//! The link lies in the folder that mappers mount, most of them as root and writable. So nothing is written, made or
//! removed there through a link, and nothing that was there is replaced.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::builder::{PathBufValueParser, TypedValueParser};
use config::edge::{DEFAULT_PATH, EdgeCore, KUBEEDGE_PATH};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fchmod, mkdirat, openat, readlinkat, symlinkat, unlinkat};
use rustix::io::Errno;

/// Reads `--config` of what goes by a node's settings: KubeEdge's place means the file in the safe one, whatever lies there by now.
pub(crate) fn parser() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(|config| ConfigLocation::of(&config).file)
}

/// The place of `edgecore.yaml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigLocation {
    /// The file itself.
    pub file: PathBuf,
    /// The absolute path of a link to it; none: without one.
    pub link: Option<PathBuf>,
}

impl From<PathBuf> for ConfigLocation {
    /// A file without a link.
    fn from(file: PathBuf) -> Self {
        ConfigLocation { file, link: None }
    }
}

impl ConfigLocation {
    /// What `--config` means: who asks for KubeEdge's place gets the file in the place that is safe, and the link.
    pub fn of(config: &Path) -> Self {
        if config == Path::new(DEFAULT_PATH) || config == Path::new(KUBEEDGE_PATH) {
            ConfigLocation { file: PathBuf::from(DEFAULT_PATH), link: Some(PathBuf::from(KUBEEDGE_PATH)) }
        } else {
            ConfigLocation::from(config.to_path_buf())
        }
    }

    /// Refuses a file that mappers could have put there.
    pub(crate) fn check(&self, settings: &EdgeCore) -> Result<()> {
        match settings.reached(&self.file) {
            Some(defect) => bail!("`{}` {}", defect.key, defect.what),
            None => Ok(()),
        }
    }

    /// Makes the link, and says what became of it, a line. The file is good without it, so nothing fails by it.
    pub(crate) fn leave_link(&self, settings: &EdgeCore) -> Option<String> {
        let link = self.link.as_ref()?;
        let twin = &settings.modules.device_twin;
        let (shown, file) = (link.display(), self.file.display());
        let by_hand = format!("`ln -s {file} {shown}`");
        if !twin.dmi_sock_group.is_empty()
            && link.starts_with(&twin.dmi_sock_path)
            && !twin.dmi_sock_path.exists()
        {
            return Some(format!(
                "no link at {shown}: edgecore makes the folder for the group {} first; then {by_hand}",
                twin.dmi_sock_group
            ));
        }
        Some(match self.make_link(link) {
            Ok(true) => format!("{shown} is a link to {file}"),
            Ok(false) => format!(
                "{shown} is there already and stays as it is; edgecore starts from {file}, and what the other says has no \
                 effect. Carry its values over with --set or an editor; then move it away, and {by_hand}"
            ),
            Err(error) => format!("no link at {shown} ({error:#}); once that is mended: {by_hand}"),
        })
    }

    /// Whether the link is there now. Something else of its name stays.
    fn make_link(&self, link: &Path) -> Result<bool> {
        let (folder, name) = enter(link, true)?;
        match symlinkat(&self.file, &folder, name) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(self.is_link(&folder, name)),
            Err(error) => Err(error).context("the link"),
        }
    }

    /// Removes the link if it is the one to this file; answers what it was.
    pub(crate) fn remove_link(&self) -> Result<Option<&Path>> {
        let Some(link) = self.link.as_deref() else { return Ok(None) };
        // No such folder, or one that is a link by now: there is no link of ours.
        let Ok((folder, name)) = enter(link, false) else { return Ok(None) };
        if !self.is_link(&folder, name) {
            return Ok(None);
        }
        unlinkat(&folder, name, AtFlags::empty())
            .with_context(|| format!("cannot remove {}", link.display()))?;
        Ok(Some(link))
    }

    fn is_link(&self, folder: &OwnedFd, name: &OsStr) -> bool {
        readlinkat(folder, name, Vec::new()).is_ok_and(|to| to.as_bytes() == self.file.as_os_str().as_bytes())
    }
}

/// The folder of an absolute path, entered part by part and never through a link, and the path's last part. With `make`
/// the parts that are missing are made, open for reading to all: mappers may run as anybody.
fn enter(path: &Path, make: bool) -> Result<(OwnedFd, &OsStr)> {
    let (Some(folder), Some(name), true) = (path.parent(), path.file_name(), path.is_absolute()) else {
        bail!("{} is not the absolute path of a file", path.display());
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here = openat(CWD, "/", flags, Mode::empty()).context("/")?;
    let mut walked = PathBuf::from("/");
    for part in folder.components() {
        let part = match part {
            Component::RootDir | Component::CurDir => continue,
            Component::Normal(part) => part,
            Component::ParentDir | Component::Prefix(_) => bail!("{} has `..` in it", path.display()),
        };
        walked.push(part);
        let at = || format!("{} is not a folder that can be entered", walked.display());
        here = match openat(&here, part, flags, Mode::empty()) {
            Err(Errno::NOENT) if make => {
                mkdirat(&here, part, Mode::from_raw_mode(0o755)).with_context(at)?;
                let made = openat(&here, part, flags, Mode::empty()).with_context(at)?;
                // Whatever the umask.
                fchmod(&made, Mode::from_raw_mode(0o755)).with_context(at)?;
                made
            }
            entered => entered.with_context(at)?,
        };
    }
    Ok((here, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    struct Fixture {
        _root: tempfile::TempDir,
        shared: PathBuf,
        config_location: ConfigLocation,
        settings: EdgeCore,
    }

    fn machine() -> Fixture {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().canonicalize().unwrap();
        let shared = path.join("kubeedge");
        let config_location = ConfigLocation {
            file: path.join("own/edgecore.yaml"),
            link: Some(shared.join("config/edgecore.yaml")),
        };
        fs::create_dir(path.join("own")).unwrap();
        fs::write(&config_location.file, "kind: EdgeCore").unwrap();
        let mut settings = EdgeCore::default();
        settings.modules.device_twin.dmi_sock_path = shared.clone();
        Fixture { _root: root, shared, config_location, settings }
    }

    #[test]
    fn kubeedges_place_means_the_safe_one_and_a_link() {
        for config in [DEFAULT_PATH, KUBEEDGE_PATH, "/etc/kubeedge//config/./edgecore.yaml"] {
            let config_location = ConfigLocation::of(Path::new(config));
            assert_eq!(config_location.file, Path::new(DEFAULT_PATH));
            assert_eq!(config_location.link.as_deref(), Some(Path::new(KUBEEDGE_PATH)));
            config_location.check(&EdgeCore::default()).unwrap();
        }
        let other = ConfigLocation::of(Path::new("/etc/kubeedge/other.yaml"));
        assert_eq!(other.link, None);
        assert!(other.check(&EdgeCore::default()).unwrap_err().to_string().contains("this very file"));
    }

    #[test]
    fn the_link_leads_to_the_file_and_goes_with_it() {
        let Fixture { config_location, settings, shared, _root } = machine();
        assert_eq!(config_location.remove_link().unwrap(), None);
        assert!(!shared.exists(), "looking for a link makes nothing");
        for _ in 0..2 {
            let said = config_location.leave_link(&settings).unwrap();
            assert!(said.contains("is a link to"), "{said}");
        }
        let link = config_location.link.clone().unwrap();
        assert_eq!(fs::read_to_string(&link).unwrap(), "kind: EdgeCore");
        assert_eq!(config_location.remove_link().unwrap(), Some(link.as_path()));
        assert!(link.symlink_metadata().is_err() && config_location.file.exists());
    }

    #[test]
    fn a_file_of_kubeedge_stays_and_the_cure_is_said() {
        let Fixture { config_location, settings, shared, _root } = machine();
        fs::create_dir_all(shared.join("config")).unwrap();
        let link = config_location.link.clone().unwrap();
        fs::write(&link, "KubeEdge's").unwrap();
        let said = config_location.leave_link(&settings).unwrap();
        assert!(said.contains("stays as it is") && said.contains("ln -s"), "{said}");
        assert_eq!(config_location.remove_link().unwrap(), None);
        assert_eq!(fs::read_to_string(&link).unwrap(), "KubeEdge's");
    }

    #[test]
    fn a_link_that_a_mapper_planted_is_neither_followed_nor_replaced() {
        let Fixture { config_location, settings, shared, _root } = machine();
        let victim = tempfile::tempdir().unwrap();
        let link = config_location.link.clone().unwrap();
        // Instead of the folder.
        fs::create_dir(&shared).unwrap();
        symlink(victim.path(), shared.join("config")).unwrap();
        let said = config_location.leave_link(&settings).unwrap();
        assert!(said.starts_with("no link at"), "{said}");
        symlink(&config_location.file, victim.path().join("edgecore.yaml")).unwrap();
        assert_eq!(config_location.remove_link().unwrap(), None);
        assert_eq!(fs::read_dir(victim.path()).unwrap().count(), 1);
        // Instead of the link.
        fs::remove_file(shared.join("config")).unwrap();
        fs::create_dir(shared.join("config")).unwrap();
        symlink("/etc/passwd", &link).unwrap();
        assert!(config_location.leave_link(&settings).unwrap().contains("stays as it is"));
        assert_eq!(config_location.remove_link().unwrap(), None);
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("/etc/passwd"));
    }

    #[test]
    fn the_folder_of_a_group_is_left_to_edgecore() {
        let Fixture { config_location, mut settings, shared, _root } = machine();
        settings.modules.device_twin.dmi_sock_group = "mappers".to_owned();
        let said = config_location.leave_link(&settings).unwrap();
        assert!(said.contains("ln -s") && !shared.exists(), "{said}");
        fs::create_dir(&shared).unwrap();
        assert!(config_location.leave_link(&settings).unwrap().contains("is a link to"));
    }
}
