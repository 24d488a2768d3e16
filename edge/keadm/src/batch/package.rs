//! Where keadm is taken from for a node of an architecture.

use std::fs::File;
use std::io::{BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use flate2::read::GzDecoder;
use tar::EntryType;

use super::file::Packages;

/// 256 MiB of a program.
const PROGRAM_MAX: u64 = 256 << 20;
/// 1,000 entries of a package.
const ENTRIES_MAX: usize = 1000;

/// An architecture's name here, as `uname -m` has it there.
pub(crate) fn architecture(machine: &str) -> Option<&'static str> {
    match machine {
        "x86_64" | "amd64" => Some("amd64"),
        "aarch64" | "arm64" => Some("arm64"),
        "armv7l" | "armv6l" | "arm" => Some("arm"),
        _ => None,
    }
}

/// keadm for an architecture. One of a package is unpacked into `folder`, which nobody else writes to.
///
/// # Errors
/// When there is none.
pub(crate) fn keadm(packages: &Packages, architecture: &str, folder: &Path) -> Result<PathBuf> {
    if !packages.architectures.is_empty() && !packages.architectures.contains(architecture) {
        bail!("it is of {architecture}, which is not in keadm.archGroup");
    }
    let plain = [format!("linux-{architecture}"), architecture.to_owned()]
        .map(|part| packages.folder.join(part).join("keadm"));
    if let Some(found) = plain.iter().find(|path| path.is_file()) {
        return Ok(found.clone());
    }
    let Some(version) = &packages.version else {
        bail!(
            "there is no keadm for {architecture}: neither {} nor {}, and without keadm.keadmVersion no package is looked for",
            plain[0].display(),
            plain[1].display()
        );
    };
    if version.contains('/') || version.chars().any(char::is_control) {
        bail!("`keadm.keadmVersion` is no version");
    }
    let package =
        packages.folder.join(architecture).join(format!("keadm-{version}-linux-{architecture}.tar.gz"));
    if !package.is_file() {
        bail!(
            "there is no keadm for {architecture}: neither {}, {} nor {}",
            plain[0].display(),
            plain[1].display(),
            package.display()
        );
    }
    let unpacked = folder.join(architecture).join("keadm");
    if !unpacked.is_file() {
        unpack(&package, &unpacked).with_context(|| format!("cannot read {}", package.display()))?;
    }
    Ok(unpacked)
}

/// Takes the file `keadm` out of a package, and nothing else.
fn unpack(package: &Path, to: &Path) -> Result<()> {
    let mut archive = tar::Archive::new(GzDecoder::new(BufReader::new(File::open(package)?)));
    for entry in archive.entries()?.take(ENTRIES_MAX) {
        let entry = entry?;
        let is_keadm = entry.path()?.file_name().is_some_and(|name| name == "keadm");
        if !is_keadm || entry.header().entry_type() != EntryType::Regular {
            continue;
        }
        let folder = to.parent().context("no folder")?;
        std::fs::create_dir_all(folder)?;
        let mut program = tempfile::NamedTempFile::new_in(folder)?;
        let mut entry = entry.take(PROGRAM_MAX + 1);
        if std::io::copy(&mut entry, &mut program)? > PROGRAM_MAX {
            bail!("keadm in it has more than 256 MiB");
        }
        program.flush()?;
        program.as_file().set_permissions(std::fs::Permissions::from_mode(0o755))?;
        program.persist(to)?;
        return Ok(());
    }
    bail!("it has no file keadm among its first {ENTRIES_MAX}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(folder: &Path) -> Packages {
        Packages {
            folder: folder.to_owned(),
            version: Some("v1".to_owned()),
            architectures: Default::default(),
        }
    }

    #[test]
    fn keadm_is_found_in_each_layout() {
        let (folder, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let find = |architecture| keadm(&packages(folder.path()), architecture, scratch.path());
        assert!(find("amd64").unwrap_err().to_string().contains("keadm-v1-linux-amd64.tar.gz"));
        let plain = folder.path().join("linux-amd64");
        std::fs::create_dir(&plain).unwrap();
        std::fs::write(plain.join("keadm"), "x").unwrap();
        assert_eq!(find("amd64").unwrap(), plain.join("keadm"));
        // KubeEdge's package.
        std::fs::create_dir(folder.path().join("arm64")).unwrap();
        let file = File::create(folder.path().join("arm64/keadm-v1-linux-arm64.tar.gz")).unwrap();
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
        for (name, text) in
            [("keadm-v1-linux-arm64/version", "v1"), ("keadm-v1-linux-arm64/keadm/keadm", "program")]
        {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o755);
            header.set_cksum();
            tar.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
        let unpacked = find("arm64").unwrap();
        assert!(unpacked.starts_with(scratch.path()));
        assert_eq!(std::fs::read_to_string(unpacked).unwrap(), "program");
        let only = Packages { architectures: ["arm64".to_owned()].into(), ..packages(folder.path()) };
        assert!(keadm(&only, "amd64", scratch.path()).unwrap_err().to_string().contains("archGroup"));
    }

    #[test]
    fn architectures_are_named_as_kubernetes_names_them() {
        assert_eq!(
            [architecture("x86_64"), architecture("aarch64"), architecture("armv7l"), architecture("mips")],
            [Some("amd64"), Some("arm64"), Some("arm"), None]
        );
    }
}
