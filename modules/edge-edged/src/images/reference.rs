//! The name of an image: the grammar of distribution's references, with Docker's defaults, as the kubelet reads it. Pure.

/// What a name without tag and digest means.
const DEFAULT_TAG: &str = "latest";
/// Where a name without a registry lives, and the older name of that place.
const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
/// Longer ones are no repositories to distribution.
const REPOSITORY_MAX: usize = 255;
const TAG_MAX: usize = 128;
const NO_REFERENCE: &str = "invalid reference format";

/// An image's name, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// The registry with its port.
    pub(crate) domain: String,
    /// The repository there.
    pub(crate) path: String,
    pub(crate) tag: Option<String>,
    pub(crate) digest: Option<String>,
}

impl Reference {
    /// Reads a name.
    ///
    /// # Errors
    /// What is wrong with it, in the words of the kubelet.
    pub(crate) fn parse(image: &str) -> Result<Reference, String> {
        read(image).map_err(|reason| format!("couldn't parse image name \"{image}\": {reason}"))
    }

    /// The repository with its registry: `docker.io/library/busybox`.
    pub(crate) fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }
}

/// The name as the runtime is asked for it: with the tag `latest` where it has neither tag nor digest.
///
/// # Errors
/// See [`Reference::parse`].
pub(crate) fn with_tag(image: &str) -> Result<String, String> {
    let reference = Reference::parse(image)?;
    let whole = reference.tag.is_some() || reference.digest.is_some();
    Ok(if whole { image.to_owned() } else { format!("{image}:{DEFAULT_TAG}") })
}

/// The whole name, as runtimes list it: `docker.io/library/busybox:latest`. `None` for what is no name.
pub(crate) fn full(image: &str) -> Option<String> {
    let reference = Reference::parse(image).ok()?;
    let repository = reference.repository();
    Some(match (&reference.digest, &reference.tag) {
        (Some(digest), _) => format!("{repository}@{digest}"),
        (None, tag) => format!("{repository}:{}", tag.as_deref().unwrap_or(DEFAULT_TAG)),
    })
}

fn read(image: &str) -> Result<Reference, String> {
    if image.len() == 64 && image.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f')) {
        return Err(format!("invalid repository name ({image}), cannot specify 64-byte hexadecimal strings"));
    }
    let (domain, rest) = split_domain(image);
    let remote = rest.split(':').next().unwrap_or_default();
    if remote.to_lowercase() != remote {
        return Err(format!("{NO_REFERENCE}: repository name ({remote}) must be lowercase"));
    }
    let (named, digest) = match rest.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (rest.as_str(), None),
    };
    let (path, tag) = match named.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (named, None),
    };
    let fits = (is_domain(&domain) || is_component(&domain))
        && path.split('/').all(is_component)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest);
    if !fits {
        return Err(NO_REFERENCE.to_owned());
    }
    if path.len() > REPOSITORY_MAX {
        return Err(format!("repository name must not be more than {REPOSITORY_MAX} characters"));
    }
    if let Some(digest) = digest {
        known_digest(digest)?;
    }
    let owned = |text: &str| text.to_owned();
    Ok(Reference { path: owned(path), tag: tag.map(owned), digest: digest.map(owned), domain })
}

/// The registry, and what is named there.
fn split_domain(image: &str) -> (String, String) {
    let (domain, rest) = match image.split_once('/') {
        Some((LEGACY_DOMAIN, rest)) => (DEFAULT_DOMAIN, rest),
        Some((first, rest))
            if first == "localhost" || first.contains(['.', ':']) || first.to_lowercase() != first =>
        {
            (first, rest)
        }
        Some(_) | None => (DEFAULT_DOMAIN, image),
    };
    let official = domain == DEFAULT_DOMAIN && !rest.contains('/');
    (domain.to_owned(), if official { format!("library/{rest}") } else { rest.to_owned() })
}

/// A host with or without a port.
fn is_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
        Some((address, rest)) => {
            let hex = |b: u8| b.is_ascii_hexdigit() || b == b':';
            if address.is_empty() || !address.bytes().all(hex) {
                return false;
            }
            match rest.strip_prefix(':') {
                Some(port) => return is_port(port),
                None => return rest.is_empty(),
            }
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Lower case letters and digits, with one `.`, one or two `_` or any number of `-` between them.
fn is_component(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !plain(*first) || !plain(*last) {
        return false;
    }
    let separator = |part: &[u8]| {
        matches!(part, b"." | b"_" | b"__") || (!part.is_empty() && part.iter().all(|b| *b == b'-'))
    };
    let runs = bytes.chunk_by(|a, b| plain(*a) == plain(*b));
    let mut between = runs.filter(|run| run.first().is_some_and(|b| !plain(*b)));
    between.all(separator)
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    bytes.len() <= TAG_MAX
        && bytes.first().is_some_and(|b| word(*b))
        && bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'-'))
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    let part = |part: &str| {
        part.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
            && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(part)
        && hex.len() >= 32
        && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A digest that can be checked.
fn known_digest(digest: &str) -> Result<(), String> {
    let (algorithm, hex) = digest.split_once(':').unwrap_or_default();
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err("unsupported digest algorithm".to_owned()),
    };
    if hex.len() != length {
        return Err("invalid checksum digest length".to_owned());
    }
    let lower = hex.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
    if lower { Ok(()) } else { Err("invalid checksum digest format".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_docker_completes_them() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (image, repository, tagged) in [
            ("busybox", "docker.io/library/busybox", "busybox:latest"),
            ("team/x", "docker.io/team/x", "team/x:latest"),
            ("docker.io/x:1", "docker.io/library/x", "docker.io/x:1"),
            ("index.docker.io/team/x", "docker.io/team/x", "index.docker.io/team/x:latest"),
            ("r:5000/x", "r:5000/x", "r:5000/x:latest"),
            ("localhost/x", "localhost/x", "localhost/x:latest"),
            ("my_registry.lan/a/b:2", "my_registry.lan/a/b", "my_registry.lan/a/b:2"),
            ("[::1]:5000/x:y", "[::1]:5000/x", "[::1]:5000/x:y"),
            ("Registry/x", "Registry/x", "Registry/x:latest"),
            ("a/b__c-d--e.f:T_1.2-3", "docker.io/a/b__c-d--e.f", "a/b__c-d--e.f:T_1.2-3"),
        ] {
            assert_eq!(Reference::parse(image).unwrap().repository(), repository, "{image}");
            assert_eq!(with_tag(image).unwrap(), tagged);
        }
        let both = format!("r.example/x:1@{digest}");
        assert_eq!(with_tag(&both).unwrap(), both);
        assert_eq!(Reference::parse(&both).unwrap().digest, Some(digest));
    }

    #[test]
    fn what_is_no_name_is_said_in_the_kubelets_words() {
        let long = format!("r.example/{}", "a".repeat(256));
        let hex = "a".repeat(64);
        let identifier =
            format!("invalid repository name ({hex}), cannot specify 64-byte hexadecimal strings");
        for (image, reason) in [
            ("", "invalid reference format"),
            ("x y", "invalid reference format"),
            ("/x", "invalid reference format"),
            ("r.example//x", "invalid reference format"),
            ("x:", "invalid reference format"),
            ("x:-1", "invalid reference format"),
            ("a..b/x", "invalid reference format"),
            ("r:port/x", "invalid reference format"),
            ("x@sha256:00", "invalid reference format"),
            ("r.example/X:1", "invalid reference format: repository name (X) must be lowercase"),
            (long.as_str(), "repository name must not be more than 255 characters"),
            (hex.as_str(), identifier.as_str()),
            ("x@sha256:00000000000000000000000000000000", "invalid checksum digest length"),
            ("x@md5:00000000000000000000000000000000", "unsupported digest algorithm"),
        ] {
            let said = format!("couldn't parse image name \"{image}\": {reason}");
            assert_eq!(Reference::parse(image), Err(said));
        }
    }
}
