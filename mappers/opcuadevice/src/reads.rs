//! Values that are read in one request, and alone where they would keep all others out of its answer.

use std::collections::BTreeSet;

use framework::{Fault, Value};
use opcua_client::Session;
use opcua_types::{DataValue, Error, NodeId, ReadValueId, StatusCode, TimestampsToReturn, VariableId};

use crate::sizes;
use crate::status;
use crate::values;
use crate::visitor::Visitor;

/// What came of a node.
pub(crate) struct Found {
    /// Its place.
    pub(crate) place: usize,
    /// None: the server has not got its value yet.
    pub(crate) outcome: Option<Result<Value, Fault>>,
    /// How large about its value is. None: too large for an answer.
    pub(crate) bytes: Option<usize>,
}

/// How the nodes of a server are read.
#[derive(Debug)]
pub(crate) struct Reads {
    /// How many nodes the server takes in one request, by its own word.
    most: usize,
    /// How many it takes as far as is known; fewer than that at a server that answers no more.
    at_once: usize,
    /// Those that are read alone, because their values were large or could not be had, by node and the part of it.
    large: BTreeSet<(String, String)>,
}

impl Reads {
    pub(crate) fn new(most: usize) -> Self {
        Reads { most, at_once: most, large: BTreeSet::new() }
    }

    /// Reads those of these that one request brings: the first, and others along with it. An answer that is too large for us, or for the
    /// server, is asked for again for fewer of them, and at last for the first alone: three requests at the most.
    ///
    /// # Errors
    /// When the request came to nothing.
    pub(crate) async fn read(
        &mut self,
        session: &Session,
        nodes: &[(usize, NodeId, &Visitor)],
    ) -> Result<Vec<Found>, Error> {
        let mut is_second = false;
        let mut now = self.together(nodes);
        loop {
            let ids: Vec<ReadValueId> = now
                .iter()
                .map(|(_, node, visitor)| ReadValueId {
                    index_range: visitor.index.clone(),
                    ..ReadValueId::from(node.clone())
                })
                .collect();
            match (ask(session, &ids).await, now.as_slice()) {
                (Ok(found), _) => return Ok(self.found(&now, &found)),
                (Err(error), [(place, node, visitor)]) if status::is_answer_too_large(error.status()) => {
                    self.has_size(key_of(node, visitor), None);
                    let fault = Fault::Device(sizes::too_large(&status::named(error.status())));
                    return Ok(vec![Found { place: *place, outcome: Some(Err(fault)), bytes: None }]);
                }
                (Err(error), [_, _, ..]) if status::is_too_large(error.status()) => {
                    self.at_once = now.len() / 2;
                    now.truncate(if is_second { 1 } else { self.at_once });
                    is_second = true;
                }
                (Err(error), _) => return Err(error),
            }
        }
    }

    /// Those of these that are asked for in one request.
    fn together<'a>(&self, nodes: &[(usize, NodeId, &'a Visitor)]) -> Vec<(usize, NodeId, &'a Visitor)> {
        let is_large = |(_, node, visitor): &&(usize, NodeId, &Visitor)| {
            !self.large.is_empty() && self.large.contains(&key_of(node, visitor))
        };
        match nodes.first() {
            Some(first) if is_large(&first) => vec![first.clone()],
            _ => nodes.iter().filter(|one| !is_large(one)).take(self.at_once.max(1)).cloned().collect(),
        }
    }

    fn found(&mut self, asked: &[(usize, NodeId, &Visitor)], found: &[DataValue]) -> Vec<Found> {
        let none = DataValue { status: Some(StatusCode::BadUnexpectedError), ..DataValue::default() };
        let of = |(at, (place, node, visitor)): (usize, &(usize, NodeId, &Visitor))| {
            let data = found.get(at).unwrap_or(&none);
            let bytes = sizes::of(data);
            self.has_size(key_of(node, visitor), Some(bytes));
            let outcome = values::of_data_value(data, visitor.kind, visitor.part());
            Found { place: *place, outcome, bytes: Some(bytes) }
        };
        asked.iter().enumerate().map(of).collect()
    }

    /// A node that turns out to be large may be why fewer were asked for: without it there may be more again.
    fn has_size(&mut self, key: (String, String), bytes: Option<usize>) {
        if bytes.is_some_and(|bytes| bytes <= sizes::LARGE) {
            self.large.remove(&key);
        } else if self.large.insert(key) {
            self.at_once = self.most;
        }
    }
}

/// A node and the part of it that is meant.
fn key_of(node: &NodeId, visitor: &Visitor) -> (String, String) {
    (node.to_string(), visitor.index.to_string())
}

/// Reads these in one request, as they are now: what a server keeps of it may be as old as the last look.
///
/// # Errors
/// When the request came to nothing; [`StatusCode::BadEncodingLimitsExceeded`] where its answer came, and was more than we take.
pub(crate) async fn ask(session: &Session, ids: &[ReadValueId]) -> Result<Vec<DataValue>, Error> {
    let error = match session.read(ids, TimestampsToReturn::Neither, 0.0).await {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    if error.status() != StatusCode::BadConnectionClosed {
        return Err(error);
    }
    // So the library says that an answer will not come any more. If the connection is as good as before, that was for what it had in it.
    let state = ReadValueId::from(NodeId::from(VariableId::Server_ServerStatus_State));
    match session.read(&[state], TimestampsToReturn::Neither, 0.0).await {
        Ok(_) => {
            Err(Error::new(StatusCode::BadEncodingLimitsExceeded, "the answer holds more than is taken"))
        }
        Err(_) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use framework::{Kind, Property, Scalar, Settings};

    fn visitor() -> Visitor {
        let pairs = vec![("nodeid", Scalar::Text("ns=2;s=x".to_owned()))];
        Visitor::read(&Property::new("p", Kind::Int), &Settings::from_pairs(pairs)).unwrap()
    }

    fn places(reads: &Reads, nodes: &[(usize, NodeId, &Visitor)]) -> Vec<usize> {
        reads.together(nodes).iter().map(|(place, ..)| *place).collect()
    }

    #[test]
    fn what_was_large_is_read_alone_and_the_others_together_as_before() {
        let visitor = visitor();
        let nodes: Vec<_> = (0..5_u32).map(|at| (at as usize, NodeId::new(2, at), &visitor)).collect();
        let mut reads = Reads::new(4);
        assert_eq!(places(&reads, &nodes), [0, 1, 2, 3]);
        let key = |at: usize| key_of(&nodes[at].1, &visitor);
        // Fewer were asked for because of it.
        reads.at_once = 1;
        reads.has_size(key(1), Some(sizes::LARGE + 1));
        assert_eq!(places(&reads, &nodes), [0, 2, 3, 4]);
        assert_eq!(places(&reads, &nodes[1..]), [1], "in its turn");
        reads.at_once = 2;
        reads.has_size(key(1), None);
        assert_eq!(places(&reads, &nodes), [0, 2], "that it is large was known: the server takes no more");
        reads.has_size(key(1), Some(16));
        assert_eq!(places(&reads, &nodes), [0, 1]);
    }
}
