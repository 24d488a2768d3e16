//! What the releaser asks for.

use std::path::PathBuf;

use clap::Parser;

use crate::target::Target;

/// A name's part in an image's repository (the grammar of OCI's distribution specification, without runs of separators).
const SEPARATORS: [char; 3] = ['.', '_', '-'];
/// A tag's length.
const TAG_MAX: usize = 128;
/// A repository's name with everything before it.
const REPOSITORY_MAX: usize = 200;

/// Makes a release in target/dist: programs, images, a Debian package, bills of materials, sums and where all comes from.
#[derive(Debug, Clone, Parser)]
#[command(name = "cargo dist")]
pub struct Order {
    /// For which machines, in Rust's names; this machine's kind if none is given
    #[arg(long = "target", value_name = "TRIPLE", value_delimiter = ',', value_parser = Target::of_triple)]
    pub targets: Vec<Target>,
    /// Only these programs or images, with what they need
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Builds nothing, and takes the programs in this folder
    #[arg(long, value_name = "FOLDER")]
    pub binaries: Option<PathBuf>,
    /// Where the release goes; target/dist if not given
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// What stands before the images' names: a registry, a project
    #[arg(long, value_name = "NAME", default_value = "kubeedge", value_parser = repository)]
    pub repository: String,
    /// The images' tag; v and the version if not given
    #[arg(long, value_parser = tag)]
    pub tag: Option<String>,
    /// Where the sources are, for whoever looks at an image
    #[arg(long, value_name = "URL", value_parser = url)]
    pub source: Option<String>,
    /// The commit, where neither git nor the programs say it
    #[arg(long, value_name = "COMMIT")]
    pub revision: Option<String>,
    /// A private key in PEM (Ed25519 or ECDSA P-256) to sign with
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Who builds, in the statement where the release comes from
    #[arg(long, value_name = "URI", default_value = "https://kubehive.io/dist/local", value_parser = url)]
    pub builder_id: String,
    /// Whose Debian package it is
    #[arg(long, value_name = "NAME <ADDRESS>", default_value = "KubeHive <kubehive@example.invalid>", value_parser = maintainer)]
    pub maintainer: String,
    /// Builds also files that are changed or not committed, and says so in every version
    #[arg(long)]
    pub allow_dirty: bool,
    /// The cargo profile; a release is of `release`
    #[arg(long, default_value = "release")]
    pub profile: String,
}

fn repository(text: &str) -> Result<String, String> {
    let mut parts = text.split('/');
    let first = parts.next().unwrap_or_default();
    // The first may be a host with a port.
    let (host, port) = first.split_once(':').unwrap_or((first, "0"));
    let is_part = |part: &str| {
        part.split(SEPARATORS).all(|word| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        })
    };
    let fits =
        text.len() <= REPOSITORY_MAX && is_part(host) && port.parse::<u16>().is_ok() && parts.all(is_part);
    let lone_port = first.contains(':') && !text.contains('/');
    if fits && !lone_port {
        return Ok(text.to_owned());
    }
    Err("this is no name of a repository: small letters, digits and single . _ - between /, as registry.example/edge".to_owned())
}

fn tag(text: &str) -> Result<String, String> {
    let mut letters = text.bytes();
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let fits = letters.next().is_some_and(is_word)
        && letters.all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
        && text.len() <= TAG_MAX;
    if fits {
        Ok(text.to_owned())
    } else {
        Err("this is no tag: letters, digits and _ . - (first none of . -), 128 at the most".to_owned())
    }
}

fn url(text: &str) -> Result<String, String> {
    let begins = text.starts_with("https://") || text.starts_with("http://");
    if begins && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err("this is no https:// address".to_owned())
}

fn maintainer(text: &str) -> Result<String, String> {
    let address = text.strip_suffix('>').and_then(|text| text.split_once(" <"));
    match address {
        Some((name, address))
            if !name.is_empty() && address.contains('@') && !text.contains(char::is_control) =>
        {
            Ok(text.to_owned())
        }
        _ => Err("this is no `Name <address>`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Order, String> {
        Order::try_parse_from(std::iter::once("cargo dist").chain(line.split_whitespace()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn an_order_is_understood() {
        let order = parsed(
            "--target aarch64-unknown-linux-gnu --only edgecore,keadm --repository box:5000/a --tag v1",
        )
        .unwrap();
        assert_eq!(order.targets[0].architecture, "arm64");
        assert_eq!(order.only, ["edgecore", "keadm"]);
        assert_eq!((order.repository.as_str(), order.tag.as_deref()), ("box:5000/a", Some("v1")));
        assert!(parsed("").unwrap().targets.is_empty());
    }

    #[test]
    fn what_registries_do_not_take_is_refused() {
        for line in [
            "--repository Kube",
            "--repository a//b",
            "--repository a/../b",
            "--repository a:b/c",
            "--repository box:5000",
            "--tag .a",
            "--tag a/b",
            "--source git@host:a",
            "--maintainer me",
            "--target sparc",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
        assert!(tag(&"a".repeat(129)).is_err());
        assert!(maintainer("A <a@b>\nDepends: x").is_err());
    }
}
