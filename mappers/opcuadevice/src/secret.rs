//! Passwords, which stand in a Device or in a file of the mapper's.
//!
//! Whoever writes a Device also says which server the password goes to: so only files of the mapper's own folder are read for
//! it, and no other secret of the node leaves by that way.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

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
    /// The password itself. Of a file the end of its last line is none of it.
    ///
    /// # Errors
    /// A sentence, when the file is not in `folder`, or cannot be read.
    pub(crate) fn reveal(&self, folder: &Path) -> Result<String, String> {
        match self {
            Secret::File(path) => read(path, folder),
            Secret::Given(text) if Path::new(text).is_absolute() && Path::new(text).is_file() => {
                read(Path::new(text), folder)
            }
            Secret::Given(text) => Ok(text.clone()),
        }
    }
}

fn read(path: &Path, folder: &Path) -> Result<String, String> {
    let wrong = |reason: String| format!("the password's file `{}` {reason}", path.display());
    let real = path.canonicalize().map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if !folder.canonicalize().is_ok_and(|folder| real.starts_with(folder)) {
        return Err(wrong(format!(
            "is not below `{}`, from where alone passwords are read; move it there",
            folder.display()
        )));
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
        for path in [foreign, own.join("link")] {
            for secret in [Secret::File(path.clone()), Secret::Given(path.display().to_string())] {
                let refusal = secret.reveal(&own).unwrap_err();
                assert!(refusal.contains("is not below") && !refusal.contains("node's"), "{refusal}");
            }
        }
        assert!(!format!("{:?}", Secret::Given("hidden".to_owned())).contains("hidden"));
    }
}
