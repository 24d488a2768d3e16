//! The devices that have a DeviceStatus, or get one, and what CloudCore says of each there. Pure.

use std::collections::{BTreeMap, BTreeSet};

use contract::ObjectKey;

use crate::conditions::OwnWord;

/// One device.
#[derive(Debug)]
struct Known {
    uid: String,
    model: ObjectKey,
    word: OwnWord,
    /// What is in the DeviceStatus, or on its way there.
    written: Option<OwnWord>,
    is_writing: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    known: BTreeMap<ObjectKey, Known>,
    /// The devices that name a model, whether that is there or not.
    users: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
}

/// What is to be written: of which device, with which uid, what.
pub(crate) type ToWrite = (ObjectKey, String, OwnWord);

impl Devices {
    /// A device as it is now. Answers what is to be written.
    pub(crate) fn put(
        &mut self,
        key: ObjectKey,
        uid: String,
        model: ObjectKey,
        word: OwnWord,
    ) -> Option<ToWrite> {
        match self.known.get_mut(&key) {
            Some(known) if known.uid == uid && known.model == model => known.word = word,
            _ => {
                self.remove(&key);
                self.users.entry(model.clone()).or_default().insert(key.clone());
                let known = Known { uid, model, word, written: None, is_writing: false };
                self.known.insert(key.clone(), known);
            }
        }
        self.next(&key)
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        let Some(known) = self.known.remove(key) else { return };
        if let Some(users) = self.users.get_mut(&known.model) {
            users.remove(key);
            if users.is_empty() {
                self.users.remove(&known.model);
            }
        }
    }

    /// The devices that name a model.
    pub(crate) fn users_of(&self, model: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        self.users.get(model).into_iter().flatten()
    }

    /// A write of the device with this uid has ended, or has failed and is due again. Answers what is to be written next.
    pub(crate) fn ended(&mut self, uid: &str, is_written: bool) -> Option<ToWrite> {
        let (key, known) = self.known.iter_mut().find(|(_, known)| known.uid == uid)?;
        known.is_writing = false;
        if !is_written {
            known.written = None;
        }
        let key = key.clone();
        self.next(&key)
    }

    /// One write of a device at a time, so that the newest is the last.
    fn next(&mut self, key: &ObjectKey) -> Option<ToWrite> {
        let known = self.known.get_mut(key)?;
        if known.is_writing || known.written.as_ref() == Some(&known.word) {
            return None;
        }
        known.is_writing = true;
        known.written = Some(known.word.clone());
        Some((key.clone(), known.uid.clone(), known.word.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("devices", "d", name)
    }

    fn word(text: &str) -> OwnWord {
        OwnWord { invalid: (!text.is_empty()).then(|| text.to_owned()), node: None }
    }

    #[test]
    fn one_write_at_a_time_and_the_newest_is_the_last() {
        let mut devices = Devices::default();
        let mut put = |text: &str| devices.put(key("a"), "u".into(), key("m"), word(text));
        assert_eq!(put("no model"), Some((key("a"), "u".into(), word("no model"))));
        assert_eq!((put("other"), put("")), (None, None));
        assert_eq!(devices.ended("u", true), Some((key("a"), "u".into(), word(""))));
        assert_eq!(devices.ended("u", false), Some((key("a"), "u".into(), word(""))), "it failed");
        assert_eq!(devices.ended("u", true), None);
        assert_eq!(devices.put(key("a"), "u".into(), key("m"), word("")), None);
        assert!(
            devices.put(key("a"), "u2".into(), key("n"), word("")).is_some(),
            "another device of that name"
        );
        assert_eq!((devices.users_of(&key("m")).count(), devices.users_of(&key("n")).count()), (0, 1));
        devices.remove(&key("a"));
        assert_eq!((devices.users.len(), devices.ended("u2", true)), (0, None));
    }
}
