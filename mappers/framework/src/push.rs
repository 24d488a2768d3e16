//! Readings that go to a place of their own beside the twin: `pushMethod` of a Device's properties.
//!
//! `plan` understands what a Device asks for. Each target (a URL, a broker, a database) is one actor, a child of the mapper, whatever
//! the number of devices that push there: it takes readings out of its outbox in order, waits longer after every failure, and holds
//! up nobody else. What waits for long is kept on the disk, for the mapper that runs next. What a target is sent is what KubeEdge's mapper framework sends it.

mod actor;
mod client;
mod credentials;
mod endpoint;
mod http;
mod influxdb2;
mod kept;
mod mqtt;
mod mysql;
mod otel;
mod outbox;
mod outlets;
mod parcel;
mod plan;
mod post;
mod pushers;
mod reading;
mod redis;
mod resp;
mod spool;
mod stream;
mod tdengine;
mod trouble;

pub use credentials::Credentials;

pub(crate) use actor::{PUSH, Pusher, policy};
pub(crate) use kept::KeptFolder;
pub(crate) use outlets::Outlets;
pub(crate) use plan::{PushPlan, Target, is_pushed, push_plan, targets};
pub(crate) use pushers::Pushers;
