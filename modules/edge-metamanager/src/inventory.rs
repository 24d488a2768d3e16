//! What the node holds, as the cloud asks for it, and which batches may follow. Pure.

use contract::digest::{DigestEntry, bucket_of, buckets_for};
use contract::{Digest, ObjectVersion};

/// Key, uid and content hash of every object that the store holds.
#[derive(Debug, Default)]
pub struct HeldObjects(Vec<ObjectVersion>);

impl HeldObjects {
    /// Of what a store says that it holds.
    pub fn new(versions: Vec<ObjectVersion>) -> HeldObjects {
        HeldObjects(versions)
    }

    /// All of it in short.
    pub fn digest(&self) -> Digest {
        let marks =
            self.0.iter().map(|held| -> DigestEntry<'_> { (&held.key, &held.uid, &held.content_hash) });
        Digest::of(marks, buckets_for(self.0.len()))
    }

    /// What is in `buckets` of so many.
    pub fn in_buckets(self, buckets: &[u16], of: usize) -> Vec<ObjectVersion> {
        let asked = |held: &ObjectVersion| {
            u16::try_from(bucket_of(&held.key, of)).is_ok_and(|b| buckets.contains(&b))
        };
        self.0.into_iter().filter(asked).collect()
    }
}

/// The inventory that counts, and the batch that may come next.
#[derive(Debug, Default)]
pub struct BatchSequencer(Option<OpenInventory>);

#[derive(Debug)]
struct OpenInventory {
    inventory: u64,
    buckets: usize,
    last: u64,
}

impl BatchSequencer {
    /// A new inventory, of so many buckets: nothing of an older one is taken any more.
    pub fn open(&mut self, inventory: u64, buckets: usize) {
        self.0 = Some(OpenInventory { inventory, buckets, last: 0 });
    }

    /// Nothing is taken until there is a new inventory.
    pub fn close(&mut self) {
        self.0 = None;
    }

    /// How many buckets `inventory` has, if it counts.
    pub fn buckets_of(&self, inventory: u64) -> Option<usize> {
        self.0.as_ref().filter(|open| open.inventory == inventory).map(|open| open.buckets)
    }

    /// Whether the batch may be applied: it is of the inventory that counts, and the next one.
    pub fn takes(&mut self, inventory: u64, sequence: u64) -> bool {
        let Some(open) = self.0.as_mut().filter(|open| open.inventory == inventory) else { return false };
        let is_next = sequence == open.last.saturating_add(1);
        if is_next {
            open.last = sequence;
        } else {
            self.close();
        }
        is_next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_taken_in_its_turn_only() {
        let mut batches = BatchSequencer::default();
        assert!(!batches.takes(1, 1), "there is no inventory");
        batches.open(7, 4);
        assert!(batches.takes(7, 1) && batches.takes(7, 2));
        assert!(!batches.takes(6, 3), "of an older inventory");
        assert!(batches.takes(7, 3), "which does not end this one");
        assert!(!batches.takes(7, 5), "one is missing");
        assert!(!batches.takes(7, 4), "and what comes after that cannot be trusted");
        batches.open(8, 4);
        assert_eq!((batches.buckets_of(7), batches.buckets_of(8)), (None, Some(4)));
        batches.close();
        assert!(!batches.takes(8, 1));
    }

    #[test]
    fn the_lists_of_all_buckets_are_the_whole() {
        let holdings = || {
            let version = |n: u32| ObjectVersion {
                key: contract::ObjectKey::new("pods", "d", format!("p{n}")),
                uid: format!("u{n}"),
                content_hash: n.to_string(),
            };
            HeldObjects::new((0..100).map(version).collect())
        };
        let digest = holdings().digest();
        assert_eq!((digest.objects, digest.buckets.len()), (100, 32));
        let all: usize = (0..32).map(|bucket| holdings().in_buckets(&[bucket], 32).len()).sum();
        assert_eq!(all, 100);
        assert_eq!(holdings().in_buckets(&[3, 9], 32).len(), {
            holdings().in_buckets(&[3], 32).len() + holdings().in_buckets(&[9], 32).len()
        });
    }
}
