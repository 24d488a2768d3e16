//! Images as archives, without a daemon: the layout of OCI (`index.json`) and what `docker load` reads (`manifest.json`) side by side
//! over the same blobs, so that `ctr images import`, `docker load`, `podman load` and `skopeo copy oci-archive:` take them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::archive::{self, Tree};
use crate::json;
use crate::parts::{FOLDER, Part};
use crate::programs::Binary;
use crate::target::Target;

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Where programs look for the system's CAs first (`rustls-native-certs`, as OpenSSL on Debian).
const CAS: &str = "etc/ssl/certs/ca-certificates.crt";

/// The licences of what is linked.
const LICENSES: &str = "usr/share/doc/kubehive/licenses.txt";

/// What an image says of itself, the same for all images of a release.
#[derive(Debug, Clone)]
pub struct Labels {
    /// The version: the tag without its `v`.
    pub version: String,
    /// The commit.
    pub revision: Option<String>,
    /// Where the sources are.
    pub source: Option<String>,
    /// The licence, as SPDX writes it.
    pub licenses: String,
    /// Seconds since 1970: of every file, and when the image was made.
    pub time: u64,
}

/// An image for one kind of machine.
#[derive(Debug, Clone)]
pub struct Image {
    target: Target,
    config: Blob,
    layer: Blob,
    manifest: Blob,
}

/// What an image is made of, by its digest.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    pub(crate) media_type: &'static str,
    pub(crate) bytes: Vec<u8>,
}

impl Blob {
    /// SHA-256 in hexadecimal.
    pub(crate) fn digest(&self) -> String {
        hex::encode(Sha256::digest(&self.bytes))
    }

    /// As others refer to it.
    pub(crate) fn descriptor(&self) -> Value {
        json!({
            "mediaType": self.media_type,
            "digest": format!("sha256:{}", self.digest()),
            "size": self.bytes.len(),
        })
    }
}

impl Image {
    /// Of a part whose programs are among `binaries`, which are for `target`. `licenses`: the texts of what is linked into them, where
    /// that is known.
    ///
    /// # Errors
    /// When one is missing.
    pub fn new(
        part: &Part,
        binaries: &[Binary],
        target: Target,
        labels: &Labels,
        licenses: Option<&[u8]>,
    ) -> Result<Image> {
        let mut tree = Tree::default();
        for name in part.programs {
            let binary = binaries.iter().find(|binary| binary.program.name == *name);
            let binary = binary.with_context(|| format!("{} has no {name}", part.image))?;
            tree.add(&format!("{FOLDER}/{name}"), binary.bytes.clone(), 0o755)?;
        }
        if part.needs_cas {
            tree.add(CAS, crate::certificates::bundle(), 0o644)?;
        }
        if let Some(licenses) = licenses {
            tree.add(LICENSES, licenses, 0o644)?;
        }
        let layer = tree.tar("", labels.time)?;
        let unpacked = hex::encode(Sha256::digest(&layer));
        let layer = Blob { media_type: LAYER, bytes: archive::gzip(&layer)? };
        let config = Blob { media_type: CONFIG, bytes: config(part, target, labels, &unpacked)? };
        let manifest = Blob {
            media_type: MANIFEST,
            bytes: json::bytes(&json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config.descriptor(),
                "layers": [layer.descriptor()],
                "annotations": annotations(part, labels),
            }))?,
        };
        Ok(Image { target, config, layer, manifest })
    }

    /// By which registries and runtimes know it: `sha256:` and hexadecimal digits.
    pub fn digest(&self) -> String {
        format!("sha256:{}", self.manifest.digest())
    }

    fn platform(&self) -> Value {
        platform(self.target)
    }
}

/// The archive of an image that is known as `repository:tag`, for each of the machines in `images`, and the digest by which it is known:
/// of the index where there are several, else of the image.
///
/// # Errors
/// When the archive cannot be made.
pub fn archive(images: &[Image], repository: &str, tag: &str, time: u64) -> Result<(Vec<u8>, String)> {
    let mut blobs: BTreeMap<String, &[u8]> = BTreeMap::new();
    let mut listed = Vec::new();
    for image in images {
        for blob in [&image.config, &image.layer, &image.manifest] {
            blobs.insert(blob.digest(), &blob.bytes);
        }
        let mut descriptor = image.manifest.descriptor();
        descriptor["platform"] = image.platform();
        listed.push(descriptor);
    }
    let of_several = Blob {
        media_type: INDEX,
        bytes: json::bytes(&json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": listed }))?,
    };
    let mut named = match listed.as_slice() {
        [one] => one.clone(),
        _ => of_several.descriptor(),
    };
    if listed.len() > 1 {
        blobs.insert(of_several.digest(), &of_several.bytes);
    }
    named["annotations"] = json!({
        // containerd's word for the full name, and OCI's for the rest of it.
        "io.containerd.image.name": format!("{}:{tag}", full_name(repository)),
        "org.opencontainers.image.ref.name": tag,
    });
    let digest = named["digest"].as_str().unwrap_or_default().to_owned();
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [named] });
    // Docker's list: a name can stand there once.
    let first = images.first().context("an image of no machine")?;
    let blob = |of: &Blob| format!("blobs/sha256/{}", of.digest());
    let of_docker = json!([{
        "Config": blob(&first.config),
        "RepoTags": [format!("{repository}:{tag}")],
        "Layers": [blob(&first.layer)],
    }]);
    let mut tree = layout(&index, blobs)?;
    tree.add("manifest.json", json::bytes(&of_docker)?, 0o644)?;
    Ok((tree.tar("", time)?, digest))
}

/// The files of OCI's layout.
pub(crate) fn layout(index: &Value, blobs: BTreeMap<String, &[u8]>) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.add("oci-layout", json::bytes(&json!({ "imageLayoutVersion": "1.0.0" }))?, 0o644)?;
    tree.add("index.json", json::bytes(index)?, 0o644)?;
    for (digest, bytes) in blobs {
        tree.add(&format!("blobs/sha256/{digest}"), bytes, 0o644)?;
    }
    Ok(tree)
}

fn config(part: &Part, target: Target, labels: &Labels, unpacked: &str) -> Result<Vec<u8>> {
    let created = json::time(labels.time)?;
    let program = part.programs.first().context("an image without a program")?;
    let mut config = platform(target);
    config["created"] = json!(created);
    config["config"] = json!({
        "User": part.user,
        "Env": [format!("PATH=/{FOLDER}")],
        "Entrypoint": [format!("/{FOLDER}/{program}")],
        "WorkingDir": "/",
        "Labels": annotations(part, labels),
    });
    config["rootfs"] = json!({ "type": "layers", "diff_ids": [format!("sha256:{unpacked}")] });
    config["history"] = json!([{ "created": created, "created_by": "cargo dist" }]);
    json::bytes(&config)
}

fn platform(target: Target) -> Value {
    let mut platform = json!({ "architecture": target.architecture, "os": "linux" });
    if let Some(variant) = target.variant {
        platform["variant"] = json!(variant);
    }
    platform
}

fn annotations(part: &Part, labels: &Labels) -> Value {
    let mut said = json!({
        "org.opencontainers.image.title": part.title,
        "org.opencontainers.image.version": labels.version,
        "org.opencontainers.image.licenses": labels.licenses,
    });
    for (name, value) in [("revision", &labels.revision), ("source", &labels.source)] {
        if let Some(value) = value {
            said[format!("org.opencontainers.image.{name}")] = json!(value);
        }
    }
    said
}

/// The name that runtimes know an image by: with Docker's registry, where it names none.
pub fn full_name(repository: &str) -> String {
    match repository.split_once('/') {
        Some((host, _)) if host == "localhost" || host.contains(['.', ':']) => repository.to_owned(),
        Some(_) => format!("docker.io/{repository}"),
        None => format!("docker.io/library/{repository}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::{PARTS, PROGRAMS};
    use crate::target::TARGETS;

    fn labels() -> Labels {
        Labels {
            version: "0.1.0".to_owned(),
            revision: Some("a".repeat(40)),
            source: None,
            licenses: "Apache-2.0".to_owned(),
            time: 1_700_000_000,
        }
    }

    fn image(target: Target) -> Image {
        let binaries = PROGRAMS.map(|program| Binary { program, bytes: program.name.into() });
        Image::new(&PARTS[0], &binaries, target, &labels(), None).unwrap()
    }

    /// The archive's files by their paths.
    fn files(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(bytes);
        archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
                (String::from_utf8(entry.path_bytes().into_owned()).unwrap(), bytes)
            })
            .collect()
    }

    fn value(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn every_digest_is_that_of_its_blob() {
        let (bytes, digest) = archive(&[image(TARGETS[0])], "kubeedge/cloudcore", "v1", 5).unwrap();
        let files = files(&bytes);
        let mut blobs = 0;
        for (path, bytes) in
            files.iter().filter(|(path, bytes)| path.starts_with("blobs/") && !bytes.is_empty())
        {
            assert_eq!(path.rsplit('/').next().unwrap(), hex::encode(Sha256::digest(bytes)));
            blobs += 1;
        }
        assert_eq!(blobs, 3);
        let index = value(&files["index.json"]);
        let named = &index["manifests"][0];
        assert_eq!(named["digest"], json!(digest));
        assert_eq!(named["platform"], json!({ "architecture": "amd64", "os": "linux" }));
        assert_eq!(named["annotations"]["io.containerd.image.name"], "docker.io/kubeedge/cloudcore:v1");
        let docker = value(&files["manifest.json"]);
        assert_eq!(docker[0]["RepoTags"], json!(["kubeedge/cloudcore:v1"]));
        let config = value(&files[docker[0]["Config"].as_str().unwrap()]);
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Labels"]["org.opencontainers.image.revision"], "a".repeat(40));
        assert_eq!(config["config"]["Labels"].get("org.opencontainers.image.source"), None);
        assert_eq!(config["created"], "2023-11-14T22:13:20Z");
        let layer = &files[docker[0]["Layers"][0].as_str().unwrap()];
        let mut unpacked = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(layer.as_slice()), &mut unpacked)
            .unwrap();
        let diff = format!("sha256:{}", hex::encode(Sha256::digest(&unpacked)));
        assert_eq!(config["rootfs"]["diff_ids"], json!([diff]));
    }

    #[test]
    fn the_index_of_several_machines_names_each() {
        let images = [image(TARGETS[0]), image(TARGETS[1]), image(TARGETS[2])];
        let (bytes, digest) = archive(&images, "kubeedge/cloudcore", "v1", 5).unwrap();
        let files = files(&bytes);
        let named = &value(&files["index.json"])["manifests"][0];
        assert_eq!((&named["mediaType"], &named["digest"]), (&json!(INDEX), &json!(digest)));
        let index = value(&files[&format!("blobs/sha256/{}", digest.trim_start_matches("sha256:"))]);
        let platforms: Vec<&Value> =
            index["manifests"].as_array().unwrap().iter().map(|listed| &listed["platform"]).collect();
        let arm = json!({ "architecture": "arm", "os": "linux", "variant": "v7" });
        assert_eq!(platforms[1]["architecture"], "arm64");
        assert_eq!(platforms[2], &arm);
        for listed in index["manifests"].as_array().unwrap() {
            let digest = listed["digest"].as_str().unwrap().trim_start_matches("sha256:");
            assert!(files.contains_key(&format!("blobs/sha256/{digest}")), "{listed}");
        }
    }

    #[test]
    fn a_name_has_its_registry() {
        for (short, full) in [
            ("kubeedge/cloudcore", "docker.io/kubeedge/cloudcore"),
            ("cloudcore", "docker.io/library/cloudcore"),
            ("registry.example/a/cloudcore", "registry.example/a/cloudcore"),
            ("localhost/a", "localhost/a"),
            ("box:5000/a", "box:5000/a"),
        ] {
            assert_eq!(full_name(short), full);
        }
    }
}
