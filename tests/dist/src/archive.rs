//! Archives that are the same bytes wherever and whenever they are made: entries in order of their names, owner 0, one time for
//! all, modes that are given and not found, gzip without a name or a time.

use std::collections::BTreeMap;
use std::io::Write as _;

use anyhow::{Context as _, Result, bail};
use flate2::{Compression, GzBuilder};

/// Files and folders of an archive by their paths, relative and without `./`; the folders above them need not be named.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    files: BTreeMap<String, (Vec<u8>, u32)>,
}

impl Tree {
    /// Adds a file with its mode.
    ///
    /// # Errors
    /// When the path is absolute, leads upwards, or is there already.
    pub fn add(&mut self, path: &str, bytes: impl Into<Vec<u8>>, mode: u32) -> Result<()> {
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            bail!("`{path}` is no path within an archive");
        }
        if self.files.insert(path.to_owned(), (bytes.into(), mode)).is_some() {
            bail!("`{path}` is in the archive twice");
        }
        Ok(())
    }

    /// The files in order of their paths.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(path, (bytes, _))| (path.as_str(), bytes.as_slice()))
    }

    /// As a tar archive. `begins` stands before each path: nothing, or `./` as Debian has it (then the root is an entry, too).
    /// `time`: seconds since 1970, of every entry.
    ///
    /// # Errors
    /// When a path is too long for the format.
    pub fn tar(&self, begins: &str, time: u64) -> Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut folders: Vec<String> = Vec::new();
        let mut entry = |kind, path: &str, bytes: &[u8], mode| {
            let header = header(kind, path, bytes.len() as u64, mode, time)?;
            archive.append(&header, bytes).with_context(|| format!("add {path} to an archive"))
        };
        if !begins.is_empty() {
            entry(tar::EntryType::Directory, begins, &[], 0o755)?;
        }
        for (path, (bytes, mode)) in &self.files {
            for (at, _) in path.match_indices('/') {
                let folder = format!("{begins}{}", &path[..=at]);
                if !folders.contains(&folder) {
                    entry(tar::EntryType::Directory, &folder, &[], 0o755)?;
                    folders.push(folder);
                }
            }
            entry(tar::EntryType::Regular, &format!("{begins}{path}"), bytes, *mode)?;
        }
        archive.into_inner().context("finish an archive")
    }
}

/// `path` as it is: the library would leave a `./` out.
fn header(kind: tar::EntryType, path: &str, size: u64, mode: u32, time: u64) -> Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    let name = header.as_gnu_mut().and_then(|header| header.name.get_mut(..path.len()));
    name.with_context(|| format!("`{path}` is longer than 100 bytes"))?.copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(time);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    Ok(header)
}

/// Compressed by gzip.
///
/// # Errors
/// None that a vector can have.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    // 255: of no known system.
    let mut writer = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    writer.write_all(bytes).context("compress")?;
    writer.finish().context("compress")
}

/// A file of ar(5), as Debian's packages are.
///
/// # Errors
/// When a name or a size is too long for the format.
pub fn ar(members: &[(&str, &[u8])], time: u64) -> Result<Vec<u8>> {
    let mut archive = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        let head = format!("{name:<16}{time:<12}{:<6}{:<6}{:<8o}{:<10}`\n", 0, 0, 0o100_644, bytes.len());
        if head.len() != 60 {
            bail!("`{name}` does not fit into an ar archive");
        }
        archive.extend(head.as_bytes());
        archive.extend(*bytes);
        if bytes.len() % 2 == 1 {
            archive.push(b'\n');
        }
    }
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_adding_changes_nothing() {
        let (mut one, mut other) = (Tree::default(), Tree::default());
        for (path, mode) in [("usr/bin/b", 0o755), ("etc/a", 0o644), ("usr/bin/a", 0o755)] {
            one.add(path, path, mode).unwrap();
        }
        for (path, mode) in [("usr/bin/a", 0o755), ("usr/bin/b", 0o755), ("etc/a", 0o644)] {
            other.add(path, path, mode).unwrap();
        }
        let bytes = one.tar("./", 77).unwrap();
        assert_eq!(bytes, other.tar("./", 77).unwrap());
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries: Vec<(String, u64, u32)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
                let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
                (path, header.mtime().unwrap(), header.mode().unwrap())
            })
            .collect();
        let wanted = [
            ("./", 0o755),
            ("./etc/", 0o755),
            ("./etc/a", 0o644),
            ("./usr/", 0o755),
            ("./usr/bin/", 0o755),
            ("./usr/bin/a", 0o755),
            ("./usr/bin/b", 0o755),
        ];
        assert_eq!(entries, wanted.map(|(path, mode)| (path.to_owned(), 77, mode)));
    }

    #[test]
    fn no_path_leads_out_of_an_archive() {
        let mut tree = Tree::default();
        for path in ["/etc/passwd", "../a", "a/../b", "a//b", "./a", "", "a/"] {
            assert!(tree.add(path, "", 0o644).is_err(), "{path}");
        }
        tree.add("a", "", 0o644).unwrap();
        assert!(tree.add("a", "", 0o644).is_err());
    }

    #[test]
    fn what_is_compressed_names_no_time_and_comes_back() {
        let bytes = gzip(b"the same").unwrap();
        // RFC 1952: MTIME, and OS.
        assert_eq!((&bytes[4..8], bytes[9]), (&[0; 4][..], 255));
        let mut back = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes.as_slice()), &mut back).unwrap();
        assert_eq!(back, b"the same");
    }

    #[test]
    fn members_of_ar_begin_at_even_places() {
        let bytes = ar(&[("odd", b"abc"), ("even", b"de")], 9).unwrap();
        assert_eq!(bytes.len(), 8 + 60 + 4 + 60 + 2);
        assert_eq!(&bytes[72..76], b"even");
        assert!(ar(&[("a name of more than 16", b"")], 9).is_err());
    }
}
