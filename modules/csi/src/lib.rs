//! The node's part of CSI v1 and of the kubelet's plugin registration, as a client speaks them over unix sockets; and what sidecars in
//! the cloud ask of a driver's controller service, on its way to the node ([`web`]).
//!
//! A driver is somebody else's program. Each call has a connection and a deadline of its own, and what it answers has a bound:
//! whatever a driver does, it does to this one call.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod call;
mod methods;
pub mod web;

/// The messages of CSI v1, generated.
pub mod v1 {
    #![allow(missing_docs, clippy::all, clippy::wildcard_enum_match_arm)]
    tonic::include_proto!("csi.v1");
}

/// The messages of the plugin registration, generated.
pub mod registration {
    #![allow(missing_docs, clippy::all, clippy::wildcard_enum_match_arm)]
    tonic::include_proto!("pluginregistration");
}

pub use call::{ANSWER_MAX, CallError, Driver, Registrar};
pub use methods::{controller, identity};

macro_rules! without_secrets {
    ($field:ident: $($message:ident)*) => {
        $(impl std::fmt::Debug for v1::$message {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($message)).field(stringify!($field), &self.$field).finish_non_exhaustive()
            }
        })*
    };
}

without_secrets!(volume_id: NodeStageVolumeRequest NodePublishVolumeRequest NodeExpandVolumeRequest);
without_secrets!(volume_id: DeleteVolumeRequest ControllerPublishVolumeRequest ControllerUnpublishVolumeRequest);
without_secrets!(volume_id: ValidateVolumeCapabilitiesRequest);
without_secrets!(name: CreateVolumeRequest);
