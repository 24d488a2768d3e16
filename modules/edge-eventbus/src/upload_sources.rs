//! Numbers what clients publish for the cloud, per source. Pure.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// A client and a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct UploadSource {
    pub(crate) client: Rc<str>,
    pub(crate) topic: Rc<str>,
}

/// The place of a message in its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SequenceNumber {
    pub(crate) boot: [u8; 16],
    pub(crate) sequence: u64,
}

#[derive(Debug)]
struct SourceCounter {
    number: SequenceNumber,
    used: u64,
}

/// Counts sources, at most as many as it has room for. Who was forgotten begins anew in a boot of its own, so that no
/// number is given twice.
pub(crate) struct UploadSources {
    room: usize,
    boot: [u8; 16],
    counted: HashMap<UploadSource, SourceCounter>,
    /// By their last use.
    order: BTreeMap<u64, UploadSource>,
    uses: u64,
    draw: Box<dyn Fn() -> [u8; 16]>,
}

impl UploadSources {
    /// MemoryPermit for `room` sources; boots are drawn with `draw`.
    pub(crate) fn new(room: usize, draw: impl Fn() -> [u8; 16] + 'static) -> Self {
        let boot = draw();
        let (counted, order) = (HashMap::new(), BTreeMap::new());
        UploadSources { room, boot, counted, order, uses: 0, draw: Box::new(draw) }
    }

    /// The next number of a source.
    pub(crate) fn next(&mut self, source: &UploadSource) -> SequenceNumber {
        self.uses += 1;
        let used = self.uses;
        if let Some(counted) = self.counted.get_mut(source) {
            self.order.remove(&counted.used);
            self.order.insert(used, source.clone());
            counted.used = used;
            counted.number.sequence += 1;
            return counted.number;
        }
        if self.counted.len() >= self.room
            && let Some((_, silent)) = self.order.pop_first()
        {
            self.counted.remove(&silent);
            self.boot = (self.draw)();
        }
        let number = SequenceNumber { boot: self.boot, sequence: 1 };
        self.counted.insert(source.clone(), SourceCounter { number, used });
        self.order.insert(used, source.clone());
        number
    }

    /// Takes back the last number of a source, which nobody has seen.
    pub(crate) fn take_back(&mut self, source: &UploadSource, number: SequenceNumber) {
        if let Some(counted) = self.counted.get_mut(source)
            && counted.number == number
        {
            counted.number.sequence -= 1;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.counted.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn sources(room: usize) -> UploadSources {
        let drawn = Cell::new(0);
        UploadSources::new(room, move || {
            drawn.set(drawn.get() + 1);
            [drawn.get(); 16]
        })
    }

    fn source(topic: &str) -> UploadSource {
        UploadSource { client: "c".into(), topic: topic.into() }
    }

    fn next(sources: &mut UploadSources, topic: &str) -> (u8, u64) {
        let number = sources.next(&source(topic));
        (number.boot[0], number.sequence)
    }

    #[test]
    fn each_source_is_counted_for_itself() {
        let mut sources = sources(8);
        assert_eq!(next(&mut sources, "a"), (1, 1));
        assert_eq!(next(&mut sources, "b"), (1, 1));
        assert_eq!(next(&mut sources, "a"), (1, 2));
        let other = UploadSource { client: "d".into(), topic: "a".into() };
        assert_eq!(sources.next(&other).sequence, 1);
    }

    #[test]
    fn who_was_forgotten_begins_in_another_boot() {
        let mut sources = sources(2);
        for (topic, wanted) in
            [("a", (1, 1)), ("b", (1, 1)), ("a", (1, 2)), ("c", (2, 1)), ("a", (1, 3)), ("b", (3, 1))]
        {
            assert_eq!(next(&mut sources, topic), wanted, "{topic}");
        }
        assert_eq!((sources.len(), sources.order.len()), (2, 2));
    }

    #[test]
    fn what_nobody_has_seen_is_given_again_and_what_was_given_since_stays() {
        let mut sources = sources(8);
        let numbers: Vec<SequenceNumber> = (0..3).map(|_| sources.next(&source("a"))).collect();
        for number in numbers.iter().rev() {
            sources.take_back(&source("a"), *number);
        }
        assert_eq!(next(&mut sources, "a"), (1, 1));
        sources.take_back(&source("a"), numbers[2]);
        sources.take_back(&source("never"), numbers[0]);
        assert_eq!(next(&mut sources, "a"), (1, 2));
    }
}
