//! Who talks to whom, as declared when addresses are granted.

use std::collections::{BTreeMap, BTreeSet};

use crate::WiringError;

/// What an address is granted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flow {
    /// [`crate::Address::try_tell`] only, which never waits: it may go round in a circle.
    TryTell,
    /// Telling and asking by the tasks that the actor has spawned; the actor itself only tries. It may go round in a
    /// circle, because the actor takes messages while its task waits.
    Spawned,
    /// Telling. Who waits for room must not wait in a circle.
    Tell,
    /// Telling and asking. Who waits for room or an answer must not wait in a circle.
    Ask,
    /// Telling and asking over a link, which may run in both directions because remote asks never wait for a mailbox.
    Remote,
    /// From a parent to its children, which it tells and asks; what they use was granted to their parent.
    Child,
}

/// The declared map of a hive.
#[derive(Debug, Clone, Default)]
pub struct Topology {
    actors: Vec<&'static str>,
    flows: BTreeSet<(&'static str, &'static str, Flow)>,
}

impl Topology {
    pub(crate) fn add(&mut self, actor: &'static str) {
        if !self.actors.contains(&actor) {
            self.actors.push(actor);
        }
    }

    pub(crate) fn connect(&mut self, from: &'static str, to: &'static str, flow: Flow) {
        self.flows.insert((from, to, flow));
    }

    pub(crate) fn add_child(&mut self, parent: &'static str, child: &'static str) {
        self.add(child);
        self.connect(parent, child, Flow::Child);
    }

    /// The declared flows: from, to, how.
    pub fn flows(&self) -> impl Iterator<Item = (&'static str, &'static str, Flow)> + '_ {
        self.flows.iter().copied()
    }

    /// Checks that no chain of actors that wait for each other comes back to where it began: an ask waits for the answer,
    /// a tell waits for room, and a parent does both with its children.
    ///
    /// # Errors
    /// [`WiringError::Circle`] with the circle.
    pub fn check(&self) -> Result<(), WiringError> {
        let mut downhill: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (from, to, flow) in self.flows() {
            if matches!(flow, Flow::Tell | Flow::Ask | Flow::Child) {
                downhill.entry(from).or_default().push(to);
            }
        }
        let mut done = BTreeSet::new();
        for start in downhill.keys() {
            let mut path = Vec::new();
            if let Some(circle) = circle_from(start, &downhill, &mut path, &mut done) {
                return Err(WiringError::Circle(circle));
            }
        }
        Ok(())
    }

    /// The map in the DOT language: solid arrows tell, bold ones ask, dotted ones never
    /// wait in the actor itself, tapered ones go to children, dashed ones cross a link.
    pub fn dot(&self, daemon: &str) -> String {
        let mut out = format!("digraph \"{daemon}\" {{\n  rankdir=LR;\n");
        for actor in &self.actors {
            out.push_str(&format!("  \"{actor}\" [shape=box];\n"));
        }
        for (from, to, flow) in self.flows() {
            let style = match flow {
                Flow::TryTell => "dotted",
                Flow::Spawned => "dotted",
                Flow::Tell => "solid",
                Flow::Child => "\"bold,tapered\"",
                Flow::Ask => "bold",
                Flow::Remote => "dashed",
            };
            out.push_str(&format!("  \"{from}\" -> \"{to}\" [style={style}];\n"));
        }
        out.push_str("}\n");
        out
    }

    /// The map as text, a line a flow.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (from, to, flow) in self.flows() {
            let arrow = match flow {
                Flow::TryTell => "tries to tell",
                Flow::Spawned => "reaches by spawned tasks",
                Flow::Tell => "tells",
                Flow::Child => "is the parent of",
                Flow::Ask => "asks",
                Flow::Remote => "reaches over the link",
            };
            out.push_str(&format!("{from} {arrow} {to}\n"));
        }
        out
    }
}

fn circle_from<'a>(
    at: &'a str,
    downhill: &BTreeMap<&'a str, Vec<&'a str>>,
    path: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
) -> Option<Vec<String>> {
    if let Some(begin) = path.iter().position(|seen| *seen == at) {
        let mut circle: Vec<String> = path.iter().skip(begin).map(|s| (*s).to_owned()).collect();
        circle.push(at.to_owned());
        return Some(circle);
    }
    if done.contains(at) {
        return None;
    }
    path.push(at);
    for next in downhill.get(at).into_iter().flatten() {
        if let Some(circle) = circle_from(next, downhill, path, done) {
            return Some(circle);
        }
    }
    path.pop();
    done.insert(at);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_of_waiting_actors_is_named() {
        let mut map = Topology::default();
        map.connect("a", "b", Flow::Ask);
        map.connect("b", "c", Flow::Ask);
        map.connect("c", "b", Flow::TryTell);
        map.connect("c", "a", Flow::Spawned);
        map.connect("c", "a", Flow::Remote);
        assert_eq!(map.check(), Ok(()));
        map.connect("c", "a", Flow::Tell);
        let Err(WiringError::Circle(circle)) = map.check() else { panic!("not found") };
        assert_eq!(circle, ["a", "b", "c", "a"]);
    }

    #[test]
    fn a_child_that_waits_for_its_parents_neighbour_waits_in_its_parents_name() {
        let mut map = Topology::default();
        map.add_child("a", "worker");
        map.connect("a", "b", Flow::Tell);
        assert_eq!(map.check(), Ok(()));
        map.connect("worker", "a", Flow::Tell);
        let Err(WiringError::Circle(circle)) = map.check() else { panic!("not found") };
        assert_eq!(circle, ["a", "worker", "a"]);
    }
}
