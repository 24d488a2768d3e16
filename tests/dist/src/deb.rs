//! The Debian package of the edge machine: `edgecore`, `keadm` and the unit, and nothing that happens by itself.
//!
//! Nothing in it is a setting: those are made by `keadm join`, so that there are no conffiles. It is deb(5) of format 2.0, which every dpkg
//! reads.

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use md5::{Digest as _, Md5};

use crate::archive::{self, Tree};
use crate::parts::OF_DEBIAN;
use crate::programs::Binary;
use crate::target::Target;

/// Its name.
pub const NAME: &str = "kubehive-edge";

const UNIT: &str = include_str!("../../../edge/deploy/edgecore.service");
const COPYRIGHT: &str = include_str!("../../../edge/deploy/debian/copyright");
/// What dpkg runs.
const SCRIPTS: [(&str, &str); 3] = [
    ("postinst", include_str!("../../../edge/deploy/debian/postinst")),
    ("postrm", include_str!("../../../edge/deploy/debian/postrm")),
    ("prerm", include_str!("../../../edge/deploy/debian/prerm")),
];
/// Where a unit file that was copied by hand finds its program, and where a package's does: `/usr/local` is the administrator's.
const BY_HAND: [&str; 2] = ["=/usr/local/bin/edgecore", "=-/usr/local/bin/keadm"];
const PACKAGED: [&str; 2] = ["=/usr/bin/edgecore", "=-/usr/bin/keadm"];

/// What a package says of itself.
#[derive(Debug, Clone)]
pub struct About {
    /// The workspace's version.
    pub version: String,
    /// The commit.
    pub revision: Option<String>,
    /// `Name <address>`.
    pub maintainer: String,
    /// Where the sources are.
    pub source: Option<String>,
    /// Seconds since 1970, of every file.
    pub time: u64,
}

impl About {
    /// As dpkg orders versions: one before a release (`0.2.0-rc.1`) comes before it.
    fn version(&self) -> String {
        self.version.replacen('-', "~", 1)
    }
}

/// The package's file name.
pub fn file_name(about: &About, target: Target) -> String {
    format!("{NAME}_{}_{}.deb", about.version(), target.debian)
}

/// The package of what `binaries` hold for `target`. `licenses`: the texts of what is linked into them, where that is known.
///
/// # Errors
/// When a program is missing, or the unit names another one.
pub fn package(
    binaries: &[Binary],
    target: Target,
    about: &About,
    licenses: Option<&[u8]>,
) -> Result<Vec<u8>> {
    let mut data = Tree::default();
    for name in OF_DEBIAN {
        let binary = binaries.iter().find(|binary| binary.program.name == name);
        let binary = binary.with_context(|| format!("{NAME} has no {name}"))?;
        data.add(&format!("usr/bin/{name}"), binary.bytes.clone(), 0o755)?;
    }
    let mut unit = UNIT.to_owned();
    for (by_hand, packaged) in BY_HAND.into_iter().zip(PACKAGED) {
        if unit.matches(by_hand).count() != 1 {
            bail!("edgecore.service does not name {by_hand} once");
        }
        unit = unit.replace(by_hand, packaged);
    }
    data.add("usr/lib/systemd/system/edgecore.service", unit, 0o644)?;
    data.add(&format!("usr/share/doc/{NAME}/copyright"), COPYRIGHT, 0o644)?;
    if let Some(licenses) = licenses {
        data.add(&format!("usr/share/doc/{NAME}/licenses.gz"), archive::gzip(licenses)?, 0o644)?;
    }
    let changelog = archive::gzip(changelog(about)?.as_bytes())?;
    data.add(&format!("usr/share/doc/{NAME}/changelog.gz"), changelog, 0o644)?;

    let mut control = Tree::default();
    control.add("control", fields(&data, target, about), 0o644)?;
    control.add("md5sums", sums(&data), 0o644)?;
    for (name, text) in SCRIPTS {
        control.add(name, text, 0o755)?;
    }
    let control = archive::gzip(&control.tar("./", about.time)?)?;
    let data = archive::gzip(&data.tar("./", about.time)?)?;
    let members: [(&str, &[u8]); 3] =
        [("debian-binary", b"2.0\n"), ("control.tar.gz", &control), ("data.tar.gz", &data)];
    archive::ar(&members, about.time)
}

fn fields(data: &Tree, target: Target, about: &About) -> String {
    // As dpkg-gencontrol counts: each file in whole KiB, each folder one.
    let folders: std::collections::BTreeSet<&str> =
        data.files().flat_map(|(path, _)| path.match_indices('/').map(|(at, _)| &path[..at])).collect();
    let size = data.files().map(|(_, bytes)| bytes.len().div_ceil(1024)).sum::<usize>() + folders.len() + 1;
    let homepage = about.source.as_ref().map(|source| format!("Homepage: {source}\n")).unwrap_or_default();
    format!(
        "Package: {NAME}\n\
         Version: {}\n\
         Architecture: {}\n\
         Maintainer: {}\n\
         Installed-Size: {size}\n\
         Recommends: containerd | containerd.io | cri-o, containernetworking-plugins, iptables\n\
         Section: admin\n\
         Priority: optional\n\
         {homepage}\
         Description: edge side of KubeHive\n \
         A node at the edge of a Kubernetes cluster: edgecore runs pods and keeps\n \
         twins of devices, with and without the cloud; keadm joins the machine to\n \
         a cluster.\n \
         .\n \
         Nothing is started by the installation: keadm join comes first.\n",
        about.version(),
        target.debian,
        about.maintainer,
    )
}

fn sums(data: &Tree) -> String {
    data.files().map(|(path, bytes)| format!("{}  {path}\n", hex::encode(Md5::digest(bytes)))).collect()
}

fn changelog(about: &About) -> Result<String> {
    let time = i64::try_from(about.time).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    let time = time.context("the time of the sources is none")?.to_zoned(TimeZone::UTC);
    let date = jiff::fmt::rfc2822::to_string(&time).context("the time of the sources")?;
    let commit = about.revision.as_ref().map(|commit| format!("  * Commit {commit}.\n")).unwrap_or_default();
    Ok(format!(
        "{NAME} ({}) unstable; urgency=medium\n\n  * CHANGELOG.md of the sources says what is new.\n{commit}\n -- {}  {date}\n",
        about.version(),
        about.maintainer,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::PROGRAMS;
    use crate::target::TARGETS;

    #[test]
    fn a_package_has_the_three_members_of_its_format() {
        let binaries: Vec<Binary> =
            PROGRAMS.iter().map(|program| Binary { program: *program, bytes: program.name.into() }).collect();
        let about = About {
            version: "0.2.0-rc.1".to_owned(),
            revision: None,
            maintainer: "A <a@example.com>".to_owned(),
            source: None,
            time: 1_700_000_000,
        };
        let bytes = package(&binaries, TARGETS[1], &about, Some(b"MIT")).unwrap();
        assert_eq!(&bytes[..8], b"!<arch>\n");
        assert_eq!(&bytes[8..21], b"debian-binary");
        assert_eq!(file_name(&about, TARGETS[1]), "kubehive-edge_0.2.0~rc.1_arm64.deb");
        let error = package(&binaries[..1], TARGETS[1], &about, None).unwrap_err().to_string();
        assert!(error.contains("edgecore"), "{error}");
        let changelog = changelog(&about).unwrap();
        assert!(
            changelog.contains("0.2.0~rc.1") && changelog.contains("Tue, 14 Nov 2023 22:13:20 +0000"),
            "{changelog}"
        );
    }
}
