//! The Kubernetes REST rules over a store: what a server answers, and what it refuses.
//!
//! No sockets and no credentials: whoever serves it has authenticated the [`User`] and asked an authorizer about the
//! request's [`Attributes`]. Objects are JSON all the way; typed kinds only tell which fields exist. The rules know
//! neither the cloud nor the edge: both serve them.
//!
//! Two halves. Reading ([`ReadApi`] over a [`ReadStore`]): discovery, get, list, watch, tables. Writing ([`Api`] over a
//! [`Store`], the feature `write`): decoding, defaults, validation, create, update, patch, delete. What only some servers
//! do (admission, quota, subresources that are more than a part of an object) is a [`Policy`] of theirs.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
// What a kind says about writes is read by the half that writes.
#![cfg_attr(not(feature = "write"), allow(dead_code))]

mod crd;
mod error;
mod kind;
#[cfg(feature = "write")]
mod messages;
mod options;
mod read;
mod request;
mod response;
mod selector;
mod store;
#[cfg(any(feature = "testing", all(test, feature = "write")))]
pub mod testing;
#[cfg(all(test, feature = "write"))]
mod tests;
pub mod unstructured;
#[cfg(feature = "write")]
mod write;

pub use error::{ApiError, FieldError};
pub use options::{Options, VersionInfo};
pub use read::{ExtraResource, ReadApi};
pub use request::{ApiRequest, Attributes, BODY_MAX, User};
pub use response::{Answer, Body};
pub use store::{
    Change, Changes, Item, Page, QuotaCheck, Range, ReadStore, Store, StoreError, WatchError, Write,
    WriteError,
};
#[cfg(feature = "write")]
pub use write::{
    Admission, Api, NoPolicy, Operation, Policy, bad_endpoint_address, bad_subdomain, random_suffix,
};
