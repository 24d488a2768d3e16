//! A Device at its server: what is read in one request, written in the node's own type, and called.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use framework::{Fault, Session, Subscription, Value};
use opcua_types::{
    AttributeId, DataValue, NodeId, NumericRange, ReadValueId, StatusCode, Variant, VariantScalarTypeId,
    WriteValue,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::connection::Connection;
use crate::items::Item;
use crate::method;
use crate::monitor::{Monitor, tell_the_end};
use crate::node::Node;
use crate::reads::{self, Reads};
use crate::status;
use crate::values;
use crate::visitor::{Part, Visitor};

/// The first and the last of the types that a variant has, by their numbers in the namespace of OPC UA (Part 6 §5.1.2).
const BUILT_IN: std::ops::RangeInclusive<u32> = 1..=25;
/// 10 s: an end that follows so soon after a server was asked to send by itself is one for that.
const SOON: Duration = Duration::from_secs(10);
/// Enumeration, whose values are Int32 (Part 3 §8.14).
const ENUMERATION: u32 = 29;

/// A Device at its server.
#[derive(Debug)]
pub struct OpcUaSession {
    connection: Arc<Connection>,
    timeout: Duration,
    /// How often it is looked whether what the server sends by itself is still so.
    look_every: Duration,
    /// How its nodes are read.
    reads: Reads,
    /// What nodes take, and parts of them, by what they were last found to be.
    types: HashMap<(NodeId, String), NodeType>,
    /// What methods gave back, by object and method.
    outputs: HashMap<(NodeId, NodeId), Value>,
    monitor: Option<Monitor>,
    /// Tells the end of the connection.
    ending: Option<JoinHandle<()>>,
    /// When the server was asked to send by itself.
    asked_at: Option<Instant>,
}

/// What a node takes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct NodeType {
    scalar: VariantScalarTypeId,
    is_array: bool,
    /// The server heeds an index. One that does not would take an element for all of the array.
    heeds_index: bool,
}

impl Drop for OpcUaSession {
    fn drop(&mut self) {
        if let Some(ending) = &self.ending {
            ending.abort();
        }
        if self.asked_at.is_some_and(|asked| asked.elapsed() < SOON) && self.connection.has_ended() {
            self.connection.was_dropped();
        }
    }
}

impl OpcUaSession {
    pub(crate) fn new(connection: Arc<Connection>, timeout: Duration, look_every: Duration) -> Self {
        let reads = Reads::new(connection.reads_max);
        OpcUaSession {
            connection,
            timeout,
            look_every,
            reads,
            types: HashMap::new(),
            outputs: HashMap::new(),
            monitor: None,
            ending: None,
            asked_at: None,
        }
    }

    fn node(&self, visitor: &Visitor) -> Result<NodeId, Fault> {
        visitor.node.resolve(self.connection.namespaces()).map_err(Fault::Device)
    }

    /// What a method gave back: it is called, and not read.
    fn output(&self, object: NodeId, method: &Node) -> Result<Value, Fault> {
        let method = method.resolve(self.connection.namespaces()).map_err(Fault::Device)?;
        let none = || Fault::NoValue("the method was not called since the connection was made".to_owned());
        self.outputs.get(&(object, method)).cloned().ok_or_else(none)
    }

    /// Why nothing can be asked any more.
    fn lost(&self) -> Option<Fault> {
        self.connection.ended().borrow().clone().map(Fault::NotSent)
    }

    /// Reads those of these that one request brings, with their places.
    async fn read_nodes(
        &mut self,
        nodes: &[(usize, NodeId, &Visitor)],
    ) -> Vec<(usize, Result<Value, Fault>)> {
        match self.reads.read(self.connection.session(), nodes).await {
            Ok(found) => {
                let waiting = || Err(Fault::NoValue(status::named(StatusCode::BadWaitingForInitialData)));
                found.into_iter().map(|one| (one.place, one.outcome.unwrap_or_else(waiting))).collect()
            }
            Err(error) => {
                let fault = self.lost().unwrap_or_else(|| status::of_request(&error));
                nodes.iter().take(1).map(|(place, ..)| (*place, Err(fault.clone()))).collect()
            }
        }
    }

    /// What the node takes: what its value is, or else what it says of itself.
    async fn node_type(&mut self, node: &NodeId, index: &NumericRange) -> Result<NodeType, Fault> {
        let key = key_of(node, index);
        if let Some(known) = self.types.get(&key) {
            return Ok(*known);
        }
        let attributes = [AttributeId::Value, AttributeId::DataType, AttributeId::ValueRank];
        let mut ids: Vec<ReadValueId> =
            attributes.into_iter().map(|attribute| ReadValueId::new(node.clone(), attribute)).collect();
        ids.push(ReadValueId { index_range: index.clone(), ..ReadValueId::from(node.clone()) });
        let found = reads::ask(self.connection.session(), &ids).await;
        let found = found.map_err(|error| self.lost().unwrap_or_else(|| status::of_request(&error)))?;
        let [value, data_type, rank, part] = found.as_slice() else {
            return Err(Fault::Device("the server does not say of which type the node is".to_owned()));
        };
        let mut node_type = of_value(value).or_else(|| of_attributes(data_type, rank)).ok_or_else(|| {
            let code =
                data_type.status.filter(StatusCode::is_bad).or(value.status.filter(StatusCode::is_bad));
            match code {
                Some(code) => status::of_node(code),
                None => {
                    Fault::Device("the server does not say of which of its own types the node is".to_owned())
                }
            }
        })?;
        if !index.is_none() && !node_type.is_array {
            return Err(Fault::Device("the node is no array; remove `index`".to_owned()));
        }
        node_type.heeds_index =
            index.is_none() || elements(value) != elements(part) || elements(value) == Some(1);
        self.types.insert(key, node_type);
        Ok(node_type)
    }

    async fn write_node(&mut self, visitor: &Visitor, value: &Value) -> Result<(), Fault> {
        let node = self.node(visitor)?;
        let node_type = self.node_type(&node, &visitor.index).await?;
        let variant = encoded(visitor, node_type, value).map_err(Fault::Unfit)?;
        let write = WriteValue {
            node_id: node.clone(),
            attribute_id: AttributeId::Value as u32,
            index_range: visitor.index.clone(),
            // The value alone: a status or a time makes many servers refuse it.
            value: DataValue::value_only(variant),
        };
        let written = self.connection.session().write(&[write]).await;
        let written = written.map_err(|error| self.lost().unwrap_or_else(|| status::of_request(&error)))?;
        match written.first() {
            Some(code) if code.is_bad() => {
                // It may be another node by now.
                self.types.remove(&key_of(&node, &visitor.index));
                Err(Fault::Device(status::named(*code)))
            }
            Some(_) => Ok(()),
            None => Err(Fault::Device("the server does not say what came of it".to_owned())),
        }
    }
}

impl Session for OpcUaSession {
    type Visitor = Visitor;

    /// A write asks for the type first, a call for the arguments; each request has its own time-out.
    fn deadline(&self) -> Duration {
        self.timeout * 4
    }

    async fn read(&mut self, visitor: &Visitor) -> Result<Value, Fault> {
        let read = self.read_many(&[visitor]).await;
        read.into_iter()
            .next()
            .map_or_else(|| Err(Fault::Device("the server gave no answer for it".to_owned())), |(_, one)| one)
    }

    async fn read_many(&mut self, visitors: &[&Visitor]) -> Vec<(usize, Result<Value, Fault>)> {
        let (mut read, mut nodes) = (Vec::new(), Vec::new());
        for (place, visitor) in visitors.iter().enumerate() {
            match self.node(visitor) {
                Err(fault) => read.push((place, Err(fault))),
                Ok(node) => match &visitor.method {
                    Some(method) => read.push((place, self.output(node, method))),
                    None => nodes.push((place, node, *visitor)),
                },
            }
        }
        if !nodes.is_empty() {
            read.extend(self.read_nodes(&nodes).await);
        }
        read
    }

    async fn subscribe(&mut self, visitors: &[&Visitor], values: Subscription) -> Vec<usize> {
        self.monitor = None;
        if let Some(ending) = self.ending.replace(tell_the_end(&self.connection, values.clone())) {
            ending.abort();
        }
        let mut items = Vec::new();
        for (place, visitor) in visitors.iter().enumerate() {
            if let (Some(monitoring), Ok(node)) = (&visitor.monitoring, self.node(visitor)) {
                let (visitor, monitoring) = ((*visitor).clone(), monitoring.clone());
                items.push(Item { place, node, visitor, monitoring });
            }
        }
        let is_spared = self.connection.dropped.is_to_be_spared(Instant::now()) && !items.is_empty();
        let is_asked = !items.is_empty() && !is_spared;
        self.asked_at = is_asked.then(Instant::now);
        if is_spared {
            tracing::warn!(
                "the server ends each session in which it is to send by itself what changes; it is not asked for that, and all is read in its cycle"
            );
        }
        if !is_asked {
            return Vec::new();
        }
        match Monitor::of(&self.connection, items, values, self.look_every).await {
            Ok(monitor) => {
                let places = monitor.places.clone();
                self.monitor = Some(monitor);
                places
            }
            Err(error) => {
                if status::of_request(&error).ends_the_session() {
                    self.connection.was_dropped();
                }
                tracing::info!(
                    reason = status::named(error.status()),
                    "the server takes no subscription; all is read in its cycle"
                );
                Vec::new()
            }
        }
    }

    async fn write(&mut self, visitor: &Visitor, value: &Value) -> Result<(), Fault> {
        if let Some(fault) = self.lost() {
            return Err(fault);
        }
        let Some(method) = &visitor.method else { return self.write_node(visitor, value).await };
        let object = self.node(visitor)?;
        let method = method.resolve(self.connection.namespaces()).map_err(Fault::Device)?;
        let called = method::call(self.connection.session(), &object, &method, visitor.kind, value).await;
        match called {
            Ok(output) => {
                self.outputs.insert((object, method), output);
                Ok(())
            }
            Err(fault) => Err(self.lost().filter(|_| matches!(fault, Fault::NotSent(_))).unwrap_or(fault)),
        }
    }

    async fn close(mut self) {
        self.monitor = None;
        // Others may have Devices there.
        if Arc::strong_count(&self.connection) == 1 {
            self.connection.close().await;
        }
    }
}

/// A node and the part of it that is meant.
fn key_of(node: &NodeId, index: &NumericRange) -> (NodeId, String) {
    (node.clone(), index.to_string())
}

fn of_value(value: &DataValue) -> Option<NodeType> {
    match value.value.as_ref()? {
        Variant::Array(array) => {
            Some(NodeType { scalar: array.value_type, is_array: true, heeds_index: true })
        }
        other => Some(NodeType { scalar: other.scalar_type_id()?, is_array: false, heeds_index: true }),
    }
}

/// By its own word, where that is one of the types that every variant has.
fn of_attributes(data_type: &DataValue, rank: &DataValue) -> Option<NodeType> {
    let Some(Variant::NodeId(id)) = &data_type.value else { return None };
    let number = id.as_u32().filter(|_| id.namespace == 0)?;
    let number = if number == ENUMERATION { VariantScalarTypeId::Int32 as u32 } else { number };
    let scalar = BUILT_IN.contains(&number).then(|| VariantScalarTypeId::try_from(number).ok())??;
    let is_array = matches!(rank.value, Some(Variant::Int32(0..)));
    Some(NodeType { scalar, is_array, heeds_index: true })
}

/// How many elements came; None: it is no array.
fn elements(data: &DataValue) -> Option<usize> {
    data.value.as_ref()?.as_array().map(Vec::len)
}

/// What is desired, as the node takes it.
fn encoded(visitor: &Visitor, node: NodeType, value: &Value) -> Result<Variant, String> {
    match (value, visitor.part()) {
        _ if !node.heeds_index => Err(
            "the server heeds no index, and would take this for all of the array; make the property a STRING without `index`"
                .to_owned(),
        ),
        _ if !node.is_array => values::encode(value, node.scalar),
        (_, Part::Element(_)) => values::encode_element(value, node.scalar),
        (Value::Text(text), Part::Whole | Part::Range { .. } | Part::Block { .. }) => {
            values::encode_array(text, node.scalar)
        }
        (_, Part::Whole | Part::Range { .. } | Part::Block { .. }) => Err(format!(
            "the node is an array of {}; name one element with `index`, or make the property a STRING",
            node.scalar
        )),
    }
}
