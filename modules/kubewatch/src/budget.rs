//! How many bytes of objects a CloudCore holds, by namespace: whoever may write objects in one namespace fills that, and takes nothing from
//! the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use contract::ObjectKey;

/// 512 MiB, as the chart limits CloudCore.
const MEMORY: usize = 512 << 20;
/// A quarter of the memory for what is of one namespace, and of one kind without namespaces.
const OF_ONE: usize = 4;
/// Half of the memory for all of them; the rest is for nodes, for what is under way, and for what an allocator does not give back.
const OF_ALL: usize = 2;
/// 1/256 of the memory (2 MiB) is each namespace's own, however full all is: who fills it does not shut the others out.
const OF_EACH: usize = 256;

/// 512 bytes that an object takes besides its text.
pub(crate) const OBJECT_BYTES: usize = 512;

/// What all caches of a CloudCore may hold together.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Mutex<Usage>>);

#[derive(Debug)]
struct Usage {
    memory: usize,
    all: usize,
    /// By namespace, or by resource where there is none. None is empty.
    places: BTreeMap<String, usize>,
}

impl Default for Budget {
    fn default() -> Self {
        Budget::of_memory(MEMORY)
    }
}

impl Budget {
    /// Of a process that may have so many bytes of memory.
    pub fn of_memory(memory: usize) -> Budget {
        Budget(Arc::new(Mutex::new(Usage { memory, all: 0, places: BTreeMap::new() })))
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All bytes that are held.
    pub fn bytes(&self) -> usize {
        self.usage().all
    }

    /// Takes so many bytes for an object, until the charge is dropped; `before` is what it has taken so far, which is to be dropped next.
    ///
    /// # Errors
    /// A sentence that says what is full.
    pub(crate) fn take(
        &self,
        key: &ObjectKey,
        bytes: usize,
        before: Option<&Charge>,
    ) -> Result<Charge, String> {
        let place = place_of(key);
        let free = before.and_then(|before| before.0.as_ref()).map_or(0, |before| before.bytes);
        let mut held = self.usage();
        held.check(place, bytes, free)?;
        held.all += bytes;
        *held.places.entry(place.to_owned()).or_default() += bytes;
        drop(held);
        Ok(Charge(Some(Taken { of: self.clone(), place: place.to_owned(), bytes })))
    }

    /// Whether so many bytes could be taken now.
    pub(crate) fn has_room(&self, key: &ObjectKey, bytes: usize) -> bool {
        self.usage().check(place_of(key), bytes, 0).is_ok()
    }
}

impl Usage {
    fn check(&self, place: &str, bytes: usize, free: usize) -> Result<(), String> {
        // What gets no larger takes nothing from anybody.
        if bytes <= free {
            return Ok(());
        }
        let with = |held: usize| held.saturating_add(bytes).saturating_sub(free);
        let mine = with(self.places.get(place).copied().unwrap_or_default());
        let most = self.memory / OF_ONE;
        if mine > most {
            let mib = most >> 20;
            return Err(format!(
                "it is too large: with its {bytes} bytes CloudCore would hold more than {mib} MiB of objects of `{place}`; delete some, or give CloudCore more memory"
            ));
        }
        let most = self.memory / OF_ALL;
        if with(self.all) > most && mine > self.memory / OF_EACH {
            let mib = most >> 20;
            return Err(format!(
                "with its {bytes} bytes CloudCore would hold more than {mib} MiB of objects; delete some, or give CloudCore more memory"
            ));
        }
        Ok(())
    }
}

fn place_of(key: &ObjectKey) -> &str {
    if key.namespace.is_empty() { &key.resource } else { &key.namespace }
}

/// What one object takes, as long as this lives. The default takes nothing.
#[derive(Debug, Default)]
pub(crate) struct Charge(Option<Taken>);

#[derive(Debug)]
struct Taken {
    of: Budget,
    place: String,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        let Some(Taken { of, place, bytes }) = self.0.take() else { return };
        let mut held = of.usage();
        held.all = held.all.saturating_sub(bytes);
        match held.places.get(&place).map_or(0, |all| all.saturating_sub(bytes)) {
            0 => drop(held.places.remove(&place)),
            left => drop(held.places.insert(place, left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str) -> ObjectKey {
        ObjectKey::new("devices", namespace, "n")
    }

    #[test]
    fn who_fills_a_namespace_takes_nothing_from_the_others() {
        let budget = Budget::of_memory(256 << 20);
        let mib = |namespace, mib: usize| budget.take(&key(namespace), mib << 20, None);
        let a = mib("a", 64).unwrap();
        let why = mib("a", 1).unwrap_err();
        assert!(why.contains("64 MiB") && why.contains("`a`") && why.contains("1048576 bytes"), "{why}");
        let _b = mib("b", 64).unwrap();
        assert!(mib("c", 2).unwrap_err().contains("128 MiB of objects;"), "all is full");
        let _c = mib("c", 1).unwrap();
        assert!(mib("c", 1).is_err() && !budget.has_room(&key("c"), 1 << 20), "beyond what is its own");
        assert_eq!(budget.bytes(), 129 << 20);
        assert!(budget.take(&key("a"), 64 << 20, Some(&a)).is_ok(), "in the place of its version before");
        drop(a);
        assert!(budget.has_room(&key("c"), 1 << 20) && budget.has_room(&key("a"), 63 << 20));
        assert_eq!((budget.bytes(), budget.usage().places.len()), (65 << 20, 2));
    }

    #[test]
    fn what_has_no_namespace_is_counted_by_its_kind() {
        let budget = Budget::of_memory(4 << 20);
        let of = |resource| budget.take(&ObjectKey::new(resource, "", "n"), 1 << 20, None);
        let _jobs = of("configupdatejobs").unwrap();
        assert!(of("configupdatejobs").is_err());
        assert!(of("nodes").is_ok());
    }
}
