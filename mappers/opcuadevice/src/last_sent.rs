//! What is known of the properties that a server sends by itself, and which of them it may have stopped to send. Pure.
//!
//! That a server lives says nothing of a single node: one that was deleted and made anew under the same name is another one to it, and
//! nothing is sent of it any more. So each is looked at now and then, and what that finds counts.

use std::collections::BTreeMap;

use framework::{Fault, Value};

type Outcome = Result<Value, Fault>;

/// All properties of a subscription, by their places.
#[derive(Debug, Default)]
pub(crate) struct LastSent(BTreeMap<usize, Property>);

#[derive(Debug, Default)]
struct Property {
    /// How far a number has to move to be told.
    deadband: Option<f64>,
    /// What was told last.
    last: Option<Outcome>,
    /// The server has sent it since the last look began.
    is_sent: bool,
    /// It had not, from one look to the next.
    is_quiet: bool,
}

/// What comes of a look at a property.
#[derive(Debug, PartialEq)]
pub(crate) struct Reading {
    /// What is to be told.
    pub(crate) outcome: Outcome,
    /// The server has not sent what it has: it is to be asked for it anew.
    pub(crate) is_lost: bool,
}

impl LastSent {
    /// Of these places, with their deadbands.
    pub(crate) fn of(places: impl Iterator<Item = (usize, Option<f64>)>) -> Self {
        LastSent(
            places.map(|(place, deadband)| (place, Property { deadband, ..Property::default() })).collect(),
        )
    }

    /// The server has sent this.
    pub(crate) fn sent(&mut self, place: usize, outcome: Outcome) {
        if let Some(property) = self.0.get_mut(&place) {
            (property.last, property.is_sent) = (Some(outcome), true);
        }
    }

    /// What was told last of each.
    pub(crate) fn all(&self) -> impl Iterator<Item = (usize, &Outcome)> {
        self.0.iter().filter_map(|(place, property)| Some((*place, property.last.as_ref()?)))
    }

    /// A look at this one begins.
    pub(crate) fn look_begins(&mut self, place: usize) {
        if let Some(property) = self.0.get_mut(&place) {
            property.is_quiet = !std::mem::take(&mut property.is_sent);
        }
    }

    /// What a look has found. None: what the server has sent meanwhile may be newer.
    pub(crate) fn found(&mut self, place: usize, outcome: Outcome) -> Option<Reading> {
        let property = self.0.get_mut(&place).filter(|property| !property.is_sent)?;
        match &property.last {
            Some(last) if !has_moved(last, &outcome, property.deadband) => {
                Some(Reading { outcome: last.clone(), is_lost: false })
            }
            _ => {
                property.last = Some(outcome.clone());
                Some(Reading { outcome, is_lost: property.is_quiet })
            }
        }
    }
}

fn has_moved(last: &Outcome, now: &Outcome, deadband: Option<f64>) -> bool {
    let distance = |last: &Outcome, now: &Outcome| Some((number(last)? - number(now)?).abs());
    match (deadband, distance(last, now)) {
        (Some(deadband), Some(distance)) => distance > deadband,
        _ => last != now,
    }
}

#[allow(clippy::cast_precision_loss, reason = "a deadband is no more exact")]
fn number(outcome: &Outcome) -> Option<f64> {
    match outcome.as_ref().ok()? {
        Value::Int(number) => Some(*number as f64),
        Value::Float(number) => Some(f64::from(*number)),
        Value::Double(number) => Some(*number),
        Value::Text(_) | Value::Bool(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(number: i128) -> Outcome {
        Ok(Value::Int(number))
    }

    fn told(deadband: Option<f64>) -> LastSent {
        LastSent::of([(3, deadband)].into_iter())
    }

    fn look(told: &mut LastSent, outcome: Outcome) -> Reading {
        told.look_begins(3);
        told.found(3, outcome).unwrap()
    }

    #[test]
    fn a_node_that_was_made_anew_is_found_by_the_next_look_and_asked_for_anew() {
        let mut told = told(None);
        told.sent(3, value(1));
        let as_before = Reading { outcome: value(1), is_lost: false };
        assert_eq!(look(&mut told, value(1)), as_before);
        assert_eq!(look(&mut told, value(1)), as_before, "steady");
        // Deleted, and later there again.
        let gone = || Err(Fault::Device("BadNodeIdUnknown".to_owned()));
        assert_eq!(look(&mut told, gone()), Reading { outcome: gone(), is_lost: true });
        assert_eq!(look(&mut told, gone()), Reading { outcome: gone(), is_lost: false });
        assert_eq!(look(&mut told, value(7)), Reading { outcome: value(7), is_lost: true });
        assert_eq!(told.all().collect::<Vec<_>>(), [(3, &value(7))]);
    }

    #[test]
    fn what_the_server_sends_is_not_asked_for_anew_and_not_taken_back_by_an_older_look() {
        let mut told = told(None);
        told.sent(3, value(1));
        assert_eq!(look(&mut told, value(2)), Reading { outcome: value(2), is_lost: false }, "it moves");
        told.look_begins(3);
        told.sent(3, value(4));
        assert_eq!(told.found(3, value(3)), None);
        assert_eq!(told.all().next(), Some((3, &value(4))));
    }

    #[test]
    fn a_number_within_its_deadband_has_not_moved() {
        let mut told = told(Some(5.0));
        told.sent(3, value(10));
        assert_eq!(look(&mut told, value(10)).outcome, value(10));
        assert_eq!(look(&mut told, value(15)), Reading { outcome: value(10), is_lost: false });
        assert_eq!(look(&mut told, value(16)), Reading { outcome: value(16), is_lost: true });
    }
}
