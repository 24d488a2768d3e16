//! The message enums of every module, one file each, the ids that are parsed once, and the wire types.
//!
//! No behaviour lives here. Serialisation for the wire happens here and nowhere else ([`wire`]), and so does the one
//! computation that both ends must agree on to the bit ([`digest`]).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod cloudhub;
pub mod devicecontroller;
pub mod devicetwin;
pub mod digest;
pub mod edgecontroller;
pub mod edged;
pub mod edgehub;
pub mod eventbus;
pub mod ids;
pub mod metamanager;
pub mod object;
mod packed;
pub mod pod_status;
pub mod report;
pub mod router;
pub mod said;
pub mod synccontroller;
pub mod wire;

pub use digest::Digest;
pub use ids::{NodeName, ObjectKey, ParseIdError};
pub use object::{Change, Held, Object, content_version};
pub use packed::Batch;
pub use report::{Report, TokenGrant, TokenQuery, TwinValue, UpReport};
pub use router::{Telemetry, Upload};
pub use said::Unparsed;
