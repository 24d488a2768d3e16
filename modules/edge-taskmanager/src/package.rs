//! The installation package: an image that Edged has pulled, written as an archive of OCI's layout, which `keadm upgrade edge` takes. Nothing
//! of it is unpacked or believed here: keadm holds every part against its digest.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use beehive::{Env, Fault};
use bytes::Bytes;
use cri::{Content, Descriptor, Error as RuntimeError};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

/// 4 MiB of an index or a manifest.
const DOCUMENT_MAX: u64 = 4 << 20;
/// 1 GiB of all layers together: the programs have a few hundred MiB at the most.
const LAYERS_MAX: u64 = 1 << 30;
/// 64 layers.
const LAYERS: usize = 64;
/// How deep indexes may lie in each other.
const INDEXES_MAX: usize = 4;
/// Blobs are padded to it in a tar archive.
const BLOCK: u64 = 512;

/// Where the parts of images are read.
pub(crate) trait Blobs {
    /// What an image begins with.
    async fn target(&self, name: &str) -> Result<Descriptor, RuntimeError>;
    /// A part, piece by piece.
    async fn read(
        &self,
        digest: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, RuntimeError>>, RuntimeError>;
}

impl Blobs for Content {
    async fn target(&self, name: &str) -> Result<Descriptor, RuntimeError> {
        Content::target(self, name).await
    }

    async fn read(
        &self,
        digest: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, RuntimeError>>, RuntimeError> {
        Content::read(self, digest).await
    }
}

/// Writes the image that the runtime has as `id` into the file `to`, and answers the file's SHA-256 in hex. Its layers have at most `most`
/// bytes, and never more than 1 GiB.
///
/// # Errors
/// A sentence.
pub(crate) async fn write(
    blobs: &impl Blobs,
    id: &str,
    (to, most): (&Path, u64),
    env: &Env,
) -> Result<String, String> {
    let target = blobs.target(id).await.map_err(|error| match error {
        RuntimeError::Unsupported { .. } => {
            "the runtime gives no image out, which containerd does: upgrade this node by `keadm upgrade edge --image-archive`".to_owned()
        }
        error => said(&error),
    })?;
    let (documents, parts) = parts(blobs, &target, most.min(LAYERS_MAX)).await?;
    let path = to.to_owned();
    let made = env.blocking(move || {
        OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
    });
    let mut file = on_disk(made.await, to)?;
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": target.media_type, "digest": target.digest, "size": target.size,
    }]});
    file = entry(file, "index.json", index.to_string().into_bytes(), to, env).await?;
    file = entry(file, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(), to, env).await?;
    for (digest, bytes) in documents {
        file = entry(file, &blob_name(&digest)?, bytes, to, env).await?;
    }
    for part in parts {
        file = blob(blobs, file, &part, to, env).await?;
    }
    let ended = env.blocking(move || {
        file.write_all(&[0; 2 * BLOCK as usize])?;
        file.sync_all()?;
        sum_of(file)
    });
    on_disk(ended.await, to)
}

fn sum_of(mut file: File) -> io::Result<String> {
    file.rewind()?;
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash)?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn said(error: &RuntimeError) -> String {
    Fault::from_error(error).reason
}

fn on_disk<T>(written: Result<io::Result<T>, Fault>, to: &Path) -> Result<T, String> {
    written.map_err(|fault| fault.reason)?.map_err(|error| format!("{}: {error}", to.display()))
}

/// The documents of an image for this machine, and its other parts.
async fn parts(
    blobs: &impl Blobs,
    target: &Descriptor,
    most: u64,
) -> Result<(Vec<(String, Vec<u8>)>, Vec<Descriptor>), String> {
    let mut documents = Vec::new();
    let mut digest = target.digest.clone();
    for _ in 0..INDEXES_MAX {
        let bytes = document(blobs, &digest).await?;
        let read: Value =
            serde_json::from_slice(&bytes).map_err(|error| format!("{digest} is no JSON: {error}"))?;
        documents.push((digest, bytes));
        if let Some(listed) = read["manifests"].as_array() {
            let here = listed.iter().find(|one| is_for_this_machine(&one["platform"]));
            let here = here.ok_or("the image is not for this machine")?;
            digest = text(here, "digest")?;
            continue;
        }
        let layers = read["layers"].as_array().ok_or("the image's manifest has no layers")?;
        if layers.len() > LAYERS {
            return Err(format!("the image has {} layers, and may have {LAYERS}", layers.len()));
        }
        let parts = std::iter::once(&read["config"]).chain(layers);
        let parts: Vec<Descriptor> = parts.map(descriptor).collect::<Result<_, _>>()?;
        let whole: u64 = parts.iter().map(|part| part.size).fold(0, u64::saturating_add);
        if whole > most {
            return Err(format!("the image has {whole} bytes, and may have {most}"));
        }
        return Ok((documents, parts));
    }
    Err("the image's indexes lie in each other too deep".to_owned())
}

fn is_for_this_machine(platform: &Value) -> bool {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    platform.is_null() || (platform["architecture"] == architecture && platform["os"] == "linux")
}

fn text(value: &Value, key: &str) -> Result<String, String> {
    let found = value[key].as_str().map(str::to_owned);
    found.ok_or_else(|| format!("the image's documents are damaged: `{key}` is missing"))
}

fn descriptor(value: &Value) -> Result<Descriptor, String> {
    let size = value["size"].as_u64().ok_or("the image's documents are damaged: `size` is missing")?;
    Ok(Descriptor { media_type: text(value, "mediaType")?, digest: text(value, "digest")?, size })
}

fn blob_name(digest: &str) -> Result<String, String> {
    match digest.strip_prefix("sha256:") {
        Some(digits) if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Ok(format!("blobs/sha256/{digits}"))
        }
        _ => Err("the image's documents are damaged: a digest is no sha256".to_owned()),
    }
}

async fn document(blobs: &impl Blobs, digest: &str) -> Result<Vec<u8>, String> {
    let mut pieces = blobs.read(digest).await.map_err(|error| said(&error))?;
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await {
        bytes.extend_from_slice(&piece.map_err(|error| said(&error))?);
        if bytes.len() as u64 > DOCUMENT_MAX {
            return Err(format!("{digest} has more than {DOCUMENT_MAX} bytes, which no manifest has"));
        }
    }
    Ok(bytes)
}

fn head(name: &str, size: u64) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_entry_type(EntryType::Regular);
    header.set_size(size);
    header.set_mode(0o600);
    header.set_cksum();
    Ok(header)
}

fn padding(size: u64) -> Vec<u8> {
    vec![0; usize::try_from(size.wrapping_neg() % BLOCK).unwrap_or_default()]
}

async fn entry(mut file: File, name: &str, bytes: Vec<u8>, to: &Path, env: &Env) -> Result<File, String> {
    let name = name.to_owned();
    let written = env.blocking(move || {
        let size = bytes.len() as u64;
        file.write_all(head(&name, size)?.as_bytes())?;
        file.write_all(&bytes)?;
        file.write_all(&padding(size))?;
        Ok(file)
    });
    on_disk(written.await, to)
}

async fn blob(
    blobs: &impl Blobs,
    mut file: File,
    part: &Descriptor,
    to: &Path,
    env: &Env,
) -> Result<File, String> {
    let (name, size) = (blob_name(&part.digest)?, part.size);
    let begun = env.blocking(move || {
        file.write_all(head(&name, size)?.as_bytes())?;
        Ok(file)
    });
    file = on_disk(begun.await, to)?;
    let mut pieces = blobs.read(&part.digest).await.map_err(|error| said(&error))?;
    let mut left = size;
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| said(&error))?;
        left = left
            .checked_sub(piece.len() as u64)
            .ok_or_else(|| format!("{} is longer than its manifest says", part.digest))?;
        let written = env.blocking(move || {
            file.write_all(&piece)?;
            Ok(file)
        });
        file = on_disk(written.await, to)?;
    }
    if left > 0 {
        return Err(format!("{} is shorter than its manifest says", part.digest));
    }
    let ended = env.blocking(move || {
        file.write_all(&padding(size))?;
        Ok(file)
    });
    on_disk(ended.await, to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::Read as _;

    #[derive(Default)]
    struct Memory {
        target: Option<Descriptor>,
        blobs: BTreeMap<String, Bytes>,
    }

    impl Memory {
        fn put(&mut self, bytes: &[u8]) -> Value {
            let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            let digest = format!("sha256:{digits}");
            self.blobs.insert(digest.clone(), Bytes::copy_from_slice(bytes));
            json!({"mediaType": "m", "digest": digest, "size": bytes.len()})
        }

        /// A package for two architectures, of which only one is here.
        fn package(layer: &[u8]) -> Memory {
            let mut memory = Memory::default();
            let (config, layer) = (memory.put(b"{}"), memory.put(layer));
            let mut here = memory.put(json!({"config": config, "layers": [layer]}).to_string().as_bytes());
            let architecture = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
            here["platform"] = json!({"architecture": architecture, "os": "linux"});
            let absent =
                json!({"digest": "sha256:0", "platform": {"architecture": "riscv64", "os": "linux"}});
            let index = memory.put(json!({"manifests": [absent, here]}).to_string().as_bytes());
            memory.target = Some(descriptor(&index).unwrap());
            memory
        }
    }

    impl Blobs for Memory {
        async fn target(&self, _: &str) -> Result<Descriptor, RuntimeError> {
            self.target.clone().ok_or(RuntimeError::Unsupported { call: "x" })
        }

        async fn read(
            &self,
            digest: &str,
        ) -> Result<BoxStream<'static, Result<Bytes, RuntimeError>>, RuntimeError> {
            let whole = self.blobs[digest].clone();
            let pieces: Vec<_> = whole.chunks(7).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
            Ok(futures::stream::iter(pieces).boxed())
        }
    }

    #[tokio::test]
    async fn the_archive_has_the_image_of_this_machine_as_its_registry_had_it() {
        let folder = tempfile::tempdir().unwrap();
        let (to, env) = (folder.path().join("package.tar"), Env::real());
        let memory = Memory::package(b"a layer that is no multiple of a block");
        let sum = write(&memory, "sha256:id", (&to, LAYERS_MAX), &env).await.unwrap();
        let of_file: String =
            Sha256::digest(std::fs::read(&to).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(sum, of_file);
        let mut archive = tar::Archive::new(File::open(&to).unwrap());
        let mut found = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let (name, mut bytes) = (entry.path().unwrap().display().to_string(), Vec::new());
            entry.read_to_end(&mut bytes).unwrap();
            found.insert(name, bytes);
        }
        let index: Value = serde_json::from_slice(&found["index.json"]).unwrap();
        assert_eq!(index["manifests"][0]["digest"], memory.target.as_ref().unwrap().digest.as_str());
        for (digest, bytes) in &memory.blobs {
            assert_eq!(found[&blob_name(digest).unwrap()], bytes.as_ref(), "{digest}");
        }
        assert_eq!(found.len(), memory.blobs.len() + 2);
    }

    #[tokio::test]
    async fn what_lies_about_its_size_or_is_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (to, env) = (folder.path().join("package.tar"), Env::real());
        let mut memory = Memory::package(b"layer");
        let (digest, _) = memory.blobs.iter().find(|(_, bytes)| bytes.as_ref() == b"layer").unwrap();
        let digest = digest.clone();
        for (lie, said) in [(&b"layers"[..], "longer"), (b"laye", "shorter")] {
            memory.blobs.insert(digest.clone(), Bytes::from_static(lie));
            let why = write(&memory, "i", (&to, u64::MAX), &env).await.unwrap_err();
            assert!(why.contains(said), "{why}");
        }
        let mut memory = Memory::default();
        let (config, huge) =
            (memory.put(b"{}"), json!({"mediaType": "m", "digest": "sha256:1", "size": LAYERS_MAX + 1}));
        let manifest = memory.put(json!({"config": config, "layers": [huge]}).to_string().as_bytes());
        memory.target = Some(descriptor(&manifest).unwrap());
        assert!(write(&memory, "i", (&to, u64::MAX), &env).await.unwrap_err().contains("may have"));
        assert!(write(&Memory::default(), "i", (&to, 1), &env).await.unwrap_err().contains("containerd"));
        assert!(blob_name("sha256:../../etc/passwd").is_err());
    }
}
