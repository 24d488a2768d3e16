//! What the server keeps in its folder beside the database: the CA, the key of the tokens, the admin's credential.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use beehive::Env;
use pki::Authority;
use serde_json::json;
use thiserror::Error;

/// 50 years: nobody is told of another one, so it has to outlive the machine.
const CA_LIFE: Duration = Duration::from_secs(50 * 365 * 86_400);

/// Why a key is not there.
#[derive(Debug, Error)]
pub enum KeyError {
    /// A file cannot be read or written.
    #[error("cannot {what} `{path}`")]
    File {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file holds something else than it should.
    #[error("`{path}` is not usable ({reason}): restore it, or delete it to start anew")]
    Broken {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The server's keys.
pub(crate) struct Keys {
    pub(crate) authority: Authority,
    /// EC P-256, PEM.
    pub(crate) token_key: rcgen::KeyPair,
    pub(crate) admin_token: String,
}

impl Keys {
    /// Reads what is in `folder`, and makes what is not. The folder is there and nobody else's.
    pub(crate) fn load(folder: &Path, env: &Env) -> Result<Keys, KeyError> {
        let authority = authority(folder, env)?;
        let path = folder.join("sa.key");
        let made = || rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map(|k| k.serialize_pem());
        let pem = read_or_make(&path, || made().map_err(|error| broken(&path, &error)))?;
        let token_key = rcgen::KeyPair::from_pem(&pem).map_err(|error| broken(&path, &error))?;
        let path = folder.join("admin.token");
        let admin_token = read_or_make(&path, || {
            Ok(format!("{}{}", hex::encode(env.random_id()), hex::encode(env.random_id())))
        })?;
        if admin_token.len() < 32 {
            return Err(broken(&path, &"it is too short"));
        }
        Ok(Keys { authority, token_key, admin_token })
    }
}

fn broken(path: &Path, reason: &dyn std::fmt::Display) -> KeyError {
    KeyError::Broken { path: path.to_owned(), reason: reason.to_string() }
}

fn authority(folder: &Path, env: &Env) -> Result<Authority, KeyError> {
    let (cert_path, key_path) = (folder.join("ca.crt"), folder.join("ca.key"));
    if !key_path.exists() {
        let made = Authority::create_for(env.wall(), CA_LIFE, env.random_id())
            .map_err(|error| broken(&key_path, &error))?;
        write(&cert_path, made.cert_pem())?;
        // The key last: with it the pair is complete.
        write(&key_path, made.key_pem())?;
    }
    Authority::from_pem(&read(&cert_path)?, &read(&key_path)?).map_err(|error| broken(&key_path, &error))
}

fn read_or_make(path: &Path, make: impl FnOnce() -> Result<String, KeyError>) -> Result<String, KeyError> {
    if !path.exists() {
        write(path, &make()?)?;
    }
    Ok(read(path)?.trim().to_owned())
}

fn read(path: &Path) -> Result<String, KeyError> {
    fs::read_to_string(path).map_err(|source| KeyError::File { what: "read", path: path.to_owned(), source })
}

/// Writes beside and renames, so that a crash leaves the old file or the new one. Only root may read it.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), KeyError> {
    let at = |source| KeyError::File { what: "write", path: path.to_owned(), source };
    let beside = path.with_extension("new");
    // What a crash left there; then a file that nobody else has open.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(error)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(at)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(at)?;
    fs::rename(&beside, path).map_err(at)
}

/// A kubeconfig for the admin, as JSON, which is YAML, too.
pub(crate) fn kubeconfig(server: &str, authority: &Authority, token: &str) -> String {
    use base64::Engine as _;
    let ca = base64::engine::general_purpose::STANDARD.encode(authority.cert_pem());
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "kubehive",
        "clusters": [{ "name": "kubehive", "cluster": { "server": server, "certificate-authority-data": ca } }],
        "users": [{ "name": "admin", "user": { "token": token } }],
        "contexts": [{ "name": "kubehive", "context": { "cluster": "kubehive", "user": "admin" } }],
    });
    format!("{config:#}\n")
}
