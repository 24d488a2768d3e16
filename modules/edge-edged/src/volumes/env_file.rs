//! Variables from files that a container left in an emptyDir (`fileKeyRef`). A file holds lines `NAME='value'`.

use std::collections::BTreeMap;
use std::path::Path;

use super::{PreparedVolumes, VolumeLocation};
use crate::disk::beneath::Folder;
use crate::error::StepError;
use crate::pod::newer_fields::FileKey;
use crate::pod::parsed_pod::ParsedPod;
use crate::runtime::expansion::ArgumentSpace;

/// More of a file is not read. Linux takes no more of one variable than 128 KiB.
const FILE_MAX: u64 = 1 << 20;

/// What was found in the files; `None`: the file does not have it, which may be.
pub(crate) type EnvFiles = BTreeMap<FileKey, Option<String>>;

/// Reads what the variables of a container are set from. Blocks. A file that is not there, or not of this form, is an
/// error even where the variable is optional, as in the kubelet.
pub(crate) fn read_env_files(
    root: &Folder,
    pod: &ParsedPod,
    container: &str,
    prepared: &PreparedVolumes,
) -> Result<EnvFiles, StepError> {
    let (mut found, mut space) = (EnvFiles::new(), ArgumentSpace::new());
    // A file may be named by any number of variables, and is read once.
    let mut files: BTreeMap<(&str, &str), Option<EnvFile>> = BTreeMap::new();
    for key in pod.newer.file_keys_of(container) {
        let Some(VolumeLocation::Ours(at)) = prepared.get(&key.volume_name).map(|volume| &volume.at) else {
            let text = format!("cannot find the volume \"{}\" referenced by FileKeyRef", key.volume_name);
            return Err(StepError::Config(text));
        };
        let file = (key.volume_name.as_str(), key.path.as_str());
        let file = files.entry(file).or_insert_with(|| {
            // Whatever is wrong with the file is the container's that wrote it, and not to be shown to who reads the status.
            let read = root.below(at).and_then(|folder| folder.read(Path::new(&key.path), FILE_MAX));
            read.ok()
                .flatten()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .map(|text| EnvFile::parse(&text))
        });
        let value = file.as_ref().and_then(|file| file.value_of(&key.key).ok());
        let Some(value) = value else {
            return Err(StepError::Missing("couldn't parse env file".to_owned()));
        };
        let value = value.filter(|value| !value.is_empty());
        if value.is_none() && !key.optional {
            let (name, path) = (&key.key, root.shown().join(at).join(&key.path));
            let text =
                format!("environment variable key \"{name}\" not found in file \"{}\"", path.display());
            return Err(StepError::Missing(text));
        }
        space.take(value.as_ref().map_or(0, String::len))?;
        found.insert(key.clone(), value);
    }
    Ok(found)
}

/// The text is not of the form.
#[derive(Debug, PartialEq, Eq)]
struct Malformed;

/// What a file says.
struct EnvFile {
    /// Of each variable its first value.
    values: BTreeMap<String, String>,
    /// Whether all of it is of the form. What stands before the place where it is not counts.
    is_whole: bool,
}

impl EnvFile {
    fn parse(text: &str) -> EnvFile {
        let mut file = EnvFile { values: BTreeMap::new(), is_whole: true };
        let mut rest = text;
        while !rest.is_empty() {
            let Ok((variable, after)) = first_line(rest) else {
                file.is_whole = false;
                break;
            };
            if let Some((name, value)) = variable {
                file.values.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            }
            rest = after;
        }
        file
    }

    fn value_of(&self, wanted: &str) -> Result<Option<String>, Malformed> {
        match self.values.get(wanted) {
            None if !self.is_whole => Err(Malformed),
            value => Ok(value.cloned()),
        }
    }
}

/// Name and value of a variable; `None`: the line sets none.
type Variable<'a> = Option<(&'a str, &'a str)>;

/// The variable of the first line, and what is behind it.
fn first_line(rest: &str) -> Result<(Variable<'_>, &str), Malformed> {
    let blank = [' ', '\t'];
    let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
    let start = line.trim_start_matches(blank);
    if start.trim_end_matches('\r').is_empty() || start.starts_with('#') {
        return Ok((None, after));
    }
    let (name, value) = start.split_once('=').ok_or(Malformed)?;
    if name.is_empty() || name.ends_with(blank) {
        return Err(Malformed);
    }
    if value.starts_with(blank) {
        // As a shell has it: the variable is empty, and the rest of the line another word.
        return Ok((Some((name, "")), after));
    }
    let opened = value.strip_prefix('\'').ok_or(Malformed)?;
    // A value may go over several lines.
    let opened = &rest[line.len() - opened.len()..];
    let (value, behind) = opened.split_once('\'').ok_or(Malformed)?;
    let (left, after) = behind.split_once('\n').unwrap_or((behind, ""));
    let left = left.trim_start_matches(blank).trim_end_matches('\r');
    if !left.is_empty() && !left.starts_with('#') {
        return Err(Malformed);
    }
    Ok((Some((name, value)), after))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::super::Volume;
    use super::*;
    use crate::pod::parsed_pod::tests::pod;

    #[test]
    fn a_file_is_read_as_the_kubelet_reads_it() {
        let text = "# comment\n\n  A='one' # why\nB='two\nlines'\nEMPTY= 'x'\nC='#$(A)'\nLAST=''";
        for (name, value) in [
            ("A", Some("one")),
            ("B", Some("two\nlines")),
            ("EMPTY", Some("")),
            ("C", Some("#$(A)")),
            ("LAST", Some("")),
            ("NONE", None),
            ("lines'", None),
        ] {
            assert_eq!(EnvFile::parse(text).value_of(name), Ok(value.map(str::to_owned)), "{name}");
        }
        for bad in ["A", "='x'", "A ='x'", "A=x", "A=\"x\"", "A='x", "A='x' y", "\u{1}\nA='x'"] {
            assert_eq!(EnvFile::parse(bad).value_of("Z"), Err(Malformed), "{bad}");
        }
        // What comes first is not spoilt by what comes later.
        assert_eq!(EnvFile::parse("A='x'\nB").value_of("A"), Ok(Some("x".to_owned())));
    }

    #[test]
    fn what_a_container_left_decides() {
        let dir = tempfile::tempdir().unwrap();
        let read = |optional: bool, key: &str| {
            let file = json!({"volumeName": "v", "path": "a/env", "key": key, "optional": optional});
            let pod = pod(json!({"containers": [{"name": "c", "image": "x",
                "env": [{"name": "A", "valueFrom": {"fileKeyRef": file}}]}]}));
            let volume = Volume { at: VolumeLocation::Ours("v".into()), read_only: false };
            let prepared = PreparedVolumes::from([("v".to_owned(), volume)]);
            let found = read_env_files(&Folder::root(dir.path()).unwrap(), &pod, "c", &prepared)?;
            Ok(found.into_values().next().unwrap())
        };
        fs::create_dir_all(dir.path().join("v/a")).unwrap();
        let unreadable = Err(StepError::Missing("couldn't parse env file".to_owned()));
        assert_eq!(read(true, "K"), unreadable, "also where it is optional");
        fs::write(dir.path().join("v/a/env"), "K='1'\n").unwrap();
        assert_eq!(read(false, "K"), Ok(Some("1".to_owned())));
        assert_eq!(read(true, "Z"), Ok(None));
        let error = read(false, "Z").unwrap_err().to_string();
        assert!(error.starts_with("environment variable key \"Z\" not found in file \"/"), "{error}");
        fs::remove_file(dir.path().join("v/a/env")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("v/a/env")).unwrap();
        assert_eq!(read(false, "root"), unreadable);
    }
}
