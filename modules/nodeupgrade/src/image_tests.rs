//! Archives as they are made, and as somebody would make them who means harm.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::*;

fn sum(bytes: &[u8]) -> String {
    files::sum_of(&mut &*bytes, u64::MAX).unwrap().0
}

/// An entry of a tar archive: its path, its kind, its bytes.
type Entry<'a> = (&'a str, EntryType, &'a [u8]);

fn tar_of(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, kind, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        if *kind == EntryType::Symlink {
            header.set_link_name("/etc/shadow").unwrap();
        }
        header.set_cksum();
        archive.append(&header, *bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = GzEncoder::new(Vec::new(), Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

/// An archive with one image of these layers for `architecture`, and its digest.
fn image_of(layers: &[Vec<u8>], architecture: &str) -> (Vec<u8>, String) {
    let mut blobs: Vec<Vec<u8>> = layers.to_vec();
    let listed: Vec<Value> = layers
        .iter()
        .map(|layer| json!({"digest": format!("sha256:{}", sum(layer)), "mediaType": "layer", "size": layer.len()}))
        .collect();
    let manifest = json!({"schemaVersion": 2, "layers": listed}).to_string().into_bytes();
    let digest = format!("sha256:{}", sum(&manifest));
    let platform = json!({"architecture": architecture, "os": "linux"});
    let index = json!({"manifests": [{"digest": digest, "platform": platform}]}).to_string().into_bytes();
    blobs.push(manifest);
    let names: Vec<String> = blobs.iter().map(|blob| format!("blobs/sha256/{}", sum(blob))).collect();
    let mut entries: Vec<Entry<'_>> = vec![("index.json", EntryType::Regular, &index)];
    entries.extend(
        names.iter().zip(&blobs).map(|(name, blob)| (name.as_str(), EntryType::Regular, blob.as_slice())),
    );
    (tar_of(&entries), digest)
}

fn here() -> &'static str {
    elf::architecture(elf::HERE.0).unwrap()
}

/// What edgecore is in the archive.
fn found_in(bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.tar");
    std::fs::write(&path, bytes).unwrap();
    let archive = ImageArchive::open(&path, ARCHIVE_MAX)?;
    let image = archive.image()?;
    let found = archive.program(&image, "edgecore", || Ok(Vec::new()))?;
    Ok(found.map(|(told, bytes)| {
        assert_eq!(told, sum(&bytes));
        bytes
    }))
}

const PROGRAM: Entry<'static> = ("usr/local/bin/edgecore", EntryType::Regular, b"the program");

#[test]
fn the_program_of_an_image_is_found_packed_or_not_and_the_last_layer_counts() {
    let other = ("usr/local/bin/keadm", EntryType::Regular, &b"another"[..]);
    let plain = tar_of(&[other, PROGRAM]);
    for layer in [plain.clone(), gzip(&plain)] {
        assert_eq!(found_in(&image_of(&[layer], here()).0).unwrap().unwrap(), b"the program");
    }
    let above = gzip(&tar_of(&[("./usr/local/bin/edgecore", EntryType::Regular, b"newer")]));
    assert_eq!(found_in(&image_of(&[plain.clone(), above], here()).0).unwrap().unwrap(), b"newer");
    let without = tar_of(&[("usr/local/bin/.wh.edgecore", EntryType::Regular, b"")]);
    assert_eq!(found_in(&image_of(&[plain, without], here()).0).unwrap(), None);
}

#[test]
fn the_digest_is_the_one_that_registries_know() {
    let (bytes, digest) = image_of(&[tar_of(&[PROGRAM])], here());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.tar");
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(ImageArchive::open(&path, ARCHIVE_MAX).unwrap().image().unwrap().digest, digest);
}

#[test]
fn what_means_harm_is_refused_by_name() {
    let links = tar_of(&[("usr/local/bin/edgecore", EntryType::Symlink, b"")]);
    let zstd = [&[0x28, 0xb5, 0x2f, 0xfd][..], &[0; 600]].concat();
    for (layer, word) in [(links, "is no file"), (zstd, "zstd"), (gzip(b"no tar"), "unpacked")] {
        let error = format!("{:#}", found_in(&image_of(&[layer], here()).0).unwrap_err());
        assert!(error.contains(word), "{error}");
    }
    let of_another = image_of(&[tar_of(&[PROGRAM])], "s390x").0;
    let error = format!("{:#}", found_in(&of_another).unwrap_err());
    assert!(error.contains("for this machine") && error.contains("s390x"), "{error}");
    let index = json!({"manifests": [{"digest": "sha256:../../../../etc/passwd"}]}).to_string();
    let error = found_in(&tar_of(&[("index.json", EntryType::Regular, index.as_bytes())])).unwrap_err();
    assert!(format!("{error:#}").contains("is no digest"), "{error:#}");
    let error = found_in(b"\x7fELF").unwrap_err();
    assert!(format!("{error:#}").contains("is no tar archive"), "{error:#}");
}

#[test]
fn paths_that_lead_elsewhere_write_nothing_anywhere() {
    let layer = tar_of(&[
        ("../../../tmp/evil", EntryType::Regular, b"evil"),
        ("/etc/cron.d/evil", EntryType::Regular, b"evil"),
        ("usr/local/bin", EntryType::Symlink, b""),
        PROGRAM,
    ]);
    assert_eq!(found_in(&image_of(&[layer], here()).0).unwrap().unwrap(), b"the program");
}

#[test]
fn a_damaged_archive_is_told_from_a_good_one_wherever_it_is_damaged() {
    let (good, _) = image_of(&[gzip(&tar_of(&[PROGRAM]))], here());
    for length in (0..good.len() - 1024).step_by(97) {
        assert!(found_in(&good[..length]).is_err(), "{length}");
    }
    for at in (0..good.len()).step_by(13) {
        let mut bad = good.clone();
        bad[at] ^= 0x55;
        // A byte that says nothing may change: what comes out is the program or nothing.
        if let Ok(Some(found)) = found_in(&bad) {
            assert_eq!(found, b"the program", "{at}");
        }
    }
}

#[test]
fn an_extension_of_any_length_is_not_taken_into_memory() {
    let layer = tar_of(&[("././@LongLink", EntryType::GNULongName, &vec![b'a'; 8 << 20]), PROGRAM]);
    assert_eq!(found_in(&image_of(&[gzip(&layer)], here()).0).unwrap().unwrap(), b"the program");
}

#[test]
fn layers_are_bounded_in_number_and_in_all_and_not_one_by_one() {
    let empty = tar_of(&[]);
    let error = format!("{:#}", found_in(&image_of(&vec![empty; LAYERS_MAX + 1], here()).0).unwrap_err());
    assert!(error.contains("more than 128 layers"), "{error}");
    // Each of them is within its bound; a small part of the archive is named again and again.
    let names: Vec<String> = (0..1000).map(|number| format!("f{number}")).collect();
    let entries: Vec<Entry<'_>> =
        names.iter().map(|name| (name.as_str(), EntryType::Regular, &b""[..])).collect();
    let layer = gzip(&tar_of(&entries));
    let error = format!("{:#}", found_in(&image_of(&vec![layer; 101], here()).0).unwrap_err());
    assert!(error.contains("more than 100000 entries"), "{error}");
    let left = Cell::new(10);
    let mut both = [(); 2].map(|()| Bounded { from: io::repeat(0).take(6), left: &left });
    let mut bytes = Vec::new();
    assert_eq!(both[0].read_to_end(&mut bytes).unwrap(), 6);
    assert!(both[1].read_to_end(&mut bytes).is_err());
}

#[test]
fn a_part_is_summed_once_however_often_it_is_named() {
    let (bytes, _) = image_of(&[tar_of(&[PROGRAM])], here());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.tar");
    std::fs::write(&path, bytes).unwrap();
    let archive = ImageArchive::open(&path, ARCHIVE_MAX).unwrap();
    let image = archive.image().unwrap();
    assert!(archive.program(&image, "keadm", || Ok(Vec::new())).unwrap().is_none());
    let part = blob_name(&image.layers[0].digest).unwrap();
    // As nothing else of it is looked at again, a wrong digest is not seen either.
    archive.check(&part, "sha256:0").unwrap();
}

#[test]
fn a_document_that_is_too_long_is_refused_and_not_cut() {
    let mut index = json!({"manifests": []}).to_string();
    index.push_str(&" ".repeat(usize::try_from(DOCUMENT_MAX).unwrap()));
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(index.len() as u64);
    archive.append_data(&mut header, "index.json", index.as_bytes()).unwrap();
    let error = format!("{:#}", found_in(&archive.into_inner().unwrap()).unwrap_err());
    assert!(error.contains("longer than"), "{error}");
}
