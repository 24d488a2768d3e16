//! The node's key: a file beside the database, and what is sealed under it.
//!
//! The seal keeps a stolen database, a copy of it or a broken file that was set aside from telling secrets. It does not
//! keep anything from who may read both files.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};

use crate::StoreError;
use crate::files::{beside, sync_folder};

/// First word of the key file, with the version of its layout.
const MARK: &str = "kubehive-node-key-1";
/// First byte of a sealed value, so that another cipher can follow.
const AES_GCM: u8 = 1;
const KEY_BYTES: usize = 32;

/// What was found where the key is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyFile {
    /// The key.
    Kept,
    /// No file.
    Missing,
    /// A file that holds no key.
    Unreadable,
}

/// The node's key: seals and opens values.
pub(crate) struct NodeKey {
    path: PathBuf,
    key: OnceLock<Key>,
}

struct Key {
    aead: RandomizedNonceKey,
    /// As in its file, which may be lost under a running edgecore.
    bytes: [u8; KEY_BYTES],
    /// Stands behind the key in its file, so that a changed byte shows.
    id: [u8; 8],
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeKey").field("path", &self.path).finish_non_exhaustive()
    }
}

impl NodeKey {
    /// The key of the database at `database`, not loaded yet.
    pub(crate) fn new(database: &Path) -> Self {
        NodeKey { path: beside(database, ".key"), key: OnceLock::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.key.get().is_some()
    }

    /// Takes the key from its file.
    pub(crate) fn load(&self) -> Result<KeyFile, StoreError> {
        if self.is_loaded() {
            return Ok(KeyFile::Kept);
        }
        let mut bytes = Vec::new();
        match File::open(&self.path) {
            Ok(file) => file.take(1024).read_to_end(&mut bytes),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(KeyFile::Missing),
            Err(e) => Err(e),
        }
        .map_err(|e| StoreError::file("read", &self.path, e))?;
        let Some(key) = parse(&bytes).and_then(|bytes| Key::new(&bytes)) else {
            return Ok(KeyFile::Unreadable);
        };
        let _ = self.key.set(key);
        Ok(KeyFile::Kept)
    }

    /// Takes the key from its file, or makes a new one. A file that holds no key is kept beside the new one, because it
    /// may be all that is left of the old one.
    pub(crate) fn load_or_make(&self) -> Result<KeyFile, StoreError> {
        let found = self.load()?;
        match found {
            KeyFile::Kept => {
                self.make_private();
                return Ok(found);
            }
            KeyFile::Missing => {}
            KeyFile::Unreadable => {
                let aside = beside(&self.path, ".broken");
                fs::rename(&self.path, &aside).map_err(|e| StoreError::file("rename", &self.path, e))?;
                tracing::error!(path = %aside.display(), "node key cannot be read and is set aside");
            }
        }
        self.make()?;
        tracing::info!(path = %self.path.display(), "node key made");
        Ok(found)
    }

    fn make(&self) -> Result<(), StoreError> {
        let mut bytes = [0; KEY_BYTES];
        let no_random = || StoreError::file("make", &self.path, std::io::Error::other("no random bytes"));
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| no_random())?;
        let key = Key::new(&bytes).ok_or_else(no_random)?;
        self.write(&key)?;
        let _ = self.key.set(key);
        Ok(())
    }

    /// Writes the key that is loaded where it is not in its file any more. Another one there is kept beside it.
    pub(crate) fn put_back(&self) -> Result<(), StoreError> {
        let Some(key) = self.key.get() else { return Ok(()) };
        match fs::read(&self.path) {
            Ok(bytes) if parse(&bytes) == Some(key.bytes) => return Ok(()),
            Ok(_) => {
                let aside = beside(&self.path, ".broken");
                fs::rename(&self.path, &aside).map_err(|e| StoreError::file("rename", &self.path, e))?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::file("read", &self.path, error)),
        }
        tracing::error!(path = %self.path.display(), "node key was removed or replaced while edgecore runs, and is put back");
        self.write(key)
    }

    fn write(&self, key: &Key) -> Result<(), StoreError> {
        let text = format!("{MARK} {} {}\n", hex::encode(key.bytes), hex::encode(key.id));
        // Under another name until it is on disk: half a key would lose what the whole one sealed.
        let fresh = beside(&self.path, ".new");
        let write = || -> std::io::Result<()> {
            match fs::remove_file(&fresh) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                Ok(()) | Err(_) => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&fresh, &self.path)
        };
        write().map_err(|e| StoreError::file("make", &self.path, e))?;
        sync_folder(&self.path)
    }

    /// A key that others may read is a mistake of whoever copied it.
    fn make_private(&self) {
        let Ok(meta) = fs::metadata(&self.path) else { return };
        if meta.permissions().mode() & 0o077 == 0 {
            return;
        }
        let done = fs::set_permissions(&self.path, fs::Permissions::from_mode(0o600)).is_ok();
        tracing::warn!(path = %self.path.display(), done, "node key was readable by others and is closed to them");
    }

    /// The sealed value: a byte for the cipher, the nonce, the text, the tag. `None` without a key.
    pub(crate) fn seal(&self, bound_to: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        let key = self.key.get()?;
        let mut text = value.to_vec();
        let nonce = key.aead.seal_in_place_append_tag(Aad::from(bound_to), &mut text).ok()?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + text.len());
        sealed.push(AES_GCM);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&text);
        Some(sealed)
    }

    /// The value, if this key sealed it for this row.
    pub(crate) fn open(&self, bound_to: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let key = self.key.get()?;
        let (nonce, text) = sealed.strip_prefix(&[AES_GCM])?.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let length = key.aead.open_in_place(nonce, Aad::from(bound_to), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }
}

impl Key {
    fn new(bytes: &[u8; KEY_BYTES]) -> Option<Self> {
        let mut id = [0; 8];
        id.copy_from_slice(&digest(&SHA256, &[MARK.as_bytes(), bytes].concat()).as_ref()[..8]);
        Some(Key { aead: RandomizedNonceKey::new(&AES_256_GCM, bytes).ok()?, bytes: *bytes, id })
    }
}

/// The key in a file of [`NodeKey::make`]; `None` if a byte of it changed.
fn parse(file: &[u8]) -> Option<[u8; KEY_BYTES]> {
    let text = std::str::from_utf8(file).ok()?;
    let (mark, rest) = text.strip_suffix('\n')?.split_once(' ')?;
    let (key, id) = rest.split_once(' ')?;
    let bytes: [u8; KEY_BYTES] = hex::decode(key).ok()?.try_into().ok()?;
    let sound = mark == MARK && hex::encode(Key::new(&bytes)?.id) == id;
    sound.then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node_key(dir: &tempfile::TempDir) -> NodeKey {
        NodeKey::new(&dir.path().join("db"))
    }

    #[test]
    fn a_key_is_made_once_and_opens_only_what_it_sealed_for_that_row() {
        let dir = tempfile::tempdir().unwrap();
        let first = node_key(&dir);
        assert_eq!(first.load_or_make().unwrap(), KeyFile::Missing);
        let sealed = first.seal(b"row", b"value").unwrap();
        assert!(!sealed.windows(5).any(|w| w == b"value"));
        assert_ne!(sealed, first.seal(b"row", b"value").unwrap(), "a nonce is used once");
        let again = node_key(&dir);
        assert_eq!(again.load_or_make().unwrap(), KeyFile::Kept);
        assert_eq!(again.open(b"row", &sealed), Some(b"value".to_vec()));
        assert_eq!(again.open(b"other", &sealed), None);
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert_eq!(again.open(b"row", &bad), None, "{at}");
            assert_eq!(again.open(b"row", &sealed[..at]), None, "{at}");
        }
        assert_eq!(fs::metadata(first.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(
            !format!("{again:?}").contains(&hex::encode(parse(&fs::read(again.path()).unwrap()).unwrap()))
        );
    }

    #[test]
    fn a_changed_key_file_is_set_aside_and_an_open_one_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        node_key(&dir).load_or_make().unwrap();
        let path = dir.path().join("db.key");
        let text = fs::read(&path).unwrap();
        for at in 0..text.len() {
            let mut bad = text.clone();
            bad[at] ^= 4;
            assert_eq!(parse(&bad), None, "{at}");
            assert_eq!(parse(&text[..at]), None, "{at}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        node_key(&dir).load_or_make().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, b"half").unwrap();
        assert_eq!(node_key(&dir).load_or_make().unwrap(), KeyFile::Unreadable);
        assert_eq!(fs::read(dir.path().join("db.key.broken")).unwrap(), b"half");
        assert_eq!(node_key(&dir).load().unwrap(), KeyFile::Kept);
        let locked = NodeKey::new(&dir.path().join("none"));
        assert_eq!(locked.load().unwrap(), KeyFile::Missing);
        assert!(locked.seal(b"r", b"v").is_none() && locked.open(b"r", b"v").is_none());
    }
}
