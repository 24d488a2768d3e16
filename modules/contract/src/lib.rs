//! The message enums of every module, one file each, the ids that are parsed once, and the wire types.
//!
//! No behaviour lives here. Serialisation for the wire happens here and nowhere else ([`wire`], [`rows`]), and so does the one
//! computation that both ends must agree on to the bit ([`digest`]).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod batch;
pub mod capability;
pub mod certificate;
pub mod changed;
pub mod cloudhub;
pub mod cloudstream;
pub mod cloudtaskmanager;
pub mod containermanager;
pub mod csi;
pub mod csi_call;
pub mod csi_node;
pub mod device_call;
pub mod devicecontroller;
pub mod devicerules;
pub mod devicetwin;
pub mod digest;
pub mod downlink;
pub mod edgecontroller;
pub mod edged;
pub mod edgehub;
pub mod edgepage;
pub mod edgestream;
pub mod edgetaskmanager;
pub mod eventbus;
pub mod ids;
pub mod json_values;
pub mod metamanager;
pub mod node_task;
pub mod nodelease;
pub mod object;
pub mod parsed;
pub mod pod_status;
pub mod report;
pub mod router;
pub mod rows;
pub mod rule_call;
pub mod rule_source;
pub mod rule_stream;
pub mod servicebus;
pub mod stream;
pub mod synccontroller;
pub mod traced;
pub mod traceexporter;
pub mod uplink;
pub mod volume_stats;
pub mod wire;

pub use batch::{Batch, DecodedBatch, SkipReason, SkippedRow};
pub use changed::ChangedObjects;
pub use device_call::{CallOrigin, CallOutcome, CallRecord, CallState, MethodCall};
pub use digest::Digest;
pub use ids::{NodeName, ObjectKey, ParseIdError};
pub use node_task::{TaskAction, TaskImage, TaskKind, TaskPhase, TaskProgress};
pub use object::{Change, Object, ObjectVersion, content_hash};
pub use parsed::Unparsed;
pub use report::{DeviceCondition, Report, TokenGrant, TokenQuery, TwinValue, UpReport};
pub use router::{Telemetry, Upload};
