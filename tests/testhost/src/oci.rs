//! Images as OCI archives, built from files.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// One thing in an image's only layer. Paths are relative to `/`.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A folder with its mode.
    Folder(String, u32),
    /// A file with these bytes and this mode.
    Text(String, String, u32),
    /// A copy of a file of this machine, with this mode.
    Copy(String, PathBuf, u32),
    /// A symbolic link to a target.
    Link(String, String),
}

/// An image to import.
#[derive(Debug, Clone)]
pub struct Image {
    /// The full name with its tag.
    pub name: String,
    /// What is in it.
    pub entries: Vec<Entry>,
    /// `Entrypoint`.
    pub entrypoint: Vec<String>,
    /// `Cmd`.
    pub cmd: Vec<String>,
    /// `Env`, as `NAME=value`.
    pub env: Vec<String>,
    /// `User`; empty means root.
    pub user: String,
}

/// An image as a registry holds it.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) manifest: Vec<u8>,
    /// Config and layer, by their digests in hexadecimal.
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
}

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n";
const GROUP: &str = "root:x:0:\nnobody:x:65534:\n";

impl Image {
    /// A root file system of busybox with a link for each of its applets.
    ///
    /// # Errors
    /// When busybox does not tell its applets.
    pub fn busybox(name: &str) -> Result<Image> {
        let busybox = crate::needs::busybox();
        let applets = crate::output(std::process::Command::new(busybox).arg("--list"))?;
        let mut entries = base(busybox);
        for applet in applets.lines().filter(|applet| *applet != "busybox" && !applet.is_empty()) {
            entries.push(Entry::Link(format!("bin/{applet}"), "busybox".to_owned()));
        }
        Ok(Image {
            name: name.to_owned(),
            entries,
            entrypoint: Vec::new(),
            cmd: vec!["sh".to_owned()],
            env: vec!["PATH=/bin".to_owned()],
            user: String::new(),
        })
    }

    /// What holds a sandbox open.
    ///
    /// # Errors
    /// None today; it keeps the face of [`Image::busybox`].
    pub fn pause(name: &str) -> Result<Image> {
        Ok(Image {
            name: name.to_owned(),
            entries: base(crate::needs::busybox()),
            entrypoint: vec!["/bin/busybox".to_owned(), "sleep".to_owned(), "2147483647".to_owned()],
            cmd: Vec::new(),
            env: vec!["PATH=/bin".to_owned()],
            user: String::new(),
        })
    }

    /// Writes the image as an OCI archive.
    ///
    /// # Errors
    /// When a file cannot be read or the archive cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let parts = self.parts()?;
        let manifest_digest = digest(&parts.manifest);
        let index = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": format!("sha256:{manifest_digest}"), "size": parts.manifest.len(),
                "annotations": {"io.containerd.image.name": self.name},
            }],
        }))?;
        let file = std::fs::File::create(path).with_context(|| format!("make {}", path.display()))?;
        let mut archive = tar::Builder::new(std::io::BufWriter::new(file));
        add_file(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
        for (name, blob) in parts.blobs.iter().chain([(&manifest_digest, &parts.manifest)]) {
            add_file(&mut archive, &format!("blobs/sha256/{name}"), blob, 0o644)?;
        }
        add_file(&mut archive, "index.json", &index, 0o644)?;
        archive.into_inner().context("finish the archive")?.flush().context("write the archive")
    }

    /// What the image is made of.
    pub(crate) fn parts(&self) -> Result<Parts> {
        let layer = self.layer()?;
        let layer_digest = digest(&layer);
        let config = serde_json::to_vec(&json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint, "Cmd": self.cmd, "Env": self.env, "User": self.user,
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
        }))?;
        let config_digest = digest(&config);
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": format!("sha256:{config_digest}"), "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": format!("sha256:{layer_digest}"), "size": layer.len(),
            }],
        }))?;
        Ok(Parts { manifest, blobs: [(layer_digest, layer), (config_digest, config)].into() })
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut layer = tar::Builder::new(Vec::new());
        for entry in &self.entries {
            match entry {
                Entry::Folder(path, mode) => {
                    add(&mut layer, tar::EntryType::Directory, &format!("{path}/"), &[], *mode)?;
                }
                Entry::Text(path, text, mode) => add_file(&mut layer, path, text.as_bytes(), *mode)?,
                Entry::Copy(path, from, mode) => {
                    let bytes = std::fs::read(from).with_context(|| format!("read {}", from.display()))?;
                    add_file(&mut layer, path, &bytes, *mode)?;
                }
                Entry::Link(path, target) => {
                    let mut header = header(tar::EntryType::Symlink, 0, 0o777);
                    layer.append_link(&mut header, path, target).with_context(|| format!("link {path}"))?;
                }
            }
        }
        layer.into_inner().context("finish the layer")
    }
}

fn base(busybox: &Path) -> Vec<Entry> {
    vec![
        Entry::Folder("bin".into(), 0o755),
        Entry::Folder("etc".into(), 0o755),
        Entry::Folder("root".into(), 0o700),
        Entry::Folder("tmp".into(), 0o1777),
        Entry::Copy("bin/busybox".into(), busybox.to_owned(), 0o755),
        Entry::Text("etc/passwd".into(), PASSWD.into(), 0o644),
        Entry::Text("etc/group".into(), GROUP.into(), 0o644),
    ]
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn add<W: Write>(
    to: &mut tar::Builder<W>,
    kind: tar::EntryType,
    path: &str,
    bytes: &[u8],
    mode: u32,
) -> Result<()> {
    let mut header = header(kind, bytes.len() as u64, mode);
    to.append_data(&mut header, path, bytes).with_context(|| format!("add {path} to an archive"))
}

fn add_file<W: Write>(to: &mut tar::Builder<W>, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
    add(to, tar::EntryType::Regular, path, bytes, mode)
}
