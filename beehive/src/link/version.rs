//! Versions of the wire, and how two ends agree on one.
//!
//! A version is the frames, the messages in them and the rules of their credits. Every version that is here is frozen: a
//! change is a new version. This build speaks the newest and the one before it.
//!
//! The end that dialled names the oldest and the newest that it speaks; the end that it reached takes the newest that is
//! common and says which. `Hello`, `HelloAck` and `Refuse` are framed as version 0 for ever, so that any two ends understand
//! each other so far. From then on every frame of the link carries the agreed version, and one of another is refused.

/// A version that this build speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WireVersion {
    /// Credits count messages. Reports carry no mark of a repeat.
    Zero,
    /// Credits count messages and bytes. Reports carry the mark of a repeat.
    One,
}

impl WireVersion {
    /// All that this build speaks, oldest first.
    pub const ALL: [WireVersion; 2] = [WireVersion::Zero, WireVersion::One];

    /// Its number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            WireVersion::Zero => 0,
            WireVersion::One => 1,
        }
    }

    /// The version of this number, if this build speaks it.
    pub fn of(number: u8) -> Option<WireVersion> {
        WireVersion::ALL.into_iter().find(|version| version.number() == number)
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
        Versions { oldest: WireVersion::Zero.number(), newest: WireVersion::One.number() };

    /// Whether it is one of them.
    pub fn contains(self, number: u8) -> bool {
        (self.oldest..=self.newest).contains(&number)
    }

    /// The newest version that both speak.
    pub fn newest_common(self, other: Versions) -> Option<u8> {
        let newest = self.newest.min(other.newest);
        (self.contains(newest) && other.contains(newest)).then_some(newest)
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_and_versions_are_one_to_one() {
        for version in WireVersion::ALL {
            assert_eq!(WireVersion::of(version.number()), Some(version));
            assert!(Versions::OURS.contains(version.number()));
        }
        assert_eq!(WireVersion::of(Versions::OURS.newest + 1), None);
    }

    proptest! {
        #[test]
        fn two_ends_agree_on_the_newest_common_version_or_on_none(
            (a, b, c, d) in (0..6_u8, 0..6_u8, 0..6_u8, 0..6_u8)
        ) {
            let (one, other) = (Versions { oldest: a, newest: b }, Versions { oldest: c, newest: d });
            let both = (0..=u8::MAX).rev().find(|number| one.contains(*number) && other.contains(*number));
            prop_assert_eq!(one.newest_common(other), both);
            prop_assert_eq!(other.newest_common(one), both);
        }
    }
}
