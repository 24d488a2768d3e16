//! What was counted of rules and is not in their status yet. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use beehive::Moment;
use contract::ObjectKey;
use serde_json::{Value, json};

/// 10 sentences of a rule's status.
pub const ERRORS_MAX: usize = 10;
/// 512 bytes of one.
const ERROR_BYTES: usize = 512;
/// 5 s between two writes of one rule's status.
const WRITE_EVERY: Duration = Duration::from_secs(5);
/// 60 s until the same sentence is written again, with a later time.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// 32 statuses are written at once.
const WRITES: usize = 32;
/// 4096 rules are counted at once: more than a CloudCore serves.
const RULES_MAX: usize = 4096;

/// What is new of a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    /// Messages that the target has taken.
    pub successes: i64,
    /// Messages that it never will.
    pub failures: i64,
    /// Sentences, the newest last.
    pub errors: VecDeque<String>,
}

impl News {
    fn is_empty(&self) -> bool {
        self.successes == 0 && self.failures == 0 && self.errors.is_empty()
    }

    fn say(&mut self, sentence: String) {
        self.errors.retain(|said| *said != sentence);
        self.errors.push_back(sentence);
        if self.errors.len() > ERRORS_MAX {
            self.errors.pop_front();
        }
    }

    fn add(&mut self, other: News) {
        self.successes = self.successes.saturating_add(other.successes);
        self.failures = self.failures.saturating_add(other.failures);
        other.errors.into_iter().for_each(|sentence| self.say(sentence));
    }
}

#[derive(Debug, Default)]
struct Counted {
    uid: String,
    news: News,
    /// On its way to the API server.
    writing: Option<News>,
    written: Option<Moment>,
    /// What was said last, and when.
    said: Option<(String, Moment)>,
}

/// What was counted of rules.
#[derive(Debug, Default)]
pub struct StatusBook {
    rules: BTreeMap<ObjectKey, Counted>,
}

/// A status to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusToWrite {
    /// The Rule.
    pub key: ObjectKey,
    /// Which one of that name.
    pub uid: String,
    /// What is new.
    pub news: News,
}

impl StatusBook {
    fn of(&mut self, key: &ObjectKey, uid: &str) -> Option<&mut Counted> {
        if !self.rules.contains_key(key) && self.rules.len() >= RULES_MAX {
            return None;
        }
        let counted = self.rules.entry(key.clone()).or_default();
        if counted.uid != uid {
            *counted = Counted { uid: uid.to_owned(), ..Counted::default() };
        }
        Some(counted)
    }

    /// The target has taken a message.
    pub fn succeeded(&mut self, key: &ObjectKey, uid: &str) {
        if let Some(counted) = self.of(key, uid) {
            counted.news.successes += 1;
        }
    }

    /// The target never will take a message, or a call has failed.
    pub fn failed(&mut self, key: &ObjectKey, uid: &str, why: &str) {
        if let Some(counted) = self.of(key, uid) {
            counted.news.failures += 1;
            counted.news.say(cut(why));
        }
    }

    /// Something stands in the way, and nothing is lost yet. The same sentence counts once in [`SAY_AGAIN`].
    pub fn said(&mut self, key: &ObjectKey, uid: &str, why: &str, now: Moment) {
        let Some(counted) = self.of(key, uid) else { return };
        let sentence = cut(why);
        let is_said = |(said, at): &(String, Moment)| *said == sentence && now.since(*at) < SAY_AGAIN;
        if !counted.said.as_ref().is_some_and(is_said) {
            counted.said = Some((sentence.clone(), now));
            counted.news.say(sentence);
        }
    }

    /// Only these rules are there.
    pub fn retain(&mut self, is_there: impl Fn(&ObjectKey, &str) -> bool) {
        self.rules.retain(|key, counted| is_there(key, &counted.uid));
    }

    /// What is to be written now. Each is to be [`StatusBook::ended`].
    pub fn due(&mut self, now: Moment) -> Vec<StatusToWrite> {
        let busy = self.rules.values().filter(|counted| counted.writing.is_some()).count();
        let mut due = Vec::new();
        for (key, counted) in &mut self.rules {
            if busy + due.len() >= WRITES {
                break;
            }
            let is_soon = counted.written.is_some_and(|at| now.since(at) < WRITE_EVERY);
            if counted.news.is_empty() || counted.writing.is_some() || is_soon {
                continue;
            }
            let news = std::mem::take(&mut counted.news);
            (counted.writing, counted.written) = (Some(news.clone()), Some(now));
            due.push(StatusToWrite { key: key.clone(), uid: counted.uid.clone(), news });
        }
        due
    }

    /// Everything that is not on its way, however soon after the last write: before CloudCore ends.
    pub fn rest(&mut self) -> Vec<StatusToWrite> {
        let rest = self
            .rules
            .iter_mut()
            .filter(|(_, counted)| !counted.news.is_empty() && counted.writing.is_none());
        let rest = rest.map(|(key, counted)| {
            let news = std::mem::take(&mut counted.news);
            StatusToWrite { key: key.clone(), uid: counted.uid.clone(), news }
        });
        rest.collect()
    }

    /// A write has ended. What was not written is to be written with what has come since.
    pub fn ended(&mut self, key: &ObjectKey, is_written: bool) {
        let Some(counted) = self.rules.get_mut(key) else { return };
        let Some(writing) = counted.writing.take() else { return };
        if !is_written {
            let newer = std::mem::replace(&mut counted.news, writing);
            counted.news.add(newer);
        }
    }

    /// Whether nothing waits to be written.
    pub fn is_written(&self) -> bool {
        self.rules.values().all(|counted| counted.news.is_empty() && counted.writing.is_none())
    }
}

fn cut(sentence: &str) -> String {
    let printable = sentence.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    let mut cut = String::new();
    for letter in printable {
        if cut.len() + letter.len_utf8() > ERROR_BYTES {
            break;
        }
        cut.push(letter);
    }
    cut
}

/// The status with the news in it. `time` stands before each new sentence, and one that stood there before is taken out.
pub fn merged(held: &Value, news: &News, time: &str) -> Value {
    let count = |key: &str| held.get(key).and_then(Value::as_i64).unwrap_or(0);
    let stood = held.get("errors").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let is_new = |stood: &&str| {
        let sentence = stood.split_once(' ').map_or("", |(_, sentence)| sentence);
        !news.errors.iter().any(|new| new == sentence || new == stood)
    };
    let mut errors: VecDeque<String> = stood.filter(is_new).map(cut).collect();
    errors.extend(news.errors.iter().map(|sentence| format!("{time} {sentence}")));
    while errors.len() > ERRORS_MAX {
        errors.pop_front();
    }
    json!({
        "successMessages": count("successMessages").saturating_add(news.successes),
        "failMessages": count("failMessages").saturating_add(news.failures),
        "errors": errors,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::ids::RULES;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(RULES, "d", name)
    }

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    #[test]
    fn counts_are_written_together_and_none_is_lost_by_a_write_that_fails() {
        let mut book = StatusBook::default();
        book.succeeded(&key("a"), "u");
        book.failed(&key("a"), "u", "no");
        let due = book.due(at(0));
        assert_eq!((due.len(), due[0].news.successes, due[0].news.failures), (1, 1, 1));
        book.succeeded(&key("a"), "u");
        assert!(book.due(at(9)).is_empty(), "one write at a time");
        book.ended(&key("a"), false);
        assert!(book.due(at(4)).is_empty(), "not so soon");
        let due = book.due(at(5));
        assert_eq!((due[0].news.successes, due[0].news.failures), (2, 1));
        assert_eq!(due[0].news.errors, ["no"]);
        book.ended(&key("a"), true);
        assert!(book.is_written() && book.due(at(99)).is_empty());
    }

    #[test]
    fn a_rule_that_was_made_anew_counts_from_nothing_and_one_that_is_gone_is_forgotten() {
        let mut book = StatusBook::default();
        book.succeeded(&key("a"), "u");
        book.succeeded(&key("a"), "v");
        book.succeeded(&key("b"), "u");
        book.retain(|key, _| key.name == "a");
        let due = book.due(at(0));
        assert_eq!((due.len(), due[0].uid.as_str(), due[0].news.successes), (1, "v", 1));
    }

    #[test]
    fn what_stands_in_the_way_is_said_once_a_minute() {
        let mut book = StatusBook::default();
        for (second, written) in [(0, 1), (10, 0), (59, 0), (60, 1)] {
            book.said(&key("a"), "u", "away", at(second));
            let due = book.due(at(second));
            assert_eq!(due.len(), written, "{second}");
            book.ended(&key("a"), true);
        }
    }

    #[test]
    fn a_status_holds_the_newest_sentences_each_once() {
        let mut news = News { successes: 2, failures: 1, errors: VecDeque::new() };
        news.say("b".to_owned());
        let held = json!({"successMessages": 40, "errors": ["1 a", "1 b", "c", 7]});
        let status = merged(&held, &news, "2");
        assert_eq!(status, json!({"successMessages": 42, "failMessages": 1, "errors": ["1 a", "c", "2 b"]}));
        for n in 0..30 {
            news.say(format!("{n}"));
        }
        assert_eq!(news.errors.len(), ERRORS_MAX);
        let status = merged(&status, &news, "3");
        assert_eq!(status["errors"].as_array().unwrap().len(), ERRORS_MAX);
        assert_eq!(status["errors"][ERRORS_MAX - 1], "3 29");
        assert_eq!(merged(&json!("x"), &News::default(), "4")["successMessages"], 0);
        assert_eq!(cut(&format!("{}ä\n", "x".repeat(ERROR_BYTES - 1))).len(), ERROR_BYTES - 1);
    }
}
