//! Clients of a node's broker that publish for the cloud, and what the cloud's router is handed of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use beehive::Env;
use contract::{NodeName, Upload};
use edge_eventbus::{Publisher, Uploader};

use crate::violations::{Violations, note};

/// Each is a source of its own.
const TOPICS: [&str; 2] = ["meter/user/load", "$hw/events/upload/heat"];
/// 5 s: a client that has no PUBACK by then connects again.
const PATIENCE: Duration = Duration::from_secs(5);
/// A client that has so many to send again publishes nothing new.
const UNANSWERED_MAX: usize = 24;

/// A node, and one of [`TOPICS`].
type Source = (NodeName, String);

/// A client of QoS 1: what was not acknowledged is sent again over the next connection, in the same order.
#[derive(Default)]
pub(crate) struct MqttClient {
    last: [u64; TOPICS.len()],
    unanswered: VecDeque<(usize, u64)>,
}

/// What came of a burst.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Burst {
    pub(crate) accepted: usize,
    /// The outbox was at its bound.
    pub(crate) full: usize,
    pub(crate) unanswered: usize,
}

impl MqttClient {
    /// Connects, sends what has no answer, and `count` new ones. What was accepted goes to `accepted`.
    pub(crate) async fn publish(
        &mut self,
        env: &Env,
        intake: Option<Uploader>,
        count: usize,
        mut accepted: impl FnMut(&str, u64),
    ) -> Burst {
        let old = self.unanswered.len();
        for turn in 0..count.min(UNANSWERED_MAX.saturating_sub(old)) {
            let topic = turn % TOPICS.len();
            self.last[topic] += 1;
            self.unanswered.push_back((topic, self.last[topic]));
        }
        let Some(intake) = intake else {
            return Burst { unanswered: self.unanswered.len(), ..Burst::default() };
        };
        let connection = Rc::new(intake.connect("meter"));
        let sent = self.unanswered.iter().enumerate().map(|(place, (topic, number))| {
            let (connection, env) = (Rc::clone(&connection), env.clone());
            let (topic, number) = (TOPICS[*topic], *number);
            async move { env.timeout(PATIENCE, send(&connection, topic, number, place < old)).await }
        });
        let answers = futures::future::join_all(sent).await;
        let mut burst = Burst::default();
        for ((topic, number), answer) in std::mem::take(&mut self.unanswered).into_iter().zip(answers) {
            match answer {
                Some(Ok(())) => {
                    burst.accepted += 1;
                    accepted(TOPICS[topic], number);
                    continue;
                }
                Some(Err(why)) if why.contains("outbox") => burst.full += 1,
                Some(Err(_)) | None => burst.unanswered += 1,
            }
            self.unanswered.push_back((topic, number));
        }
        burst
    }
}

async fn send(connection: &Publisher, topic: &str, number: u64, dup: bool) -> Result<(), String> {
    connection.publish(topic, number.to_string().into(), dup).await
}

#[derive(Default)]
struct SourceLog {
    /// The last number of each boot.
    boots: BTreeMap<[u8; 16], u64>,
    /// Of which a copy came without the node's mark, by boot and place.
    unmarked: BTreeSet<([u8; 16], u64)>,
    newest: u64,
}

/// Stands at the mailbox of the router, whichever CloudCore's it is, and remembers what no restart forgets.
#[derive(Clone)]
pub(crate) struct UploadLog {
    heard: Arc<Mutex<BTreeMap<Source, SourceLog>>>,
    violations: Violations,
}

impl UploadLog {
    pub(crate) fn new(violations: &Violations) -> UploadLog {
        UploadLog { heard: Arc::default(), violations: Arc::clone(violations) }
    }

    /// The router is about to be handed these.
    pub(crate) fn see(&self, node: &NodeName, uploads: &[Upload]) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        for upload in uploads {
            let source = (node.clone(), upload.telemetry.topic.clone());
            if let Err(what) = heard.entry(source).or_default().take(upload) {
                note(&self.violations, format!("{node} {}: {what}", upload.telemetry.topic));
            }
        }
    }

    /// The newest that arrived of a source.
    pub(crate) fn newest(&self, node: &NodeName, topic: &str) -> u64 {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(&(node.clone(), topic.to_owned())).map_or(0, |heard| heard.newest)
    }
}

impl SourceLog {
    /// In order and without a gap, within a boot and over all boots; and of the copies of one at most one, the first that was sent, has no mark.
    /// It need not be the first to arrive: a node whose link is silent goes on to another CloudCore, and what the old one still hears comes after.
    fn take(&mut self, upload: &Upload) -> Result<(), String> {
        let Upload { repeat, telemetry, .. } = upload;
        let number: u64 = std::str::from_utf8(&telemetry.payload)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or("a payload that nobody published")?;
        if !repeat && !self.unmarked.insert((telemetry.boot, telemetry.sequence)) {
            return Err(format!("{number} came again without a mark"));
        }
        let last = self.boots.entry(telemetry.boot).or_default();
        if telemetry.sequence <= *last {
            return Ok(());
        }
        if telemetry.sequence > *last + 1 {
            return Err(format!("{number} has place {} after {last}", telemetry.sequence));
        }
        *last = telemetry.sequence;
        if number <= self.newest {
            // Published again by the client: a row of its own.
            return if telemetry.dup { Ok(()) } else { Err(format!("{number} came again without DUP")) };
        }
        if number > self.newest + 1 {
            return Err(format!("{number} came after {}", self.newest));
        }
        self.newest = number;
        Ok(())
    }
}
