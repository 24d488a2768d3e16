//! What the API server holds of one kind, as an informer keeps it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use apimachinery::NamespacedName;

/// A change of the cache, as a watch tells it.
#[derive(Debug)]
pub(super) enum CacheEvent<V> {
    /// A list begins.
    ListBegins,
    /// An object of the list.
    Listed(NamespacedName, V),
    /// The list is complete.
    ListEnds,
    /// An object was made or changed.
    Applied(NamespacedName, V),
    /// An object is there and could not be read, and why.
    Unreadable(NamespacedName, String),
    /// An object was deleted.
    Deleted(NamespacedName),
}

/// The objects of one watch. It outlives the incarnations of its informer: while one begins anew, readers see what was known last.
pub(super) struct InformerCache<V> {
    objects: RefCell<BTreeMap<NamespacedName, V>>,
    listing: RefCell<Option<BTreeSet<NamespacedName>>>,
    /// Objects that are there and could not be read, and why. What was read of them last stays.
    unreadable: RefCell<BTreeMap<NamespacedName, String>>,
    /// The number of the newest list that somebody asked for, of the newest that has begun, and of the newest that is complete.
    wanted: Cell<u64>,
    begun: Cell<u64>,
    complete: Cell<Option<u64>>,
    subscribers: RefCell<Vec<Box<dyn Fn()>>>,
}

impl<V> Default for InformerCache<V> {
    fn default() -> Self {
        InformerCache {
            objects: RefCell::default(),
            listing: RefCell::default(),
            unreadable: RefCell::default(),
            wanted: Cell::new(0),
            begun: Cell::new(0),
            complete: Cell::new(None),
            subscribers: RefCell::default(),
        }
    }
}

impl<V: Clone + PartialEq> InformerCache<V> {
    pub(super) fn new() -> Rc<Self> {
        Rc::default()
    }

    /// From now on `notify` is called after every change.
    pub(super) fn subscribe(&self, notify: impl Fn() + 'static) {
        self.subscribers.borrow_mut().push(Box::new(notify));
    }

    pub(super) fn notify(&self) {
        self.subscribers.borrow().iter().for_each(|notify| notify());
    }

    /// The number of a list that has not begun yet: once it is complete, it shows whatever is written now.
    pub(super) fn want_list(&self) -> u64 {
        self.wanted.set(self.begun.get() + 1);
        self.wanted.get()
    }

    /// Whether a list is wanted that has not begun.
    pub(super) fn is_list_wanted(&self) -> bool {
        self.wanted.get() > self.begun.get()
    }

    /// Whether the list of that number, or a later one, is complete: half a list would look like deletes.
    pub(super) fn has_listed(&self, number: u64) -> bool {
        self.complete.get().is_some_and(|complete| complete >= number)
    }

    /// Whether any list is complete.
    pub(super) fn is_listed(&self) -> bool {
        self.complete.get().is_some()
    }

    pub(super) fn get(&self, key: &NamespacedName) -> Option<V> {
        self.objects.borrow().get(key).cloned()
    }

    pub(super) fn list(&self) -> Vec<V> {
        self.objects.borrow().values().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.objects.borrow().len()
    }

    /// How many objects are there and could not be read.
    pub(super) fn unreadable(&self) -> usize {
        self.unreadable.borrow().len()
    }

    /// Whether it is not known yet that the object cannot be read.
    pub(super) fn is_news(&self, key: &NamespacedName, why: &str) -> bool {
        self.unreadable.borrow().get(key).is_none_or(|known| known != why)
    }

    /// A watch begins with a list: it shows whatever was written before this moment.
    pub(super) fn watch_begins(&self) {
        self.begun.set(self.wanted.get());
        self.listing.take();
    }

    /// Takes one event of the current watch in. Answers whether anything changed.
    pub(super) fn take(&self, event: CacheEvent<V>) -> bool {
        match event {
            CacheEvent::ListBegins => {
                *self.listing.borrow_mut() = Some(BTreeSet::new());
                false
            }
            CacheEvent::Listed(key, object) => {
                if let Some(listing) = self.listing.borrow_mut().as_mut() {
                    listing.insert(key.clone());
                }
                self.put(key, object);
                false
            }
            CacheEvent::ListEnds => {
                if let Some(named) = self.listing.take() {
                    self.objects.borrow_mut().retain(|key, _| named.contains(key));
                    self.unreadable.borrow_mut().retain(|key, _| named.contains(key));
                }
                self.complete.set(Some(self.begun.get()));
                true
            }
            CacheEvent::Applied(key, object) => self.put(key, object),
            CacheEvent::Unreadable(key, why) => {
                if let Some(listing) = self.listing.borrow_mut().as_mut() {
                    listing.insert(key.clone());
                }
                self.unreadable.borrow_mut().insert(key, why);
                false
            }
            CacheEvent::Deleted(key) => {
                self.unreadable.borrow_mut().remove(&key);
                self.objects.borrow_mut().remove(&key).is_some()
            }
        }
    }

    fn put(&self, key: NamespacedName, object: V) -> bool {
        self.unreadable.borrow_mut().remove(&key);
        let mut objects = self.objects.borrow_mut();
        if objects.get(&key) == Some(&object) {
            return false;
        }
        objects.insert(key, object);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> NamespacedName {
        NamespacedName::new("d", name)
    }

    #[test]
    fn a_new_list_forgets_what_it_does_not_name() {
        let cache = InformerCache::new();
        assert!(cache.take(CacheEvent::Applied(key("a"), 1)));
        assert!(!cache.take(CacheEvent::Applied(key("a"), 1)), "nothing changed");
        assert!(!cache.is_listed());
        cache.take(CacheEvent::ListBegins);
        cache.take(CacheEvent::Listed(key("b"), 2));
        assert_eq!(cache.list(), [1, 2], "kept until the list is complete");
        assert!(cache.take(CacheEvent::ListEnds));
        assert!(cache.is_listed());
        assert_eq!((cache.get(&key("a")), cache.get(&key("b"))), (None, Some(2)));
        assert!(cache.take(CacheEvent::Deleted(key("b"))) && cache.list().is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_named_once_and_stays_as_it_was() {
        let cache = InformerCache::new();
        cache.take(CacheEvent::Applied(key("a"), 1));
        let odd = || CacheEvent::Unreadable(key("a"), "odd".to_owned());
        assert!(cache.is_news(&key("a"), "odd"));
        cache.take(CacheEvent::ListBegins);
        assert!(!cache.take(odd()) && !cache.is_news(&key("a"), "odd"));
        cache.take(CacheEvent::ListEnds);
        assert!(cache.is_listed(), "the list is complete all the same");
        assert_eq!((cache.list(), cache.unreadable()), (vec![1], 1));
        cache.take(CacheEvent::Applied(key("a"), 2));
        assert_eq!((cache.list(), cache.unreadable()), (vec![2], 0));
        cache.take(odd());
        cache.take(CacheEvent::Deleted(key("a")));
        assert_eq!((cache.len(), cache.unreadable()), (0, 0));
    }

    #[test]
    fn a_list_that_began_before_it_was_asked_for_does_not_count() {
        let cache = InformerCache::<u8>::new();
        cache.watch_begins();
        cache.take(CacheEvent::ListBegins);
        let number = cache.want_list();
        cache.take(CacheEvent::ListEnds);
        assert!(cache.is_listed() && !cache.has_listed(number) && cache.is_list_wanted());
        // Two who ask before it begins share it.
        assert_eq!(cache.want_list(), number);
        cache.watch_begins();
        assert!(!cache.is_list_wanted());
        // A watch that is interrupted and lists by itself counts no less.
        for _ in 0..2 {
            cache.take(CacheEvent::ListBegins);
        }
        assert!(!cache.has_listed(number));
        cache.take(CacheEvent::ListEnds);
        assert!(cache.has_listed(number));
    }
}
