//! What arrived, per node and source. Pure.

use std::collections::{BTreeMap, VecDeque};

use beehive::Sample;
use contract::{NodeName, Telemetry, Upload};
use serde_json::{Value, json};

/// 64 sources of one node are told apart; the one that was silent longest makes room.
pub const SOURCES_OF_A_NODE: usize = 64;
/// 16 384 sources of all nodes: 20 MB with the longest names. Beyond it the node that has most makes room.
pub const SOURCES: usize = 16_384;
/// 4096 nodes are remembered, linked or not; the one that was silent longest makes room.
pub const NODES: usize = 4096;
/// 4 boots of a source: a node that restarts sends again what it had left of the one before.
pub const BOOTS: usize = 4;
/// 128 bytes: the longest client id that a node's broker takes.
pub const CLIENT_BYTES: usize = 128;
/// 1 KiB: the longest topic that a node's broker takes.
pub const TOPIC_BYTES: usize = 1024;
/// 1024 sources at most are shown, those of the nodes that were heard last.
const SHOWN: usize = 1024;

/// How a message stands to the sequence of its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceCheck {
    /// The next of its source.
    Next,
    /// A later one: some before it are missing.
    Gap {
        /// How many.
        missing: u64,
    },
    /// It was here before.
    Duplicate,
    /// No node of ours would send it.
    Refused {
        /// Why.
        why: &'static str,
        /// How often that node has sent such.
        times: u64,
    },
}

/// Where a source was last counted.
#[derive(Debug, Clone, Copy)]
struct Boot {
    id: [u8; 16],
    last: u64,
}

#[derive(Debug, Default)]
struct Source {
    /// The newest last.
    boots: VecDeque<Boot>,
    received: u64,
    bytes: u64,
    missing: u64,
    repeats: u64,
    /// Came again without the node's word that it might.
    unmarked: u64,
    sent_again: u64,
    heard: u64,
}

impl Source {
    fn take(&mut self, telemetry: &Telemetry) -> SequenceCheck {
        let Telemetry { boot: id, sequence, .. } = telemetry;
        if let Some(boot) = self.boots.iter_mut().find(|boot| boot.id == *id) {
            let missing = match sequence.checked_sub(boot.last) {
                None | Some(0) => return SequenceCheck::Duplicate,
                Some(steps) => steps - 1,
            };
            boot.last = *sequence;
            return if missing == 0 { SequenceCheck::Next } else { SequenceCheck::Gap { missing } };
        }
        // Counting begins at 1; whoever is heard for the first time may have begun long ago.
        let missing = if self.boots.is_empty() { 0 } else { sequence - 1 };
        if self.boots.len() >= BOOTS {
            self.boots.pop_front();
        }
        self.boots.push_back(Boot { id: *id, last: *sequence });
        if missing == 0 { SequenceCheck::Next } else { SequenceCheck::Gap { missing } }
    }

    fn count(&mut self, check: SequenceCheck, upload: &Upload) {
        match check {
            SequenceCheck::Next => self.received += 1,
            SequenceCheck::Gap { missing } => {
                self.received += 1;
                self.missing = self.missing.saturating_add(missing);
            }
            SequenceCheck::Duplicate => {
                self.repeats += 1;
                self.unmarked += u64::from(!upload.repeat);
                return;
            }
            SequenceCheck::Refused { .. } => return,
        }
        self.bytes += upload.telemetry.payload.len() as u64;
        self.sent_again += u64::from(upload.telemetry.dup);
    }

    fn view(&self, (client, topic): &(String, String)) -> Value {
        let boot = self.boots.back();
        json!({
            "client": client,
            "topic": topic,
            "boot": boot.map(|boot| hex::encode(boot.id)),
            "last": boot.map(|boot| boot.last),
            "received": self.received,
            "bytes": self.bytes,
            "missing": self.missing,
            "repeats": self.repeats,
            "unmarkedRepeats": self.unmarked,
            "sentAgainByClient": self.sent_again,
        })
    }
}

#[derive(Debug, Default)]
struct Node {
    sources: BTreeMap<(String, String), Source>,
    received: u64,
    repeats: u64,
    missing: u64,
    refused: u64,
    /// Messages with uploads that were skipped.
    skipped: u64,
    forgotten: u64,
    heard: u64,
}

impl Node {
    /// Forgets the source that was silent longest.
    fn make_room(&mut self) {
        let silent = self.sources.iter().min_by_key(|(_, source)| source.heard);
        if let Some(name) = silent.map(|(name, _)| name.clone()) {
            self.sources.remove(&name);
            self.forgotten += 1;
        }
    }
}

/// What arrived.
#[derive(Debug, Default)]
pub struct TelemetryTracker {
    nodes: BTreeMap<NodeName, Node>,
    sources: usize,
    forgotten_nodes: u64,
    clock: u64,
}

impl TelemetryTracker {
    /// Enters a message.
    pub fn take(&mut self, name: &NodeName, upload: &Upload) -> SequenceCheck {
        self.hear(name);
        let telemetry = &upload.telemetry;
        let defect = defect(telemetry);
        let key = (telemetry.client.clone(), telemetry.topic.clone());
        let known = self.nodes.get(name).is_some_and(|node| node.sources.contains_key(&key));
        if defect.is_none() && !known {
            self.make_room(name);
        }
        let node = self.nodes.entry(name.clone()).or_default();
        if let Some(why) = defect {
            node.refused += 1;
            return SequenceCheck::Refused { why, times: node.refused };
        }
        let source = node.sources.entry(key).or_default();
        source.heard = self.clock;
        let check = source.take(telemetry);
        source.count(check, upload);
        match check {
            SequenceCheck::Next => node.received += 1,
            SequenceCheck::Gap { missing } => {
                node.received += 1;
                node.missing = node.missing.saturating_add(missing);
            }
            SequenceCheck::Duplicate => node.repeats += 1,
            SequenceCheck::Refused { .. } => {}
        }
        check
    }

    /// So many uploads of one message are not understood: they count as refused. Answers how many such messages the node has
    /// sent.
    pub fn skip(&mut self, name: &NodeName, uploads: usize) -> u64 {
        let node = self.hear(name);
        node.refused += uploads as u64;
        node.skipped += 1;
        node.skipped
    }

    /// The node is the one that was heard last.
    fn hear(&mut self, name: &NodeName) -> &mut Node {
        self.clock += 1;
        if !self.nodes.contains_key(name) && self.nodes.len() >= NODES {
            self.forget_a_node();
        }
        let node = self.nodes.entry(name.clone()).or_default();
        node.heard = self.clock;
        node
    }

    /// Makes room for one more source of this node, and counts it.
    fn make_room(&mut self, name: &NodeName) {
        let own = self.nodes.get_mut(name).filter(|node| node.sources.len() >= SOURCES_OF_A_NODE);
        if let Some(node) = own {
            node.make_room();
        } else if self.sources >= SOURCES {
            if let Some(node) = self.nodes.values_mut().max_by_key(|node| node.sources.len()) {
                node.make_room();
            }
        } else {
            self.sources += 1;
        }
    }

    fn forget_a_node(&mut self) {
        let silent = self.nodes.iter().min_by_key(|(_, node)| node.heard).map(|(name, _)| name.clone());
        if let Some(node) = silent.and_then(|name| self.nodes.remove(&name)) {
            self.sources -= node.sources.len();
            self.forgotten_nodes += 1;
        }
    }

    /// The gauges of each node that is remembered. Its sources have none: their names are the clients' choice.
    pub fn samples(&self) -> Vec<Sample> {
        // Counts are far below 2^53.
        let of =
            |name, node: &NodeName, count: u64| Sample::new(name, count as f64).of("node", node.as_str());
        let each = |(name, node): (&NodeName, &Node)| {
            [
                of("kubehive_node_telemetry_received_total", name, node.received),
                of("kubehive_node_telemetry_repeats_total", name, node.repeats),
                of("kubehive_node_telemetry_missing_total", name, node.missing),
                of("kubehive_node_telemetry_refused_total", name, node.refused),
            ]
        };
        self.nodes.iter().flat_map(each).collect()
    }

    /// For a person.
    pub fn view(&self) -> Value {
        let mut nodes: Vec<(&NodeName, &Node)> = self.nodes.iter().collect();
        nodes.sort_by_key(|(_, node)| std::cmp::Reverse(node.heard));
        let mut room = SHOWN;
        let mut shown = serde_json::Map::new();
        for (name, node) in nodes {
            let sources: Vec<Value> =
                node.sources.iter().take(room).map(|(name, source)| source.view(name)).collect();
            room -= sources.len();
            let view = json!({
                "received": node.received,
                "missing": node.missing,
                "repeats": node.repeats,
                "refused": node.refused,
                "forgottenSources": node.forgotten,
                "sources": sources,
            });
            shown.insert(name.to_string(), view);
        }
        let sum = |of: fn(&Node) -> u64| self.nodes.values().map(of).fold(0, u64::saturating_add);
        json!({
            "received": sum(|node| node.received),
            "missing": sum(|node| node.missing),
            "repeats": sum(|node| node.repeats),
            "refused": sum(|node| node.refused),
            "sources": self.sources,
            "forgottenSources": sum(|node| node.forgotten),
            "forgottenNodes": self.forgotten_nodes,
            "nodes": shown,
        })
    }
}

fn defect(telemetry: &Telemetry) -> Option<&'static str> {
    if telemetry.client.len() > CLIENT_BYTES {
        Some("client id is longer than 128 bytes")
    } else if telemetry.topic.is_empty() || telemetry.topic.len() > TOPIC_BYTES {
        Some("topic is empty or longer than 1024 bytes")
    } else if telemetry.sequence == 0 {
        Some("counting begins at 1")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).unwrap()
    }

    fn upload(topic: &str, boot: u8, sequence: u64, repeat: bool) -> Upload {
        let telemetry = Telemetry {
            client: "c".to_owned(),
            topic: topic.to_owned(),
            boot: [boot; 16],
            sequence,
            dup: false,
            qos: 1,
            payload: "ab".into(),
        };
        Upload { row: 1, repeat, telemetry }
    }

    #[test]
    fn a_source_is_counted_within_its_boot_and_over_it() {
        let mut tracker = TelemetryTracker::default();
        let mut take = |boot, sequence| tracker.take(&node("a"), &upload("t", boot, sequence, true));
        // Whoever is heard for the first time may have begun long ago.
        assert_eq!(take(1, 5), SequenceCheck::Next);
        assert_eq!(take(1, 6), SequenceCheck::Next);
        assert_eq!(take(1, 9), SequenceCheck::Gap { missing: 2 });
        assert_eq!(take(1, 9), SequenceCheck::Duplicate);
        assert_eq!(take(1, 7), SequenceCheck::Duplicate);
        assert_eq!(take(2, 1), SequenceCheck::Next);
        assert_eq!(take(3, 3), SequenceCheck::Gap { missing: 2 });
        // What was left of the boot before comes again.
        assert_eq!(take(1, 9), SequenceCheck::Duplicate);
        assert_eq!(take(2, 1), SequenceCheck::Duplicate);
        assert_eq!(take(3, 4), SequenceCheck::Next);
        let view = tracker.view();
        let source = &view["nodes"]["a"]["sources"][0];
        assert_eq!((&source["received"], &source["missing"]), (&json!(6), &json!(4)), "{view}");
        assert_eq!((&source["repeats"], &source["unmarkedRepeats"]), (&json!(4), &json!(0)), "{view}");
        assert_eq!((&source["last"], &source["bytes"]), (&json!(4), &json!(12)), "{view}");
        assert_eq!(source["boot"], "03".repeat(16));
        assert_eq!((&view["received"], &view["sources"]), (&json!(6), &json!(1)));
    }

    #[test]
    fn a_repeat_without_its_mark_is_told() {
        let mut tracker = TelemetryTracker::default();
        for _ in 0..2 {
            tracker.take(&node("a"), &upload("t", 1, 1, false));
        }
        assert_eq!(tracker.view()["nodes"]["a"]["sources"][0]["unmarkedRepeats"], 1);
    }

    #[test]
    fn what_no_node_of_ours_sends_is_refused_and_takes_no_room() {
        let mut tracker = TelemetryTracker::default();
        let mut bad = upload("t", 1, 1, false);
        bad.telemetry.client = "x".repeat(CLIENT_BYTES + 1);
        for bad in
            [bad, upload("", 1, 1, false), upload(&"x".repeat(1025), 1, 1, false), upload("t", 1, 0, false)]
        {
            assert!(matches!(tracker.take(&node("a"), &bad), SequenceCheck::Refused { .. }));
        }
        let view = tracker.view();
        assert_eq!(
            (&view["refused"], &view["sources"], &view["received"]),
            (&json!(4), &json!(0), &json!(0))
        );
    }

    #[test]
    fn one_nodes_flood_of_topics_forgets_its_own_sources_only() {
        let mut tracker = TelemetryTracker::default();
        tracker.take(&node("quiet"), &upload("t", 1, 1, false));
        for n in 0..10 * SOURCES_OF_A_NODE as u64 {
            tracker.take(&node("loud"), &upload(&format!("t/{n}"), 1, 1, false));
            // A source that speaks stays.
            assert_eq!(tracker.take(&node("loud"), &upload("spoken", 1, n + 1, false)), SequenceCheck::Next);
        }
        let view = tracker.view();
        assert_eq!(view["nodes"]["loud"]["sources"].as_array().unwrap().len(), SOURCES_OF_A_NODE);
        assert_eq!(view["nodes"]["loud"]["forgottenSources"], 9 * SOURCES_OF_A_NODE as u64 + 1);
        assert_eq!(view["nodes"]["quiet"]["sources"].as_array().unwrap().len(), 1);
        assert_eq!(view["sources"], SOURCES_OF_A_NODE + 1);
    }

    #[test]
    fn many_nodes_stay_within_the_bounds() {
        let mut tracker = TelemetryTracker::default();
        for n in 0..NODES + 10 {
            for topic in 0..5 {
                tracker.take(&node(&format!("n{n}")), &upload(&format!("t/{topic}"), 1, 1, false));
            }
        }
        let counted: usize = tracker.nodes.values().map(|node| node.sources.len()).sum();
        assert_eq!((tracker.nodes.len(), tracker.forgotten_nodes), (NODES, 10));
        assert_eq!(counted, tracker.sources);
        assert!((SOURCES - 100..=SOURCES).contains(&counted), "{counted}");
        let view = tracker.view();
        let shown: usize = view["nodes"]
            .as_object()
            .unwrap()
            .values()
            .map(|node| node["sources"].as_array().unwrap().len())
            .sum();
        assert_eq!(shown, SHOWN);
    }

    proptest! {
        // Whatever is sent again, and wherever sending broke off: each number of a boot is counted once.
        #[test]
        fn what_is_sent_again_is_never_counted_twice(cuts in proptest::collection::vec((1_u64..20, 0_u64..30), 1..20)) {
            let mut tracker = TelemetryTracker::default();
            let (mut sent, mut seen) = (0, 0);
            for (more, back) in cuts {
                let from = sent - back.min(sent);
                for sequence in from + 1..=sent + more {
                    let check = tracker.take(&node("a"), &upload("t", 1, sequence, sequence <= sent));
                    prop_assert_eq!(check, if sequence <= seen { SequenceCheck::Duplicate } else { SequenceCheck::Next });
                    seen = seen.max(sequence);
                }
                sent += more;
            }
            let view = tracker.view();
            let source = &view["nodes"]["a"]["sources"][0];
            prop_assert_eq!(&source["received"], &json!(sent));
            prop_assert_eq!(&source["unmarkedRepeats"], &json!(0));
        }
    }
}
