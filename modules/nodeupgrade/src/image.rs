//! The programs in an image archive (OCI's layout in a tar, as `cargo dist`, `ctr images export`, `docker save` and `skopeo copy
//! oci-archive:` make it). Whoever made it may be hostile: nothing is unpacked by a name of the archive. Two names are looked for, and
//! what is found goes where the caller says; sizes are bounded before anything is read, and every part is held against its digest.
//! Entries are taken as they stand: no extension of theirs (long names, attributes), which could be of any length, is read.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use flate2::read::MultiGzDecoder;
use serde_json::Value;
use tar::{Archive, EntryType};

use crate::files;

/// 4,096 entries: an image has a handful of parts.
const PARTS_MAX: usize = 4096;
/// 128 layers: no runtime takes more.
pub(crate) const LAYERS_MAX: usize = 128;
/// 100,000 entries of all layers: more than a whole distribution has.
const ENTRIES_MAX: usize = 100_000;
/// 4 MiB of a document.
const DOCUMENT_MAX: u64 = 4 << 20;
/// 2 GiB of all layers, unpacked: eight programs of the largest size.
const UNPACKED_MAX: u64 = 2 << 30;
/// 2 GiB of an archive: what it holds packed is not more than what it is unpacked.
pub(crate) const ARCHIVE_MAX: u64 = UNPACKED_MAX;
/// So many architectures of an archive are named that has none for this machine.
const NAMED_MAX: usize = 16;
/// 256 MiB of a program: ten times what the largest has.
pub(crate) const PROGRAM_MAX: u64 = 256 << 20;
/// How deep indexes may lie in each other.
const INDEXES_MAX: usize = 4;
/// Where the installation package has its programs, as KubeEdge's.
const FOLDER: &str = "usr/local/bin";

/// An archive whose parts are known.
pub(crate) struct ImageArchive {
    path: PathBuf,
    file: File,
    /// Where each part begins and how long it is, by its name.
    parts: BTreeMap<String, (u64, u64)>,
    /// Which of them have their digest: each is summed once, however often it is named.
    checked: RefCell<BTreeSet<String>>,
}

/// An image within an archive.
#[derive(Debug)]
pub(crate) struct Image {
    /// By which registries know it: `sha256:` and hexadecimal digits. Of an archive of several architectures that of the index.
    pub(crate) digest: String,
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    digest: String,
    media_type: String,
}

impl ImageArchive {
    /// Reads which parts there are. It may have `most` bytes.
    ///
    /// # Errors
    /// When it is no archive, or one that no image has, or longer.
    pub(crate) fn open(path: &Path, most: u64) -> Result<ImageArchive> {
        let file = files::open_regular(path)?;
        if file.metadata().with_context(|| format!("cannot see {}", path.display()))?.len() > most {
            bail!("{} is longer than {most} bytes", path.display());
        }
        Self::of(file, path)
    }

    /// The same of a file that is open, and has been measured, from its begin. `path` is only what it is called.
    ///
    /// # Errors
    /// See [`ImageArchive::open`].
    pub(crate) fn of(mut file: File, path: &Path) -> Result<ImageArchive> {
        let at = || format!("cannot read the image archive {}", path.display());
        file.rewind().with_context(at)?;
        let length = file.metadata().with_context(at)?.len();
        let mut parts = BTreeMap::new();
        let mut archive = Archive::new(&file);
        for (number, entry) in archive.entries().with_context(at)?.raw(true).enumerate() {
            if number >= PARTS_MAX {
                bail!("{} has more than {PARTS_MAX} entries, which no image has", path.display());
            }
            let entry = entry.with_context(|| {
                format!("{} is no tar archive, or is cut off: fetch it again", path.display())
            })?;
            if entry.header().entry_type() != EntryType::Regular {
                continue;
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
            let (from, size) = (entry.raw_file_position(), entry.size());
            if from.checked_add(size).is_none_or(|end| end > length) {
                bail!("{} is cut off within {}: fetch it again", path.display(), name.escape_debug());
            }
            parts.insert(name, (from, size));
        }
        Ok(ImageArchive { path: path.to_owned(), file, parts, checked: RefCell::default() })
    }

    /// The one image in it, for this machine where there are several.
    ///
    /// # Errors
    /// When there is none for this machine, or several.
    pub(crate) fn image(&self) -> Result<Image> {
        let (digest, manifest) = self.manifest()?;
        let layers = manifest["layers"].as_array().context("the image's manifest has no layers")?;
        if layers.len() > LAYERS_MAX {
            bail!("{} has an image of more than {LAYERS_MAX} layers", self.path.display());
        }
        let layer = |layer: &Value| {
            Ok(Layer { digest: text(layer, "digest")?, media_type: text(layer, "mediaType")? })
        };
        Ok(Image { digest, layers: layers.iter().map(layer).collect::<Result<_>>()? })
    }

    /// The digest by which registries know the image, and its manifest.
    ///
    /// # Errors
    /// See [`ImageArchive::image`].
    pub(crate) fn manifest(&self) -> Result<(String, Value)> {
        let index = self.part("index.json").with_context(|| {
            format!(
                "{} is no image in OCI's layout: `skopeo copy docker-archive:FILE oci-archive:OTHER` makes one of Docker's older archives",
                self.path.display()
            )
        })?;
        let mut descriptor = self.here(&index)?;
        let digest = text(&descriptor, "digest")?;
        for _ in 0..INDEXES_MAX {
            let document = self.document(&text(&descriptor, "digest")?)?;
            if !document["manifests"].is_array() {
                return Ok((digest, document));
            }
            descriptor = self.here(&document)?;
        }
        bail!("the image's indexes lie in each other more than {INDEXES_MAX} times");
    }

    /// Of a list of manifests that for this machine; of one alone that one.
    fn here(&self, index: &Value) -> Result<Value> {
        let architecture = elf::architecture(elf::HERE.0).unwrap_or("of no known kind");
        let listed = index["manifests"].as_array().context("the image's index lists nothing")?;
        let fits = |one: &&Value| {
            let platform = &one["platform"];
            platform.is_null() || (platform["architecture"] == architecture && platform["os"] == "linux")
        };
        let mut fitting = listed.iter().filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(one), None) => Ok(one.clone()),
            (None, _) => {
                let there: Vec<String> = listed
                    .iter()
                    .filter_map(|one| one["platform"]["architecture"].as_str())
                    .map(|name| name.chars().take(NAMED_MAX).collect::<String>().escape_debug().to_string())
                    .take(NAMED_MAX)
                    .collect();
                bail!(
                    "{} has no image for this machine ({architecture}), but for {}: take that of {architecture}",
                    self.path.display(),
                    there.join(", ")
                )
            }
            (Some(_), Some(_)) => {
                bail!("{} has several images: make an archive of the one that is meant", self.path.display())
            }
        }
    }

    fn reader<'a>(&'a self, name: &str) -> Result<impl Read + use<'a>> {
        let (from, size) = *self
            .parts
            .get(name)
            .with_context(|| format!("{} has no {}", self.path.display(), name.escape_debug()))?;
        let mut file = &self.file;
        file.seek(SeekFrom::Start(from))?;
        Ok(file.take(size))
    }

    fn part(&self, name: &str) -> Result<Value> {
        serde_json::from_slice(&self.bytes(name)?)
            .with_context(|| format!("{} in {} is not JSON", name.escape_debug(), self.path.display()))
    }

    fn document(&self, digest: &str) -> Result<Value> {
        serde_json::from_slice(&self.blob(digest)?)
            .with_context(|| format!("{digest} in {} is not JSON", self.path.display()))
    }

    /// A small blob by its digest, which it has.
    ///
    /// # Errors
    /// When there is none of it, or it is damaged.
    pub(crate) fn blob(&self, digest: &str) -> Result<Vec<u8>> {
        let name = blob_name(digest)?;
        // Too long a one is refused before it is summed.
        let bytes = self.bytes(&name)?;
        self.check_read(&name, digest, &mut bytes.as_slice())?;
        Ok(bytes)
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader(name)?.take(DOCUMENT_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > DOCUMENT_MAX {
            // A part of it says something else than the whole.
            bail!("{} in {} is longer than {DOCUMENT_MAX} bytes", name.escape_debug(), self.path.display());
        }
        Ok(bytes)
    }

    fn check(&self, name: &str, digest: &str) -> Result<()> {
        self.check_read(name, digest, &mut self.reader(name)?)
    }

    fn check_read(&self, name: &str, digest: &str, part: &mut impl Read) -> Result<()> {
        if self.checked.borrow().contains(name) {
            return Ok(());
        }
        let (sum, _) = files::sum_of(part, u64::MAX)?;
        if digest.strip_prefix("sha256:") != Some(&sum) {
            bail!("{} is damaged: {name} does not have its digest. Fetch it again", self.path.display());
        }
        self.checked.borrow_mut().insert(name.to_owned());
        Ok(())
    }

    /// Writes the program `name` of the image into the file that `make` opens, and answers its SHA-256; `None`: it has none. `make` is
    /// called once for each layer that has it: the last one counts.
    ///
    /// # Errors
    /// When a layer is damaged or of a kind that is not read, or when all of them are larger than an image may be.
    pub(crate) fn program<W: std::io::Write>(
        &self,
        image: &Image,
        name: &str,
        mut make: impl FnMut() -> Result<W>,
    ) -> Result<Option<(String, W)>> {
        let (wanted, gone) = (format!("{FOLDER}/{name}"), format!("{FOLDER}/.wh.{name}"));
        let mut found = None;
        let (left, mut entries) = (Cell::new(UNPACKED_MAX), 0_usize);
        for layer in &image.layers {
            let part = blob_name(&layer.digest)?;
            self.check(&part, &layer.digest)?;
            let mut archive = Archive::new(Bounded { from: self.unpacked(&part, layer)?, left: &left });
            for entry in archive.entries()?.raw(true) {
                entries += 1;
                if entries > ENTRIES_MAX {
                    bail!("the layers of {} have more than {ENTRIES_MAX} entries", self.path.display());
                }
                let mut entry = entry
                    .with_context(|| format!("a layer of {} cannot be unpacked", self.path.display()))?;
                let path = entry.path_bytes().into_owned();
                let path = path.strip_prefix(b"./").or_else(|| path.strip_prefix(b"/")).unwrap_or(&path);
                if path == gone.as_bytes() {
                    found = None;
                } else if path == wanted.as_bytes() {
                    if entry.header().entry_type() != EntryType::Regular {
                        bail!("/{wanted} in {} is no file", self.path.display());
                    }
                    let mut into = make()?;
                    let (sum, _) = files::copy_and_sum(&mut entry, &mut into, PROGRAM_MAX)
                        .with_context(|| format!("/{wanted} in {}", self.path.display()))?;
                    found = Some((sum, into));
                }
            }
        }
        Ok(found)
    }

    fn unpacked<'a>(&'a self, part: &str, layer: &Layer) -> Result<Box<dyn Read + 'a>> {
        let mut first = [0; 4];
        let read = self.reader(part)?.read(&mut first)?;
        let packed = self.reader(part)?;
        Ok(match first.get(..read).unwrap_or_default() {
            [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(packed)),
            [0x28, 0xb5, 0x2f, 0xfd] => bail!(
                "a layer of {} is packed by zstd ({}), which is not read: `skopeo copy --dest-compress-format gzip` packs it anew",
                self.path.display(),
                layer.media_type.escape_debug()
            ),
            _ => Box::new(packed),
        })
    }
}

/// What is read through several of these has no more bytes in all than are left.
struct Bounded<'a, R> {
    from: R,
    left: &'a Cell<u64>,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        match self.left.get().checked_sub(read as u64) {
            Some(left) => self.left.set(left),
            None => return Err(io::Error::other(format!("it is longer than {UNPACKED_MAX} bytes"))),
        }
        Ok(read)
    }
}

/// Where a blob lies, by a digest that is one.
fn blob_name(digest: &str) -> Result<String> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Ok(format!("blobs/sha256/{hex}"))
        }
        _ => {
            bail!("`{}` is no digest of SHA-256", digest.chars().take(80).collect::<String>().escape_debug())
        }
    }
}

pub(crate) fn text(of: &Value, key: &str) -> Result<String> {
    Ok(of[key].as_str().with_context(|| format!("the image names no {key}"))?.to_owned())
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
