//! What a protocol brings.

use std::future::Future;
use std::time::Duration;

use crate::anomaly::{AnomalyDetector, Spread};
use crate::error::InvalidSetting;
use crate::fault::Fault;
use crate::settings::Settings;
use crate::stream::FrameSource;
use crate::subscription::Subscription;
use crate::value::{Kind, Value};

/// 5 s for a connection, and for a request, unless a protocol says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// What a protocol may want to know about a property, from the device and its model.
#[derive(Debug, Clone, PartialEq)]
pub struct Property {
    /// Its name.
    pub name: String,
    /// What its values are.
    pub kind: Kind,
    /// Whether it is a stream (STREAM): its frames are saved, and its values are the paths of the files, as text.
    pub is_stream: bool,
    /// Whether the model lets it be written.
    pub writable: bool,
    /// Its smallest value by its model and its visitors, when that is a number.
    pub minimum: Option<f64>,
    /// Its largest value by its model and its visitors, when that is a number.
    pub maximum: Option<f64>,
    /// How often its value is wanted (`collectCycle`). None: nobody asked for it.
    pub cycle: Option<Duration>,
    /// How often it is told again if it did not change (`reportCycle`). None: it is not told.
    pub told_every: Option<Duration>,
}

impl Property {
    /// One that is only read, without bounds, and that nobody asked for.
    pub fn new(name: &str, kind: Kind) -> Self {
        Property {
            name: name.to_owned(),
            kind,
            is_stream: false,
            writable: false,
            minimum: None,
            maximum: None,
            cycle: None,
            told_every: None,
        }
    }
}

/// A protocol: how settings are understood, and how a device is reached.
///
/// All devices share one thread: a protocol awaits and never blocks. One that panics is started again for that device
/// alone; one that panics again and again makes the device unhealthy, and is tried again a minute later. One that blocks
/// the thread for a minute ends the mapper with [`crate::MapperError::Blocked`].
pub trait Protocol: Send + Sync + 'static {
    /// Where a device is, from `protocol.configData`. A session lives on through a change that leaves it equal.
    type Address: PartialEq + Send + Sync + 'static;
    /// Where a property is within its device, from `visitors.configData`.
    type Visitor: PartialEq + Send + Sync + 'static;
    /// A connection to a device.
    type Session: Session<Visitor = Self::Visitor>;

    /// The protocol's name, as devices have it in `protocol.protocolName`.
    fn name(&self) -> &str;

    /// Understands where a device is.
    ///
    /// # Errors
    /// A sentence, when the settings are no address.
    fn address(&self, settings: &Settings) -> Result<Self::Address, InvalidSetting>;

    /// Understands where a property is.
    ///
    /// # Errors
    /// A sentence, when the settings do not lead to a value of the property's kind.
    fn visitor(&self, property: &Property, settings: &Settings) -> Result<Self::Visitor, InvalidSetting>;

    /// Whether what is desired of a property there is done once for each desired value, and never kept up: a method that is called.
    fn is_command(&self, _: &Self::Visitor) -> bool {
        false
    }

    /// Whether what is desired no more of a property there is given up at the device ([`Session::release`]): it keeps a place for this
    /// mapper, beside those of others.
    fn is_released(&self, _: &Self::Visitor) -> bool {
        false
    }

    /// Whether it has streams, which [`Session::frames`] gives. Where it has none, properties of type STREAM are refused.
    fn has_streams(&self) -> bool {
        false
    }

    /// What looks at each good reading of a property with `pushMethod.anomalyDetection`, by what stands there. The keys `enabled`
    /// and `action` are the framework's.
    ///
    /// # Errors
    /// A sentence, when the settings are no such detector, or do not fit the property.
    fn detector(
        &self,
        property: &Property,
        settings: &Settings,
    ) -> Result<Box<dyn AnomalyDetector>, InvalidSetting> {
        Ok(Box::new(Spread::read(property, settings)?))
    }

    /// Whether it refuses devices at addresses that are closed to them ([`crate::host::Targets`]), so that `common.allowed_targets` has an
    /// effect.
    fn judges_targets(&self) -> bool {
        false
    }

    /// How long a connection may take until the framework gives up on it.
    fn connect_deadline(&self, _: &Self::Address) -> Duration {
        DEADLINE
    }

    /// Connects.
    fn connect(&self, address: &Self::Address) -> impl Future<Output = Result<Self::Session, Fault>> + Send;
}

/// A connection to one device. It is dropped after a fault that [ends it](Fault::ends_the_session), and when a request took
/// too long.
pub trait Session: Send + 'static {
    /// Where a property is.
    type Visitor: Sync;

    /// How long a request may take until the framework gives up on it and drops the session. Longer where the session itself
    /// gives up on requests, and where it waits in a queue.
    fn deadline(&self) -> Duration {
        DEADLINE
    }

    /// Reads a property.
    fn read(&mut self, visitor: &Self::Visitor) -> impl Future<Output = Result<Value, Fault>> + Send;

    /// Reads properties that are due, the one that has waited longest first, in one request: at least the first one, and as many
    /// others as come along with it. Answers with their places in `visitors`; those that are not in the answer stay due.
    fn read_many(
        &mut self,
        visitors: &[&Self::Visitor],
    ) -> impl Future<Output = Vec<(usize, Result<Value, Fault>)>> + Send {
        async move {
            match visitors.first() {
                Some(visitor) => vec![(0, self.read(visitor).await)],
                None => Vec::new(),
            }
        }
    }

    /// Asks the device to send these properties by itself, in place of all that it was asked for before, and to tell `values` what
    /// comes, and when the session has ended. Answers with the places in `visitors` that it will send; the others are read in
    /// their cycles.
    fn subscribe(
        &mut self,
        _visitors: &[&Self::Visitor],
        _values: Subscription,
    ) -> impl Future<Output = Vec<usize>> + Send {
        async { Vec::new() }
    }

    /// The frames of a stream, which come beside all else that the session does. Nothing is awaited here: the source connects when
    /// the first frame is wanted.
    ///
    /// # Errors
    /// When there is no stream.
    fn frames(&mut self, _: &Self::Visitor) -> Result<Box<dyn FrameSource>, Fault> {
        Err(Fault::Device("this mapper has no streams".to_owned()))
    }

    /// Writes a property. The value is of the property's kind and within its limits.
    fn write(
        &mut self,
        visitor: &Self::Visitor,
        value: &Value,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Whether the device has this desired value already, so that it is not written. Asked before each write of what is kept up.
    fn holds(
        &mut self,
        visitor: &Self::Visitor,
        value: &Value,
    ) -> impl Future<Output = Result<bool, Fault>> + Send {
        async move {
            match self.read(visitor).await {
                Ok(there) | Err(Fault::Doubtful(there, _)) => Ok(there == *value),
                Err(fault) if fault.is_unanswered() => Err(fault),
                // Not everything can be read: a refused read does not keep it from being written.
                Err(_) => Ok(false),
            }
        }
    }

    /// Gives up what was desired of a property, where [`Protocol::is_released`] says so: now, and after each new connection while nothing is
    /// desired. Answers whether the device had something of ours.
    fn release(&mut self, _: &Self::Visitor) -> impl Future<Output = Result<bool, Fault>> + Send {
        async { Ok(false) }
    }

    /// The mapper ends, or the device is described otherwise: takes leave of the device, for those that keep a place for whoever
    /// has not. A second is all that it gets; a session that is lost is dropped without it.
    fn close(self) -> impl Future<Output = ()> + Send
    where
        Self: Sized,
    {
        async move { drop(self) }
    }
}
