//! The files of a volume, and what of an object becomes one. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath};

use crate::error::StepError;
use crate::pod::parsed_pod::ParsedPod;
use crate::runtime::fields::{FieldValues, field_value, resource_value};

/// Kubernetes' default for files from objects.
pub(super) const MODE: i32 = 0o644;

/// More files and folders than the largest objects have entries that make sense, of all volumes of a pod together. Each is an inode of
/// the node: in memory it takes about 4 KiB with its page, so all of them 40 MiB.
pub(super) const ENTRIES_MAX: usize = 10_000;
/// The inodes of a volume in memory: while it is written it holds its files as they were and as they will be, and a link to each; the
/// rest is for its own folders and the places where other volumes are mounted in it. It may be written anew with as much as a pod may
/// have, so that what it holds first is no bound.
pub(super) const INODES_MAX: u64 = 5 * ENTRIES_MAX as u64;
/// More folders one below the other than make sense: each takes a look-up at every access.
const DEPTH_MAX: usize = 64;
/// 32 MiB: as much as thirty of the largest objects.
pub(super) const BYTES_MAX: usize = 32 << 20;
/// Kubernetes' bound of a key.
const KEY_MAX: usize = 253;
/// Linux' bound of a name.
const NAME_MAX: usize = 255;

/// One file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
    /// Whose it is, when not root's.
    pub(crate) owner: Option<u32>,
}

/// All files of a volume by their path inside it.
pub(crate) type Payload = BTreeMap<String, File>;

/// What the volumes of one pod may still hold of objects: an entry may be in any number of files.
#[derive(Debug)]
pub(crate) struct ObjectSpace {
    bytes: usize,
    entries: usize,
}

impl ObjectSpace {
    /// Of a pod that has none yet.
    pub(crate) fn new() -> Self {
        ObjectSpace { bytes: BYTES_MAX, entries: ENTRIES_MAX }
    }

    /// Takes the room of the places in a volume where others are mounted, which are folders as well.
    ///
    /// # Errors
    /// There are too many, or one lies too deep.
    pub(super) fn take_places(&mut self, places: &BTreeSet<PathBuf>) -> Result<(), StepError> {
        for place in places {
            let folders = place.components().count();
            if folders > DEPTH_MAX {
                return Err(too_deep(&place.display().to_string()));
            }
            self.take_entries(folders)?;
        }
        Ok(())
    }

    fn take_entries(&mut self, entries: usize) -> Result<(), StepError> {
        let Some(left) = self.entries.checked_sub(entries) else {
            let text = format!(
                "the pod's volumes hold more than {ENTRIES_MAX} files and folders of config maps, Secrets and the like"
            );
            return Err(StepError::Config(text));
        };
        self.entries = left;
        Ok(())
    }
}

/// A volume's files as they are put together.
#[derive(Debug)]
pub(super) struct PayloadBuilder<'a> {
    files: Payload,
    /// That the files lie in, each with those above it.
    folders: BTreeSet<String>,
    space: &'a mut ObjectSpace,
}

impl<'a> PayloadBuilder<'a> {
    pub(super) fn new(space: &'a mut ObjectSpace) -> Self {
        PayloadBuilder { files: Payload::new(), folders: BTreeSet::new(), space }
    }

    /// Copies a file in; of two for one path the later one counts.
    ///
    /// # Errors
    /// There are too many files, folders or bytes.
    pub(super) fn insert(
        &mut self,
        path: String,
        bytes: &[u8],
        mode: u32,
        owner: Option<u32>,
    ) -> Result<(), StepError> {
        let above = Path::new(&path).ancestors().skip(1).filter_map(Path::to_str);
        // Whoever knows a folder knows those above it.
        let folders: Vec<String> = above
            .take_while(|above| !above.is_empty() && !self.folders.contains(*above))
            .map(str::to_owned)
            .collect();
        let entries = folders.len() + usize::from(!self.files.contains_key(&path));
        self.space.take_entries(entries)?;
        self.folders.extend(folders);
        let Some(left) = self.space.bytes.checked_sub(bytes.len()) else {
            let most = BYTES_MAX >> 20;
            let text =
                format!("the pod's volumes hold more than {most} MiB of config maps, Secrets and the like");
            return Err(StepError::Config(text));
        };
        self.space.bytes = left;
        self.files.insert(path, File { bytes: bytes.to_vec(), mode, owner });
        Ok(())
    }

    pub(super) fn finish(self) -> Payload {
        self.files
    }
}

fn too_deep(path: &str) -> StepError {
    StepError::Config(format!("{:?} has more than {DEPTH_MAX} folders one below the other", shown(path)))
}

pub(super) fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

pub(super) fn from_downward<'a>(
    pod: &ParsedPod,
    items: impl Iterator<Item = &'a DownwardAPIVolumeFile>,
    mode: i32,
    facts: &FieldValues,
    into: &mut PayloadBuilder<'_>,
) -> Result<(), StepError> {
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => field_value(pod, field, facts)?,
            (None, Some(resource)) => resource_value(pod, None, resource, facts)?,
            (None, None) => {
                return Err(StepError::Config(format!("downwardAPI item `{}` names no source", item.path)));
            }
        };
        let mode = mode_bits(item.mode.unwrap_or(mode));
        into.insert(inside(&item.path)?, text.as_bytes(), mode, None)?;
    }
    Ok(())
}

/// What kind of object files are made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SourceKind {
    ConfigMap,
    Secret,
}

impl SourceKind {
    fn name(self) -> &'static str {
        match self {
            SourceKind::ConfigMap => "ConfigMap",
            SourceKind::Secret => "Secret",
        }
    }

    /// The kubelet's words for a key that is not there.
    fn without_key(self, key: &str) -> String {
        match self {
            SourceKind::ConfigMap => format!("configmap references non-existent config key: {key}"),
            SourceKind::Secret => format!("references non-existent secret key: {key}"),
        }
    }
}

/// The object that files are made from, and how.
pub(super) struct Source<'a> {
    pub(super) kind: SourceKind,
    pub(super) name: &'a str,
    pub(super) optional: bool,
    pub(super) mode: i32,
}

/// All entries under their keys, or the chosen ones under their paths.
pub(super) fn select(
    entries: &BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    source: &Source<'_>,
    into: &mut PayloadBuilder<'_>,
) -> Result<(), StepError> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        for (key, bytes) in entries {
            into.insert(key_of(key, source)?, bytes, mode_bits(source.mode), None)?;
        }
        return Ok(());
    };
    for item in items {
        match entries.get(&item.key) {
            Some(bytes) => {
                let mode = mode_bits(item.mode.unwrap_or(source.mode));
                into.insert(inside(&item.path)?, bytes, mode, None)?;
            }
            None if source.optional => {}
            None => return Err(StepError::Missing(source.kind.without_key(&item.key))),
        }
    }
    Ok(())
}

pub(super) fn mode_bits(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(0o644) & 0o777
}

/// A key that is fit to be a file's name, as the API server has it: anything else comes from a cloud that is not one.
fn key_of(key: &str, source: &Source<'_>) -> Result<String, StepError> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if key.is_empty() || key.len() > KEY_MAX || key.starts_with("..") || key == "." || !key.bytes().all(fits)
    {
        let (kind, name, key) = (source.kind.name(), source.name, shown(key));
        return Err(StepError::Config(format!(
            "{kind} {name} has the key {key:?}, which is no name of a file"
        )));
    }
    Ok(key.to_owned())
}

/// A path that stays inside its volume and does not look like our own bookkeeping (`..data`). Answered in its plain
/// form, so that two spellings of one file are one.
pub(super) fn inside(path: &str) -> Result<String, StepError> {
    let plain = |part: Component<'_>| match part {
        Component::Normal(name) => name.len() <= NAME_MAX,
        Component::CurDir | Component::ParentDir | Component::RootDir | Component::Prefix(_) => false,
    };
    let normal = Path::new(path).components().all(plain);
    if Path::new(path).components().count() > DEPTH_MAX {
        return Err(too_deep(path));
    }
    if path.is_empty() || path.len() > 4096 || !normal || path.starts_with("..") || path.contains('\0') {
        return Err(StepError::Config(format!("{:?} is no path inside a volume", shown(path))));
    }
    Ok(Path::new(path).components().collect::<std::path::PathBuf>().display().to_string())
}
