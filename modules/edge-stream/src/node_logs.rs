//! `/logs/`: what the node's own services wrote below /var/log. No link is followed.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::answer::{Body, Reply};
use crate::beneath::Folder;
use crate::error::Refusal;

/// Looks at a path below `root`. Blocks.
pub(crate) fn look(root: &Path, path: &[String], is_folder: bool) -> io::Result<Result<Reply, Refusal>> {
    let at: PathBuf = path.iter().collect();
    let root = Folder::root(root)?;
    let kind = match root.stat(&at) {
        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
        Err(_) => return Ok(Err(Refusal::missing("404 page not found\n"))),
    };
    match kind {
        FileType::Directory if !is_folder => {
            let last = path.last().cloned().unwrap_or_default();
            Ok(Err(Refusal::new(301, "").with("location", format!("{}/", escaped_path(&last)))))
        }
        FileType::Directory => Ok(Ok(index(&root.below(&at)?)?)),
        FileType::RegularFile if !is_folder => {
            let plain = root.file(&at)?;
            let length = plain.file.metadata()?.len();
            let reply = Reply::text("").with("content-length", length.to_string());
            Ok(Ok(Reply { body: Body::Content(plain.file, length), ..reply }))
        }
        // A link, a device, a FIFO; or a file that is asked for as a folder.
        _ => Ok(Err(Refusal::missing("404 page not found\n"))),
    }
}

/// A folder's page, as Go's file server writes it.
fn index(folder: &Folder) -> io::Result<Reply> {
    let mut page =
        String::from("<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n");
    for entry in folder.entries()? {
        let name = entry.name.to_string_lossy();
        let slash = if entry.kind == FileType::Directory { "/" } else { "" };
        let (link, shown) = (escaped_path(&name), escaped_html(&name));
        page.push_str(&format!("<a href=\"{link}{slash}\">{shown}{slash}</a>\n"));
    }
    page.push_str("</pre>\n");
    Ok(Reply::new("text/html; charset=utf-8", page))
}

fn escaped_path(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn escaped_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_folders_below_are_shown_and_links_are_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pods")).unwrap();
        std::fs::write(dir.path().join("a<b.log"), "words").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        let look = |path: &str, is_folder: bool| {
            let path: Vec<String> =
                path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
            look(dir.path(), &path, is_folder).unwrap()
        };
        let Body::Whole(page) = look("", true).unwrap().body else { panic!("no page") };
        let page = String::from_utf8(page).unwrap();
        assert!(page.contains("<a href=\"a%3Cb%2Elog\">a&lt;b.log</a>\n<a href=\"link\">link</a>\n<a href=\"pods/\">pods/</a>"), "{page}");
        let file = look("a<b.log", false).unwrap();
        assert!(matches!(file.body, Body::Content(_, 5)));
        for path in ["link", "../etc/passwd", "none", "a<b.log/x"] {
            assert_eq!(look(path, false).unwrap_err().status, 404, "{path}");
        }
        assert_eq!(look("pods", false).unwrap_err().headers[0].1, "pods/");
    }
}
