//! Signatures of images where cosign keeps and looks for them, in the format of "simple signing".

use anyhow::Result;
use serde_json::json;

use crate::image::{Blob, CONFIG, INDEX, MANIFEST, full_name, layout};
use crate::json;

/// The archive of an image's signature, as cosign stores it beside the image: an image named `sha256-<digest>.sig` whose layer is what
/// was signed, with the signature on it. `payload` is [`simple_signing`]'s.
///
/// # Errors
/// When the archive cannot be made.
pub fn archive(payload: &[u8], signature: &str, repository: &str, digest: &str) -> Result<Vec<u8>> {
    let layer =
        Blob { media_type: "application/vnd.dev.cosign.simplesigning.v1+json", bytes: payload.to_vec() };
    let config = Blob {
        media_type: CONFIG,
        bytes: json::bytes(&json!({
            "architecture": "", "os": "", "config": {},
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", layer.digest())] },
        }))?,
    };
    let mut signed = layer.descriptor();
    signed["annotations"] = json!({ "dev.cosignproject.cosign/signature": signature });
    let manifest = Blob {
        media_type: MANIFEST,
        bytes: json::bytes(&json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config.descriptor(), "layers": [signed],
        }))?,
    };
    let tag = format!("{}.sig", digest.replace(':', "-"));
    let mut named = manifest.descriptor();
    named["annotations"] = json!({
        "io.containerd.image.name": format!("{}:{tag}", full_name(repository)),
        "org.opencontainers.image.ref.name": tag,
    });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [named] });
    let blobs = [&layer, &config, &manifest].map(|blob| (blob.digest(), blob.bytes.as_slice()));
    layout(&index, blobs.into())?.tar("", 0)
}

/// What cosign signs of an image: its name and its digest (the format of "simple signing").
///
/// # Errors
/// None that a value can have.
pub fn simple_signing(repository: &str, digest: &str) -> Result<Vec<u8>> {
    json::bytes(&json!({
        "critical": {
            "identity": { "docker-reference": full_name(repository) },
            "image": { "docker-manifest-digest": digest },
            "type": "cosign container image signature",
        },
        "optional": null,
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;

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
    fn a_signature_lies_where_cosign_looks() {
        let digest = format!("sha256:{}", "b".repeat(64));
        let payload = simple_signing("kubeedge/cloudcore", &digest).unwrap();
        let said = value(&payload);
        assert_eq!(said["critical"]["image"]["docker-manifest-digest"], json!(digest));
        let files = files(&archive(&payload, "c2ln", "kubeedge/cloudcore", &digest).unwrap());
        let named = &value(&files["index.json"])["manifests"][0];
        let name = format!("docker.io/kubeedge/cloudcore:sha256-{}.sig", "b".repeat(64));
        assert_eq!(named["annotations"]["io.containerd.image.name"], json!(name));
        let manifest = named["digest"].as_str().unwrap().trim_start_matches("sha256:");
        let layer = &value(&files[&format!("blobs/sha256/{manifest}")])["layers"][0];
        assert_eq!(layer["annotations"]["dev.cosignproject.cosign/signature"], "c2ln");
        let signed = layer["digest"].as_str().unwrap().trim_start_matches("sha256:");
        assert_eq!(files[&format!("blobs/sha256/{signed}")], payload);
    }
}
