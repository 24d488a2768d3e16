//! The part of CRI v1, and of containerd's events and content, that KubeHive speaks.
//!
//! [`Runtime`] is what Edged needs of a container runtime; [`Grpc`] speaks it over a unix socket. A test hands in
//! something else.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod bounded;
mod cgroup_driver;
mod content;
mod error;
mod events;
mod exec_output;
mod grpc;
mod methods;
pub mod pods;
pub mod proc_mount;
mod runtime;

/// The messages of CRI v1, generated.
pub mod v1 {
    #![allow(missing_docs, clippy::all, clippy::wildcard_enum_match_arm)]
    tonic::include_proto!("runtime.v1");
}

/// containerd's own events, images and content, generated.
pub(crate) mod containerd {
    #![allow(missing_docs, unreachable_pub, dead_code, clippy::all, clippy::wildcard_enum_match_arm)]
    pub(crate) mod service {
        tonic::include_proto!("containerd.services.events.v1");
    }
    pub(crate) mod content {
        tonic::include_proto!("containerd.services.content.v1");
    }
    pub(crate) mod images {
        tonic::include_proto!("containerd.services.images.v1");
    }
    pub(crate) mod task {
        tonic::include_proto!("containerd.events");
    }
}

pub use content::{Content, Descriptor};
pub use error::Error;
pub use events::{Event, EventKind, EventStream};
pub use grpc::Grpc;
pub use runtime::{Answer, Features, Runtime, RuntimeFeatures};

impl std::fmt::Debug for v1::AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("server_address", &self.server_address)
            .finish_non_exhaustive()
    }
}
