//! Unix sockets in folders that others write to: mappers and MQTT clients mount the folder, most of them as root.
//!
//! # Owns
//! Nothing.
//! # Accepts
//! A folder, a name in it, a group, and what is to become of what has the name already ([`Existing`]).
//! # Tells
//! Nobody.
//! # Keeps across a restart
//! Nothing; a socket's file stays unless its [`OwnFile`] is dropped.
//! # Never
//! Follows a link that stands in the folder, gives mode or group to another file than its own socket, or listens before
//! both are right.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod folder;

pub use folder::{BindError, Bound, Existing, Folder, OwnFile};

use std::io;
use std::path::Path;

/// Binds the socket `path` in a folder that is there, and listens on it, as [`Folder::bind`] does. Blocks.
///
/// # Errors
/// As [`Folder::bind`]'s, in the system's words: what is no socket and has the name is [`io::ErrorKind::AlreadyExists`].
pub fn bind(path: &Path, group: Option<u32>, existing: Existing) -> io::Result<Bound> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidFilename)?;
    let folder = Folder::open(path.parent().unwrap_or(Path::new("")))?;
    folder.bind(name, group, existing).map_err(|error| match error {
        BindError::NotASocket => io::Error::new(io::ErrorKind::AlreadyExists, BindError::NotASocket),
        BindError::System(error) => error,
    })
}

/// The same, for its owner alone and in the place of a dead one alone; a folder that is not there is made. Blocks.
///
/// # Errors
/// As [`bind`]'s.
pub fn bind_own(path: &Path) -> io::Result<Bound> {
    if let Some(folder) = path.parent() {
        Folder::make(folder, None)?;
    }
    bind(path, None, Existing::ReplaceDead)
}

/// The number of a group, by its name or as it stands; `None` for an empty text. Blocks while the system's database of
/// groups is read.
///
/// # Errors
/// When there is no such group, or the database cannot be read.
pub fn group_id(group: &str) -> io::Result<Option<u32>> {
    if group.is_empty() {
        return Ok(None);
    }
    if let Ok(number) = group.parse() {
        return Ok(Some(number));
    }
    match nix::unistd::Group::from_name(group) {
        Ok(Some(found)) => Ok(Some(found.gid.as_raw())),
        Ok(None) => {
            Err(io::Error::new(io::ErrorKind::NotFound, format!("this machine has no group `{group}`")))
        }
        Err(error) => Err(error.into()),
    }
}

/// The number of this process's own group.
pub fn own_group() -> u32 {
    rustix::process::getegid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    #[test]
    fn a_group_is_known_by_name_and_by_number() {
        assert_eq!(group_id("").unwrap(), None);
        assert_eq!(group_id("1234").unwrap(), Some(1234));
        assert_eq!(group_id("root").unwrap(), Some(0));
        assert_eq!(group_id("no such group, surely").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_living_socket_stays_and_a_dead_one_is_replaced() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("mqtt.sock");
        let group = std::fs::metadata(place.path()).unwrap().gid();
        let folder = Folder::open(place.path()).unwrap();
        let bind = |group| folder.bind("mqtt.sock", group, Existing::ReplaceDead);
        let first = bind(Some(group)).unwrap();
        let found = std::fs::symlink_metadata(&path).unwrap();
        assert_eq!((found.mode() & 0o7777, found.gid()), (0o660, group));
        assert!(
            matches!(bind(None), Err(BindError::System(error)) if error.kind() == io::ErrorKind::AddrInUse)
        );
        let Bound { listener, file: own, .. } = first;
        drop(listener);
        let Bound { listener: _listener, file: second, .. } = bind(None).unwrap();
        own.remove();
        assert!(path.exists(), "the first one's end does not take the second one's socket");
        second.remove();
        assert!(!path.exists());
    }

    #[test]
    fn nothing_but_a_socket_is_replaced_and_no_link_is_followed() {
        let place = tempfile::tempdir().unwrap();
        let precious = place.path().join("precious");
        std::fs::write(&precious, "x").unwrap();
        std::fs::set_permissions(&precious, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&precious, place.path().join("link.sock")).unwrap();
        let folder = Folder::open(place.path()).unwrap();
        for existing in [Existing::ReplaceDead, Existing::ReplaceSocket] {
            for name in ["link.sock", "precious"] {
                assert!(matches!(folder.bind(name, None, existing), Err(BindError::NotASocket)), "{name}");
            }
        }
        assert_eq!(std::fs::metadata(&precious).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read(&precious).unwrap(), b"x");
    }
}
