//! The folder of a stream's files: how they are called, how many stay, and that none lies elsewhere. It blocks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use apimachinery::NamespacedName;

use crate::stream::plan::StreamPlan;

/// 256 MiB: a film ends there, however many frames it was to have.
const FILM_MAX: u64 = 256 << 20;
/// 150 letters of a device's and a property's names are in those of its files.
const NAMES_MAX: usize = 150;
/// What a film is called while it is written.
const UNFINISHED: &str = ".part";

/// The files of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Album {
    folder: PathBuf,
    /// What the names of all of them end with.
    ending: String,
    keep: usize,
}

/// A film that is being saved. One that is dropped is removed.
#[derive(Debug)]
pub(crate) struct Film {
    file: File,
    unfinished: PathBuf,
    path: PathBuf,
    written: u64,
}

impl Album {
    /// Makes the folder, and removes what an earlier run of the mapper has not finished.
    ///
    /// # Errors
    /// A sentence: the folder is not below `root`, there is no `root`, or it cannot be made.
    pub(crate) fn open(
        root: Option<&Path>,
        plan: &StreamPlan,
        device: &NamespacedName,
        property: &str,
    ) -> Result<Self, String> {
        let root = root.ok_or(
            "this mapper saves no streams; name the folder below which it may, as `common.stream_dir` in its file",
        )?;
        let shown = plan.folder.display();
        let elsewhere =
            || format!("`outputDir` is {shown}, which is not below `common.stream_dir`, {}", root.display());
        let below = if plan.folder.is_absolute() {
            plan.folder.strip_prefix(root).map_err(|_| elsewhere())?
        } else {
            plan.folder.as_path()
        };
        if !below.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(elsewhere());
        }
        let failed = |error: io::Error| format!("cannot use `outputDir` {shown}: {error}");
        let folder = root.join(below);
        fs::create_dir_all(&folder).map_err(failed)?;
        // A link in the folder leads where nobody has allowed.
        let folder = folder.canonicalize().map_err(failed)?;
        if !folder.starts_with(root.canonicalize().map_err(failed)?) {
            return Err(elsewhere());
        }
        let names = format!("{}.{}.{property}", device.namespace, device.name);
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        let names = names.chars().take(NAMES_MAX).map(|letter| if is_plain(letter) { letter } else { '_' });
        let ending = format!("-{}.{}", names.collect::<String>(), plan.format);
        let album = Album { folder, ending, keep: plan.keep };
        for left in album.names(&format!("{}{UNFINISHED}", album.ending)).map_err(failed)? {
            fs::remove_file(album.folder.join(left)).map_err(failed)?;
        }
        Ok(album)
    }

    /// Saves a picture, and removes what is too much.
    pub(crate) fn save(&self, at: SystemTime, bytes: &[u8]) -> io::Result<PathBuf> {
        let mut film = self.begin(at)?;
        film.add(bytes)?;
        self.finish(film)
    }

    /// Begins a film.
    pub(crate) fn begin(&self, at: SystemTime) -> io::Result<Film> {
        // As KubeEdge's framework calls them, and whose they are.
        let at = jiff::Timestamp::try_from(at).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S%.9fZ");
        let path = self.folder.join(format!("f{at}{}", self.ending));
        let mut unfinished = path.clone().into_os_string();
        unfinished.push(UNFINISHED);
        let unfinished = PathBuf::from(unfinished);
        let mut options = OpenOptions::new();
        // Nothing that is there is written to, and no link is followed.
        let file = options.write(true).create_new(true).mode(0o640).open(&unfinished)?;
        Ok(Film { file, unfinished, path, written: 0 })
    }

    /// Gives a film its name, and removes what is too much.
    pub(crate) fn finish(&self, film: Film) -> io::Result<PathBuf> {
        film.file.sync_data()?;
        fs::rename(&film.unfinished, &film.path)?;
        let path = film.path.clone();
        let mut names = self.names(&self.ending)?;
        names.sort();
        let too_many = names.len().saturating_sub(self.keep);
        for name in names.iter().take(too_many) {
            fs::remove_file(self.folder.join(name))?;
        }
        Ok(path)
    }

    /// The names of files that are called as this stream's.
    fn names(&self, ending: &str) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            if let Ok(name) = entry?.file_name().into_string()
                && name.starts_with('f')
                && name.ends_with(ending)
            {
                found.push(name);
            }
        }
        Ok(found)
    }
}

impl Film {
    /// Whether there is room for another frame.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> io::Result<bool> {
        self.file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(self.written < FILM_MAX)
    }
}

impl Drop for Film {
    fn drop(&mut self) {
        // A finished one is not there under this name.
        if let Err(error) = fs::remove_file(&self.unfinished)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(file = %self.unfinished.display(), %error, "an unfinished film was left");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use crate::{Scalar, stream};
    use std::time::{Duration, UNIX_EPOCH};

    fn plan(folder: &str, keep: i64) -> StreamPlan {
        let text = |text: &str| Scalar::Text(text.to_owned());
        let pairs = [("format", text("jpg")), ("outputDir", text(folder)), ("keep", Scalar::Int(keep))];
        stream::StreamPlan::read("saveFrame", &Settings::from_pairs(pairs)).unwrap()
    }

    fn open(root: &Path, folder: &str, property: &str, keep: i64) -> Result<Album, String> {
        Album::open(Some(root), &plan(folder, keep), &NamespacedName::new("default", "door"), property)
    }

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    #[test]
    fn the_newest_files_of_a_stream_stay_and_others_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let (album, other) =
            (open(root.path(), "hall", "a", 2).unwrap(), open(root.path(), "hall", "b/../c", 2).unwrap());
        let own = root.path().join("hall/notes.txt");
        fs::write(&own, "mine").unwrap();
        other.save(at(0), b"other").unwrap();
        let saved: Vec<PathBuf> =
            (1..=3).map(|second| album.save(at(second), &[u8::try_from(second).unwrap()]).unwrap()).collect();
        assert!(saved[0].ends_with("hall/f1970-01-01T00:00:01.000000000Z-default.door.a.jpg"));
        assert!(
            !saved[0].exists() && fs::read(&saved[1]).unwrap() == [2] && fs::read(&saved[2]).unwrap() == [3]
        );
        assert!(own.exists());
        assert_eq!(fs::read_dir(root.path().join("hall")).unwrap().count(), 4);
    }

    #[test]
    fn nothing_is_saved_elsewhere_and_nothing_there_is_written_to() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
        for folder in ["/etc", "../x", "a/../../x", "link", "link/deeper"] {
            let refusal = open(root.path(), folder, "a", 2).unwrap_err();
            assert!(refusal.contains("`common.stream_dir`"), "{folder}: {refusal}");
        }
        assert!(Album::open(None, &plan("a", 1), &NamespacedName::new("n", "d"), "p").is_err());
        let album = open(root.path(), root.path().join("a").to_str().unwrap(), "a", 2).unwrap();
        let target = outside.path().join("target");
        let name = "f1970-01-01T00:00:01.000000000Z-default.door.a.jpg.part";
        std::os::unix::fs::symlink(&target, album.folder.join(name)).unwrap();
        assert_eq!(album.save(at(1), b"x").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(!target.exists());
    }

    #[test]
    fn a_film_that_was_not_finished_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let album = open(root.path(), ".", "a", 2).unwrap();
        let mut film = album.begin(at(1)).unwrap();
        assert!(film.add(b"one").unwrap());
        drop(film);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        fs::write(album.folder.join(format!("f1{}{UNFINISHED}", album.ending)), "cut").unwrap();
        open(root.path(), ".", "a", 2).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
