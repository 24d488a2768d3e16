//! Passwords, which stand in a Device or in a file of the mapper's.
//!
//! Whoever writes a Device also says which server the password goes to: so only files of the mapper's own folder are read for
//! it, and no other secret of the node leaves by that way.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

/// 4 KiB of a password.
const PASSWORD_MAX: u64 = 4 << 10;

/// A password, as a Device has it.
#[derive(Clone, PartialEq)]
pub enum Secret {
    /// The password, or as KubeEdge's mapper has it the name of a file with it.
    Given(String),
    /// A file with it.
    File(PathBuf),
}

impl fmt::Debug for Secret {
    /// Without it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Given(_) => f.write_str("Secret"),
            Secret::File(path) => write!(f, "Secret({})", path.display()),
        }
    }
}

impl Secret {
    /// Whether it may be where the Device says. What lies at its place is looked at when it is [revealed](Secret::reveal): that may be
    /// mended without another word about the Device.
    ///
    /// # Errors
    /// A sentence, when the Device names a file outside of `folder`.
    pub fn check_place(&self, folder: &Path) -> Result<(), String> {
        let path = match self {
            Secret::File(path) => path,
            Secret::Given(text) if Path::new(text).is_file() => Path::new(text),
            Secret::Given(_) => return Ok(()),
        };
        let climbs = path.components().any(|part| part == Component::ParentDir);
        if (path.starts_with(folder) && !climbs) || is_below(path, folder) {
            return Ok(());
        }
        Err(outside(path, folder))
    }

    /// The password itself. Of a file the end of its last line is none of it.
    ///
    /// # Errors
    /// A sentence, when the file is not in `folder`, or cannot be read.
    pub fn reveal(&self, folder: &Path) -> Result<String, String> {
        match self {
            Secret::File(path) => read(path, folder),
            Secret::Given(text) if Path::new(text).is_absolute() && Path::new(text).is_file() => {
                read(Path::new(text), folder)
            }
            Secret::Given(text) => Ok(text.clone()),
        }
    }
}

/// Whether the file is there, and in the folder, whatever links lead to either.
fn is_below(path: &Path, folder: &Path) -> bool {
    path.canonicalize().is_ok_and(|path| folder.canonicalize().is_ok_and(|folder| path.starts_with(folder)))
}

fn outside(path: &Path, folder: &Path) -> String {
    format!(
        "the password's file `{}` is not below `{}`: a password's file has to lie in that folder, and no other file of the node is read \
         for one",
        path.display(),
        folder.display()
    )
}

fn read(path: &Path, folder: &Path) -> Result<String, String> {
    let wrong = |reason: String| format!("the password's file `{}` {reason}", path.display());
    let real = path.canonicalize().map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if !is_below(&real, folder) {
        return Err(outside(path, folder));
    }
    let file = File::open(&real).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let mut text = String::new();
    file.take(PASSWORD_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| wrong(format!("is no text: {error}")))?;
    if text.len() as u64 > PASSWORD_MAX {
        return Err(wrong(format!("has more than {PASSWORD_MAX} bytes")));
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_a_text_or_a_file_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own");
        std::fs::create_dir(&own).unwrap();
        let path = own.join("password");
        std::fs::write(&path, "p w\r\n").unwrap();
        let given = Secret::Given(path.display().to_string());
        assert_eq!(Secret::File(path.clone()).reveal(&own).unwrap(), "p w");
        assert_eq!(given.reveal(&own).unwrap(), "p w", "as KubeEdge's mapper");
        assert_eq!(Secret::Given("plain".to_owned()).reveal(&own).unwrap(), "plain");
        std::fs::write(&path, vec![b'x'; 5000]).unwrap();
        assert!(Secret::File(path).reveal(&own).unwrap_err().contains("more than"));
        assert!(Secret::File(own.join("gone")).reveal(&own).unwrap_err().contains("cannot be read"));
        // Another secret of the node, and a link to it.
        let foreign = folder.path().join("token");
        std::fs::write(&foreign, "node's own").unwrap();
        std::os::unix::fs::symlink(&foreign, own.join("link")).unwrap();
        for path in [foreign.clone(), own.join("link")] {
            for secret in [Secret::File(path.clone()), Secret::Given(path.display().to_string())] {
                let refusal = secret.reveal(&own).unwrap_err();
                assert!(refusal.contains("is not below") && !refusal.contains("node's"), "{refusal}");
            }
        }
        assert!(!format!("{:?}", Secret::Given("hidden".to_owned())).contains("hidden"));
    }

    #[test]
    fn a_file_elsewhere_is_refused_by_its_place_and_one_that_is_not_there_yet_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own");
        std::fs::create_dir(&own).unwrap();
        std::os::unix::fs::symlink(&own, folder.path().join("same")).unwrap();
        std::fs::write(own.join("password"), "p").unwrap();
        let foreign = folder.path().join("token");
        std::fs::write(&foreign, "node's own").unwrap();
        let file = |path: &Path| Secret::File(path.to_owned());
        for good in [
            file(&own.join("later")),
            file(&folder.path().join("same/password")),
            Secret::Given("/no/file/but/a/password".to_owned()),
        ] {
            assert_eq!(good.check_place(&own), Ok(()), "{good:?}");
        }
        for bad in [
            file(&foreign),
            Secret::Given(foreign.display().to_string()),
            file(&own.join("../token")),
            file(Path::new("/nowhere/password")),
        ] {
            let refusal = bad.check_place(&own).unwrap_err();
            assert!(refusal.contains("has to lie in that folder") && !refusal.contains("move"), "{refusal}");
        }
    }
}
