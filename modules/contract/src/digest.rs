//! What a node holds, in short: so that both ends can find out what differs without telling each other everything.
//!
//! The computation is part of the wire: both ends must come to the same bytes. A key's bucket is a hash of the key, and a
//! bucket's hash is one over the keys, uids and content hashes in it, in the order of the keys. Two sets whose digests have the
//! same hash in a bucket hold the same in it.

use sha2::{Digest as _, Sha256};

use crate::ObjectKey;

/// 256: the most buckets. Of a thousand objects each holds four: a changed one costs the list of four.
pub const BUCKETS_MAX: usize = 256;
/// 4: objects per bucket that are aimed at while there are few.
const BUCKET_OBJECTS: usize = 4;

/// One object as it counts: key, uid, hash of the content.
pub type DigestEntry<'a> = (&'a ObjectKey, &'a str, &'a str);

/// A set of objects in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// How many objects there are.
    pub objects: u32,
    /// One hash per bucket. Their number is a power of two, [`BUCKETS_MAX`] at the most.
    pub buckets: Vec<u64>,
}

/// How many buckets so many objects are put into.
pub fn buckets_for(objects: usize) -> usize {
    (objects / BUCKET_OBJECTS).clamp(1, BUCKETS_MAX).next_power_of_two()
}

/// The bucket of `key` among `buckets`, which is at least one.
pub fn bucket_of(key: &ObjectKey, buckets: usize) -> usize {
    let mut hash = Sha256::new();
    absorb_key(&mut hash, key);
    usize::try_from(number(hash) % buckets.max(1) as u64).unwrap_or(0)
}

impl Digest {
    /// The digest of `entries`, in any order, each key once.
    pub fn of<'a>(entries: impl IntoIterator<Item = DigestEntry<'a>>, buckets: usize) -> Digest {
        let mut entries: Vec<DigestEntry<'a>> = entries.into_iter().collect();
        entries.sort_unstable_by_key(|(key, _, _)| *key);
        let mut hashes = vec![Sha256::new(); buckets.clamp(1, BUCKETS_MAX)];
        let count = hashes.len();
        for (key, uid, content_hash) in &entries {
            if let Some(hash) = hashes.get_mut(bucket_of(key, count)) {
                absorb_key(hash, key);
                absorb(hash, uid);
                absorb(hash, content_hash);
            }
        }
        Digest {
            objects: u32::try_from(entries.len()).unwrap_or(u32::MAX),
            buckets: hashes.into_iter().map(number).collect(),
        }
    }

    /// Whether it is one that [`Digest::of`] makes: what comes over the wire may be anything.
    pub fn is_sound(&self) -> bool {
        self.buckets.len().is_power_of_two() && self.buckets.len() <= BUCKETS_MAX
    }

    /// The buckets in which `other` differs; all of them when it has another number of buckets.
    pub fn differing(&self, other: &Digest) -> Vec<u16> {
        let differs = |at: &usize| self.buckets.get(*at) != other.buckets.get(*at);
        let all = self.buckets.len() != other.buckets.len();
        (0..self.buckets.len())
            .filter(|at| all || differs(at))
            .filter_map(|at| u16::try_from(at).ok())
            .collect()
    }
}

fn absorb_key(hash: &mut Sha256, key: &ObjectKey) {
    absorb(hash, &key.resource);
    absorb(hash, &key.namespace);
    absorb(hash, &key.name);
}

/// With its length in front, so that no two lists of texts look the same.
fn absorb(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}

/// The first eight bytes: 64 bits per bucket, in which two sets of versions do not meet by chance.
fn number(hash: Sha256) -> u64 {
    let bytes = hash.finalize();
    bytes.iter().take(8).rev().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Set = BTreeMap<ObjectKey, (String, String)>;

    fn set(range: std::ops::Range<usize>) -> Set {
        let key = |n: usize| ObjectKey::new(["pods", "secrets"][n % 2], "d", format!("o{n}"));
        range.map(|n| (key(n), (format!("u{n}"), format!("{n}")))).collect()
    }

    fn digest(set: &Set, buckets: usize) -> Digest {
        Digest::of(set.iter().map(|(key, (uid, version))| (key, uid.as_str(), version.as_str())), buckets)
    }

    #[test]
    fn the_number_of_buckets_grows_with_the_objects_and_ends() {
        let of = [0, 1, 4, 7, 8, 12, 1000, 1024, 1_000_000].map(buckets_for);
        assert_eq!(of, [1, 1, 1, 1, 2, 4, 256, 256, 256]);
    }

    #[test]
    fn keys_spread_over_the_buckets() {
        let mut load = [0_usize; BUCKETS_MAX];
        for key in set(0..2560).keys() {
            load[bucket_of(key, BUCKETS_MAX)] += 1;
        }
        assert!(load.iter().all(|n| (1..=30).contains(n)), "{load:?}");
    }

    #[test]
    fn what_cannot_be_a_digest_is_known() {
        let sound = |buckets: usize| Digest { objects: 0, buckets: vec![0; buckets] }.is_sound();
        assert_eq!([0, 1, 3, 256, 512].map(sound), [false, true, false, true, false]);
    }

    #[test]
    fn texts_do_not_run_into_each_other() {
        let one = Set::from([(ObjectKey::new("pods", "a", "bc"), (String::from("u"), String::from("12")))]);
        let other = Set::from([(ObjectKey::new("pods", "ab", "c"), (String::from("u1"), String::from("2")))]);
        assert_ne!(digest(&one, 1).buckets, digest(&other, 1).buckets);
    }

    proptest! {
        #[test]
        fn the_same_is_the_same_in_any_order_and_a_difference_is_found_in_its_bucket(
            objects in 0_usize..600, at in 0_usize..600, what in 0_u8..4,
        ) {
            let one = set(0..objects);
            let buckets = buckets_for(objects);
            let reversed = one.iter().rev().map(|(key, (uid, version))| (key, uid.as_str(), version.as_str()));
            prop_assert_eq!(digest(&one, buckets), Digest::of(reversed, buckets));
            let mut other = one.clone();
            let key = one.keys().nth(at % objects.max(1)).cloned();
            let touched = match (what, key) {
                (0, Some(key)) => { other.remove(&key); key }
                (1, Some(key)) => { other.get_mut(&key).unwrap().0.push('x'); key }
                (2, Some(key)) => { other.get_mut(&key).unwrap().1.push('0'); key }
                _ => {
                    let key = ObjectKey::new("pods", "d", "fresh");
                    other.insert(key.clone(), (String::new(), String::new()));
                    key
                }
            };
            let bucket = u16::try_from(bucket_of(&touched, buckets)).unwrap();
            prop_assert_eq!(digest(&one, buckets).differing(&digest(&other, buckets)), vec![bucket]);
        }
    }
}
