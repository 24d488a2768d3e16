//! The devices that have a DeviceStatus, or get one, and what CloudCore says of each there. Pure.

use std::collections::{BTreeMap, BTreeSet};

use contract::ObjectKey;

use crate::calls::UnsentCall;
use crate::conditions::OwnWord;

/// What is to stand of CloudCore's in a DeviceStatus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Word {
    /// This.
    Own(OwnWord),
    /// What stands there: nobody knows yet whose the device's node is.
    AsItIs,
    /// Nothing: the device's node is another's, and so is its DeviceStatus.
    Nothing,
}

/// One device.
#[derive(Debug)]
struct Known {
    uid: String,
    model: ObjectKey,
    word: Word,
    /// What is in the DeviceStatus, or on its way there.
    written: Option<Word>,
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
pub(crate) type ToWrite = (ObjectKey, String, Word);

impl Devices {
    /// A device as it is now. Answers what is to be written.
    pub(crate) fn put(
        &mut self,
        key: ObjectKey,
        uid: String,
        model: ObjectKey,
        word: Word,
    ) -> Option<ToWrite> {
        if self.known.get(&key).is_none_or(|known| known.uid != uid) {
            self.remove(&key);
            let known =
                Known { uid, model: model.clone(), word: word.clone(), written: None, is_writing: false };
            self.known.insert(key.clone(), known);
        }
        let before = self.known.get_mut(&key).map(|known| {
            known.word = word;
            std::mem::replace(&mut known.model, model.clone())
        });
        if let Some(before) = before.filter(|before| *before != model) {
            self.forget_user(&before, &key);
        }
        self.users.entry(model).or_default().insert(key.clone());
        self.next(&key)
    }

    /// What is to be said of a call of the device with this uid. Answers what is to be written.
    pub(crate) fn say_unsent(&mut self, uid: &str, unsent: Option<UnsentCall>) -> Option<ToWrite> {
        let (key, known) = self.known.iter_mut().find(|(_, known)| known.uid == uid)?;
        if let Word::Own(word) = &mut known.word {
            word.unsent = unsent;
        }
        let key = key.clone();
        self.next(&key)
    }

    /// Answers its uid.
    pub(crate) fn remove(&mut self, key: &ObjectKey) -> Option<String> {
        let known = self.known.remove(key)?;
        self.forget_user(&known.model, key);
        Some(known.uid)
    }

    fn forget_user(&mut self, model: &ObjectKey, key: &ObjectKey) {
        if let Some(users) = self.users.get_mut(model) {
            users.remove(key);
            if users.is_empty() {
                self.users.remove(model);
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
        if known.is_writing || known.word == Word::AsItIs || known.written.as_ref() == Some(&known.word) {
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

    fn word(text: &str) -> Word {
        Word::Own(OwnWord { invalid: (!text.is_empty()).then(|| text.to_owned()), ..OwnWord::default() })
    }

    #[test]
    fn nothing_is_written_before_it_is_known_whose_the_node_is_and_what_was_said_is_taken_back_once() {
        let mut devices = Devices::default();
        let mut put = |word: Word| devices.put(key("a"), "u".into(), key("m"), word).map(|(.., word)| word);
        assert_eq!(put(Word::AsItIs), None);
        // KubeEdge's: whatever another CloudCore of ours said of it before goes, and then it is left alone.
        assert_eq!(put(Word::Nothing), Some(Word::Nothing));
        assert_eq!(devices.ended("u", true), None);
        let mut put = |word: Word| devices.put(key("a"), "u".into(), key("m"), word).map(|(.., word)| word);
        assert_eq!((put(Word::Nothing), put(Word::AsItIs)), (None, None));
        // Adopted, and back again while that is written.
        assert_eq!(put(word("no model")), Some(word("no model")));
        assert_eq!(put(Word::Nothing), None);
        assert_eq!(devices.say_unsent("u", None), None);
        assert_eq!(devices.ended("u", true).map(|(.., word)| word), Some(Word::Nothing));
        assert_eq!(devices.users_of(&key("m")).count(), 1, "its model is known all the while");
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
        // Another model while its write is under way: what is to be said waits for that.
        assert_eq!(devices.put(key("a"), "u2".into(), key("o"), word("x")), None);
        assert_eq!((devices.users_of(&key("n")).count(), devices.users_of(&key("o")).count()), (0, 1));
        assert_eq!(devices.ended("u2", true), Some((key("a"), "u2".into(), word("x"))));
        devices.remove(&key("a"));
        assert_eq!((devices.users.len(), devices.ended("u2", true)), (0, None));
    }
}
