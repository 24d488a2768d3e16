//! Which machine this is, as a file beside the node's certificate remembers it from `keadm join` on: on a copy of that disk it is another's.
//!
//! What tells machines apart is written down as a hash, as systemd's `sd_id128_get_machine_app_specific` does: the ids themselves are nobody's
//! business. Clones of a virtual machine share `/etc/machine-id` and have product UUIDs of their own; files that were copied to a machine with a
//! system of its own find another id. So one that is known of both and is another is enough.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use config::edge::EdgeCore;

/// 4 KiB: more than what is written.
const FILE_MAX: u64 = 4 << 10;
/// Where a machine says who it is. Root alone reads the second; boards without firmware tables have the third.
const SOURCES: [(&str, &str); 3] = [
    ("machine-id", "etc/machine-id"),
    ("product-uuid", "sys/class/dmi/id/product_uuid"),
    ("serial-number", "proc/device-tree/serial-number"),
];
/// What firmware says that was never told its UUID.
const NO_UUID: &str = "03000200-0400-0500-0006-000700080009";

/// What tells a machine from others: hashes by their kinds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Machine(BTreeMap<String, String>);

impl Machine {
    /// This one.
    pub(crate) fn here() -> Machine {
        Machine::below(Path::new("/"))
    }

    fn below(root: &Path) -> Machine {
        let of = |(kind, path): (&str, &str)| {
            let text = fs::read(root.join(path)).ok()?;
            let text = String::from_utf8(text).ok()?.trim_matches(['\0', '\n', ' ']).to_lowercase();
            let says = |letter: char| letter.is_ascii_hexdigit() && letter != '0' && letter != 'f';
            let is_none = text == NO_UUID || text == "uninitialized" || !text.contains(says);
            (!is_none).then(|| (kind.to_owned(), pki::pin_of(format!("kubehive {kind} {text}").as_bytes())))
        };
        Machine(SOURCES.into_iter().filter_map(of).collect())
    }

    /// As it stands in the file.
    pub(crate) fn text(&self) -> String {
        self.0.iter().map(|(kind, hash)| format!("{kind} {hash}\n")).collect()
    }

    /// What the file says; nothing if there is none, or none of ours.
    pub(crate) fn noted(file: &Path) -> Machine {
        let is_ours =
            fs::symlink_metadata(file).is_ok_and(|found| found.is_file() && found.len() <= FILE_MAX);
        let text = if is_ours { fs::read_to_string(file).unwrap_or_default() } else { String::new() };
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        Machine(lines.map(|(kind, hash)| (kind.to_owned(), hash.to_owned())).collect())
    }

    /// By what this one is another than `noted`; `None`: by nothing that is known of both.
    pub(crate) fn differs(&self, noted: &Machine) -> Option<&str> {
        let other =
            |(kind, hash): &(&String, &String)| noted.0.get(*kind).is_some_and(|noted| noted != *hash);
        self.0.iter().find(other).map(|(kind, _)| kind.as_str())
    }
}

/// Where it is remembered: beside the certificate, so that who copies that copies this.
pub(crate) fn file(settings: &EdgeCore) -> PathBuf {
    let mut file = settings.modules.edge_hub.tls_cert_file.clone().into_os_string();
    file.push(".machine");
    file.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(id: &str, uuid: &str, serial: &str) -> Machine {
        let root = tempfile::tempdir().unwrap();
        for ((_, path), text) in
            SOURCES.into_iter().zip([id, uuid, serial]).filter(|(_, text)| !text.is_empty())
        {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Machine::below(root.path())
    }

    #[test]
    fn a_copy_of_the_files_and_a_clone_of_the_machine_are_others_and_the_machine_itself_is_not() {
        let (id, uuid) = ("8ab7d1e6c2f34b5e9d0c1a2b3c4d5e6f\n", "A1B2C3D4-1111-2222-3333-444455556666\n");
        let own = machine(id, uuid, "");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("server.crt.machine");
        fs::write(&file, own.text()).unwrap();
        let noted = Machine::noted(&file);
        assert!(noted == own && !own.text().contains("8ab7d1e6"), "{}", own.text());
        assert_eq!(machine(id, uuid, "").differs(&noted), None);
        assert_eq!(machine("1ab7d1e6\n", "", "").differs(&noted), Some("machine-id"));
        assert_eq!(machine(id, "B1B2C3D4\n", "").differs(&noted), Some("product-uuid"));
        // What only one of both says tells nothing, nor does what every machine of a maker says.
        for unknown in
            [machine("", "", ""), machine(id, NO_UUID, "10000000abcd\0"), machine("uninitialized\n", "", "")]
        {
            assert_eq!(unknown.differs(&noted), None, "{unknown:?}");
        }
        assert_eq!(
            machine("00000000\n", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "00000000\0"),
            Machine::default()
        );
        assert_eq!(own.differs(&Machine::noted(Path::new("/nowhere"))), None);
    }
}
