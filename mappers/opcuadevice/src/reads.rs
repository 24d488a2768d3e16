//! Values that are read in one request.

use framework::{Fault, Value};
use opcua_client::Session;
use opcua_types::{DataValue, Error, NodeId, ReadValueId, StatusCode, TimestampsToReturn};

use crate::status;
use crate::values;
use crate::visitor::Visitor;

/// What came of a node, by its place. None: the server has not got its value yet.
pub(crate) type Found = (usize, Option<Result<Value, Fault>>);

/// Reads those of these that one request brings: the first `at_once`, which becomes less at a server that takes fewer.
///
/// # Errors
/// When the request came to nothing.
pub(crate) async fn read(
    session: &Session,
    nodes: &[(usize, NodeId, &Visitor)],
    at_once: &mut usize,
) -> Result<Vec<Found>, Error> {
    loop {
        let now = nodes.get(..nodes.len().min(*at_once)).unwrap_or(nodes);
        let ids: Vec<ReadValueId> = now
            .iter()
            .map(|(_, node, visitor)| ReadValueId {
                index_range: visitor.index.clone(),
                ..ReadValueId::from(node.clone())
            })
            .collect();
        // As it is now: what a server keeps of it may be as old as the last look.
        match session.read(&ids, TimestampsToReturn::Neither, 0.0).await {
            Ok(found) => {
                let none = DataValue { status: Some(StatusCode::BadUnexpectedError), ..DataValue::default() };
                let of = |(at, (place, _, visitor)): (usize, &(usize, NodeId, &Visitor))| {
                    let data = found.get(at).unwrap_or(&none);
                    (*place, values::of_data_value(data, visitor.kind, visitor.part()))
                };
                return Ok(now.iter().enumerate().map(of).collect());
            }
            Err(error) if status::is_too_large(error.status()) && now.len() > 1 => *at_once = now.len() / 2,
            Err(error) => return Err(error),
        }
    }
}
