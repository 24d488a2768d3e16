//! Facts of the Kubernetes API that every part of KubeHive shares, each with its one home here: how an object is named
//! ([`ObjectKey`], [`NamespacedName`]), which kinds there are ([`kind`], [`resource`]), how amounts are written
//! ([`Quantity`]), why a request is refused ([`StatusReason`]), what a pod refers to ([`PodReferences`]), what a static pod is
//! ([`static_pod`]), what stands behind a claim ([`volume`]), how names and labels are written ([`names`]) and
//! which of them a node gives itself ([`node_label`]), and which taints a pod tolerates ([`taint`]).
//!
//! * Owns: nothing.
//! * Accepts: JSON as the API server writes it.
//! * Tells: nobody.
//! * Keeps across a restart: nothing.
//! * Never: clients, stores, clocks. It has no behaviour of its own and depends on nothing of KubeHive.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod key;
pub mod kind;
pub mod names;
pub mod node_label;
mod pod;
mod quantity;
pub mod static_pod;
mod status;
pub mod taint;
pub mod volume;

pub use key::{NamespacedName, ObjectKey};
pub use kind::{Kind, resource};
pub use pod::{PodReferences, ephemeral_claim};
pub use quantity::{ParseQuantityError, Quantity};
pub use status::{StatusReason, failure, upgrade_refused};
