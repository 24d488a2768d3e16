//! What an end understands beyond what every end of its wire version does, as it says in its hello.
//!
//! A capability is a short name. An end names those of the mailboxes that it opens to the other one
//! (`Wire::CAPABILITIES`); what needs one that the other end did not name is not sent to it (`Wire::capability`). A name that an end does not know means nothing to it.
//!
//! On the wire, in the bodies of `Hello` and `HelloAck`:
//! ```text
//! count u8 | (length u8 | name)*
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

/// 64: capabilities of one end. A hello that names more is none.
pub const CAPABILITIES_MAX: usize = 64;
/// 48 bytes of `a-z 0-9 . -`: the longest name.
pub const NAME_MAX: usize = 48;

/// The capabilities of one end. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities(Arc<BTreeSet<String>>);

impl Capabilities {
    /// Whether the end has it.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// Their names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// As they stand in a hello: at most [`CAPABILITIES_MAX`] of them, the first by name.
    pub(super) fn encode(&self) -> Vec<u8> {
        let sound = || self.0.iter().filter(|name| is_name(name)).take(CAPABILITIES_MAX);
        let mut bytes = vec![u8::try_from(sound().count()).unwrap_or(u8::MAX)];
        for name in sound() {
            bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
            bytes.extend(name.as_bytes());
        }
        bytes
    }

    /// From the bytes of a hello. What follows them is of a later release and is not looked at. `None`: they are none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Capabilities> {
        let (count, mut rest) = bytes.split_first()?;
        let mut names = BTreeSet::new();
        (usize::from(*count) <= CAPABILITIES_MAX).then_some(())?;
        for _ in 0..*count {
            let (length, after) = rest.split_first()?;
            let (name, after) = after.split_at_checked(usize::from(*length))?;
            let name = std::str::from_utf8(name).ok().filter(|name| is_name(name))?;
            names.insert(name.to_owned());
            rest = after;
        }
        Some(Capabilities(Arc::new(names)))
    }
}

fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(fits)
}

impl<'a> FromIterator<&'a str> for Capabilities {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        Capabilities(Arc::new(names.into_iter().map(str::to_owned).collect()))
    }
}

impl std::fmt::Display for Capabilities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let names: Vec<&str> = self.names().collect();
        f.write_str(&names.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn capabilities_are_read_back_and_what_follows_them_is_left() {
        let said: Capabilities = ["report.test", "deflate"].into_iter().collect();
        let mut bytes = said.encode();
        assert_eq!(bytes, b"\x02\x07deflate\x0breport.test");
        bytes.extend(b"of a later release");
        let read = Capabilities::decode(&bytes).unwrap();
        assert_eq!(read, said);
        assert!(read.has("deflate") && !read.has("defl"));
        assert_eq!(Capabilities::decode(&[0]), Some(Capabilities::default()));
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let long = [&[1, 49][..], &[b'a'; 49]].concat();
        let many = [&[65][..], &b"\x01a".repeat(65)].concat();
        let odd: [&[u8]; 8] = [&[], &[1], &[1, 3, b'a'], &[1, 0], b"\x01\x02a\n", b"\x01\x01A", &long, &many];
        for bytes in odd {
            assert_eq!(Capabilities::decode(bytes), None, "{bytes:?}");
        }
        assert!(Capabilities::decode(&[&[64][..], &b"\x01a".repeat(64)].concat()).is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_capabilities_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(read) = Capabilities::decode(&bytes) {
                prop_assert!(read.names().count() <= CAPABILITIES_MAX);
                prop_assert_eq!(Capabilities::decode(&read.encode()), Some(read));
            }
        }
    }
}
