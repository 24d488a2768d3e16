//! Versions of the wire, and how two ends agree on one.
//!
//! A version is the frames, the messages in them and the rules of their credits. A version is frozen: what is written in it
//! never changes. Messages and reports may be added to it under a capability of their own
//! ([`super::capability::Capabilities`]), which an end of an older release does not name and so is never sent; whatever else
//! changes is a new version. A build speaks its newest version and, once there is one, the version before it.
//!
//! The end that dialled names the oldest and the newest that it speaks; the end that it reached takes the newest that is
//! common and says which. The frames of the hello (`Hello`, `HelloAck`, `Refuse`) are laid out the same in all versions, so
//! that any two ends understand each other so far. From then on every frame of the link carries the agreed version, and one
//! of another is refused.

use super::capability::Capabilities;

/// The number of a wire version. One that was not agreed on in a hello is only ever [`WireVersion::ONE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WireVersion(u8);

impl WireVersion {
    /// The first version, and the only one that this build speaks.
    pub const ONE: WireVersion = WireVersion(1);

    /// Its number on the wire.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// The versions that an end speaks: from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub oldest: u8,
    /// The newest.
    pub newest: u8,
}

impl Versions {
    /// What this build speaks.
    pub const OURS: Versions =
        Versions { oldest: WireVersion::ONE.number(), newest: WireVersion::ONE.number() };

    /// Whether it is one of them.
    pub fn contains(self, number: u8) -> bool {
        (self.oldest..=self.newest).contains(&number)
    }

    /// The newest version that both speak.
    pub fn newest_common(self, other: Versions) -> Option<WireVersion> {
        let newest = self.newest.min(other.newest);
        (self.contains(newest) && other.contains(newest)).then_some(WireVersion(newest))
    }

    /// The version of this number, if it is one of them.
    pub(super) fn version(self, number: u8) -> Option<WireVersion> {
        self.contains(number).then_some(WireVersion(number))
    }
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.oldest == self.newest {
            write!(f, "wire version {}", self.oldest)
        } else {
            write!(f, "wire versions {} to {}", self.oldest, self.newest)
        }
    }
}

/// What two ends agreed on in their hello, as one of them sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol {
    /// The version that both speak.
    pub version: WireVersion,
    /// What the other end understands beyond what every end of the version does.
    pub capabilities: Capabilities,
}

impl Protocol {
    /// A protocol of this version with an end that understands `capabilities`.
    pub fn new(version: WireVersion, capabilities: Capabilities) -> Self {
        Protocol { version, capabilities }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn this_build_speaks_version_one_alone() {
        assert_eq!(Versions::OURS, Versions { oldest: 1, newest: 1 });
        assert_eq!(Versions::OURS.version(1), Some(WireVersion::ONE));
        assert_eq!((Versions::OURS.version(0), Versions::OURS.version(2)), (None, None));
    }

    proptest! {
        #[test]
        fn two_ends_agree_on_the_newest_common_version_or_on_none(
            (a, b, c, d) in (0..6_u8, 0..6_u8, 0..6_u8, 0..6_u8)
        ) {
            let (one, other) = (Versions { oldest: a, newest: b }, Versions { oldest: c, newest: d });
            let both = (0..=u8::MAX).rev().find(|number| one.contains(*number) && other.contains(*number));
            prop_assert_eq!(one.newest_common(other).map(WireVersion::number), both);
            prop_assert_eq!(other.newest_common(one).map(WireVersion::number), both);
        }
    }
}
