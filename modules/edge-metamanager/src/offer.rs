//! What the node holds, as the cloud asks for it, and which batches may follow. Pure.

use contract::digest::{Mark, bucket_of, buckets_for};
use contract::{Digest, Held, ObjectKey};

/// Key, uid and version of every object that the store holds.
#[derive(Debug, Default)]
pub struct Heads(Vec<Held>);

impl Heads {
    /// Of what a store says that it holds.
    pub fn of(heads: impl IntoIterator<Item = edge_store::ObjectVersion>) -> Heads {
        let held = heads.into_iter().map(|edge_store::ObjectVersion { key, uid, content_hash }| Held {
            key: ObjectKey { resource: key.resource, namespace: key.namespace, name: key.name },
            uid,
            version: content_hash,
        });
        Heads(held.collect())
    }

    /// All of it in short.
    pub fn digest(&self) -> Digest {
        let marks = self.0.iter().map(|held| -> Mark<'_> { (&held.key, &held.uid, &held.version) });
        Digest::of(marks, buckets_for(self.0.len()))
    }

    /// What is in `buckets` of so many.
    pub fn in_buckets(self, buckets: &[u16], of: usize) -> Vec<Held> {
        let asked = |held: &Held| u16::try_from(bucket_of(&held.key, of)).is_ok_and(|b| buckets.contains(&b));
        self.0.into_iter().filter(asked).collect()
    }
}

/// The offer that counts, and the batch that may come next.
#[derive(Debug, Default)]
pub struct Gate(Option<Open>);

#[derive(Debug)]
struct Open {
    offer: u64,
    buckets: usize,
    last_place: u64,
}

impl Gate {
    /// A new offer, of so many buckets: nothing of an older one passes any more.
    pub fn open(&mut self, offer: u64, buckets: usize) {
        self.0 = Some(Open { offer, buckets, last_place: 0 });
    }

    /// Nothing passes until there is a new offer.
    pub fn close(&mut self) {
        self.0 = None;
    }

    /// How many buckets `offer` has, if it counts.
    pub fn buckets_of(&self, offer: u64) -> Option<usize> {
        self.0.as_ref().filter(|open| open.offer == offer).map(|open| open.buckets)
    }

    /// Whether the batch may be applied: it is of the offer that counts, and the next one.
    pub fn passes(&mut self, offer: u64, place: u64) -> bool {
        let Some(open) = self.0.as_mut().filter(|open| open.offer == offer) else { return false };
        let is_next = place == open.last_place.saturating_add(1);
        if is_next {
            open.last_place = place;
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
    fn a_batch_passes_in_its_turn_only() {
        let mut gate = Gate::default();
        assert!(!gate.passes(1, 1), "there is no offer");
        gate.open(7, 4);
        assert!(gate.passes(7, 1) && gate.passes(7, 2));
        assert!(!gate.passes(6, 3), "of an older offer");
        assert!(gate.passes(7, 3), "which does not end this one");
        assert!(!gate.passes(7, 5), "one is missing");
        assert!(!gate.passes(7, 4), "and what comes after that cannot be trusted");
        gate.open(8, 4);
        assert_eq!((gate.buckets_of(7), gate.buckets_of(8)), (None, Some(4)));
        gate.close();
        assert!(!gate.passes(8, 1));
    }

    #[test]
    fn the_lists_of_all_buckets_are_the_whole() {
        let heads = || {
            Heads::of((0..100).map(|n| {
                let key = edge_store::ObjectKey::new("pods", "d", format!("p{n}"));
                edge_store::ObjectVersion { key, uid: format!("u{n}"), content_hash: n.to_string() }
            }))
        };
        let digest = heads().digest();
        assert_eq!((digest.objects, digest.buckets.len()), (100, 32));
        let all: usize = (0..32).map(|bucket| heads().in_buckets(&[bucket], 32).len()).sum();
        assert_eq!(all, 100);
        assert_eq!(heads().in_buckets(&[3, 9], 32).len(), {
            heads().in_buckets(&[3], 32).len() + heads().in_buckets(&[9], 32).len()
        });
    }
}
