//! What became of a message, and which of those that come again were there before. Pure.

use std::collections::{BTreeMap, VecDeque};

use contract::{NodeName, Upload};
use http::StatusCode;

/// 16 384 sources of which it is known up to where the target has them.
const SOURCES_MAX: usize = 16_384;

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The target has it.
    Delivered,
    /// The target never will take it: it is given up, and counted.
    Refused(String),
    /// Not now: it stays, and so does everything behind it.
    Later(String),
}

/// What a target's status means. It has the message with 2xx. What it says of the message itself will be the same the next time;
/// whatever else it says - it is away, overloaded, moved, or wants a credential - somebody can mend.
pub fn outcome(status: StatusCode) -> Outcome {
    let said = || format!("the target answered {status}");
    match status.as_u16() {
        200..=299 => Outcome::Delivered,
        400 | 405 | 406 | 409 | 410 | 411 | 413 | 414 | 415 | 417 | 422 | 431 | 451 => {
            Outcome::Refused(said())
        }
        _ => Outcome::Later(said()),
    }
}

type Source = (NodeName, String, String);

/// Up to where targets have the messages of a source, so that one whose confirmation was lost on the way to its node is not posted
/// again. What was forgotten is posted again.
#[derive(Debug, Default)]
pub struct DeliveredMessages {
    newest: BTreeMap<Source, ([u8; 16], u64)>,
    order: VecDeque<Source>,
}

fn source(node: &NodeName, upload: &Upload) -> Source {
    (node.clone(), upload.telemetry.topic.clone(), upload.telemetry.client.clone())
}

impl DeliveredMessages {
    /// Whether the target has it.
    pub fn has(&self, node: &NodeName, upload: &Upload) -> bool {
        let newest = self.newest.get(&source(node, upload));
        newest.is_some_and(|(boot, sequence)| {
            *boot == upload.telemetry.boot && upload.telemetry.sequence <= *sequence
        })
    }

    /// The target has it, or never will: each source's messages come in order.
    pub fn add(&mut self, node: &NodeName, upload: &Upload) {
        let source = source(node, upload);
        let newest = (upload.telemetry.boot, upload.telemetry.sequence);
        if self.newest.insert(source.clone(), newest).is_none() {
            self.order.push_back(source);
        }
        if self.order.len() > SOURCES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.newest.remove(&oldest);
        }
    }
}

/// Uploads by their topics, in order.
pub fn by_topic(uploads: Vec<Upload>) -> BTreeMap<String, Vec<Upload>> {
    let mut topics: BTreeMap<String, Vec<Upload>> = BTreeMap::new();
    for upload in uploads {
        topics.entry(upload.telemetry.topic.clone()).or_default().push(upload);
    }
    topics
}

/// The name of a message, the same each time that it comes: a target that remembers it takes it once.
pub fn idempotency_key(node: &NodeName, upload: &Upload) -> String {
    use sha2::{Digest as _, Sha256};
    let telemetry = &upload.telemetry;
    let mut hash = Sha256::new();
    for part in [node.as_str(), &telemetry.topic, &telemetry.client] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.update(telemetry.boot);
    hash.update(telemetry.sequence.to_le_bytes());
    hex::encode(&hash.finalize()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::Telemetry;

    fn upload(topic: &str, client: &str, boot: u8, sequence: u64) -> Upload {
        let telemetry = Telemetry {
            client: client.to_owned(),
            topic: topic.to_owned(),
            boot: [boot; 16],
            sequence,
            dup: false,
            qos: 1,
            payload: "x".into(),
        };
        Upload { row: 1, repeat: false, telemetry }
    }

    fn node() -> NodeName {
        NodeName::parse("n").unwrap()
    }

    #[test]
    fn only_what_is_said_of_the_message_itself_is_for_good() {
        let is = |code: u16| match outcome(StatusCode::from_u16(code).unwrap()) {
            Outcome::Delivered => "delivered",
            Outcome::Refused(_) => "refused",
            Outcome::Later(_) => "later",
        };
        for (codes, expected) in [
            (&[200, 201, 204, 299][..], "delivered"),
            (&[400, 409, 413, 415, 422], "refused"),
            (&[100, 301, 307, 401, 403, 404, 407, 408, 423, 425, 429, 500, 502, 503, 504], "later"),
        ] {
            for code in codes {
                assert_eq!(is(*code), expected, "{code}");
            }
        }
    }

    #[test]
    fn what_the_target_has_is_known_by_source_and_boot() {
        let mut delivered = DeliveredMessages::default();
        delivered.add(&node(), &upload("t", "c", 1, 5));
        assert!(
            delivered.has(&node(), &upload("t", "c", 1, 5))
                && delivered.has(&node(), &upload("t", "c", 1, 4))
        );
        for other in
            [upload("t", "c", 1, 6), upload("t", "c", 2, 5), upload("t", "d", 1, 5), upload("u", "c", 1, 5)]
        {
            assert!(!delivered.has(&node(), &other));
        }
        for n in 0..SOURCES_MAX {
            delivered.add(&node(), &upload("t", &format!("c{n}"), 1, 1));
        }
        assert!(!delivered.has(&node(), &upload("t", "c", 1, 5)), "the oldest makes room");
        assert_eq!(delivered.newest.len(), SOURCES_MAX);
    }

    #[test]
    fn a_message_has_one_name_and_no_other_message_has_it() {
        let key = |topic: &str, client: &str, sequence| {
            idempotency_key(&node(), &upload(topic, client, 1, sequence))
        };
        assert_eq!(key("a", "b", 1), key("a", "b", 1));
        assert_ne!(key("a", "b", 1), key("a", "b", 2));
        assert_ne!(key("ab", "c", 1), key("a", "bc", 1));
        let topics = by_topic(vec![upload("b", "c", 1, 1), upload("a", "c", 1, 1), upload("b", "c", 1, 2)]);
        let sequences: Vec<u64> = topics["b"].iter().map(|upload| upload.telemetry.sequence).collect();
        assert_eq!((topics.len(), sequences), (2, vec![1, 2]));
    }
}
