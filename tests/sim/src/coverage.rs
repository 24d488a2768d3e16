//! Which actors have panicked at which of their messages, over many runs.

use std::collections::{BTreeMap, BTreeSet};

use crate::actors::{ACTORS, ActorMessage};
use crate::outcome::Outcome;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Coverage {
    panics: BTreeMap<ActorMessage, usize>,
    handed: BTreeSet<ActorMessage>,
}

impl Coverage {
    /// Adds what one run came to.
    pub fn add(&mut self, outcome: &Outcome) {
        for (at, times) in &outcome.panics {
            *self.panics.entry(*at).or_default() += times;
        }
        self.handed.extend(&outcome.handed);
    }

    /// The actors that have never panicked.
    pub fn actors_never_hit(&self) -> Vec<&'static str> {
        let names = ACTORS.into_iter().map(|kind| kind.name);
        names.filter(|name| !self.panics.keys().any(|(actor, _)| actor == name)).collect()
    }

    /// The figure, and a line for each actor.
    pub fn lines(&self) -> Vec<String> {
        let (mut hit, mut all) = (0, 0);
        let mut lines = Vec::new();
        for kind in ACTORS {
            let panicked = |message: &str| self.panics.keys().any(|at| *at == (kind.name, message));
            let times: usize = self
                .panics
                .iter()
                .filter(|((actor, _), _)| *actor == kind.name)
                .map(|(_, times)| times)
                .sum();
            let (at, never): (Vec<&str>, Vec<&str>) =
                kind.messages.iter().copied().partition(|message| panicked(message));
            hit += at.len();
            all += kind.messages.len();
            let mut line = format!("{times:>8} panics of {} at {}", kind.name, at.join(", "));
            for phase in ["started", beehive::testing::TASK].into_iter().filter(|phase| panicked(phase)) {
                line += &format!(", {phase}");
            }
            let (seen, unseen): (Vec<&str>, Vec<&str>) = never.into_iter().partition(|message| {
                !kind.is_top || self.handed.iter().any(|at| *at == (kind.name, *message))
            });
            if !seen.is_empty() {
                line += &format!("; never at {}", seen.join(", "));
            }
            if !unseen.is_empty() {
                line += &format!("; was never handed {}", unseen.join(", "));
            }
            lines.push(line);
        }
        let actors = ACTORS.len() - self.actors_never_hit().len();
        lines.insert(
            0,
            format!("{actors} of {} actors have panicked, at {hit} of {all} kinds of messages", ACTORS.len()),
        );
        lines
    }
}
