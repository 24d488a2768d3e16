//! The Kubernetes REST rules over a [`Store`]: what a server answers, and what it refuses.
//!
//! No sockets and no credentials: whoever serves it has authenticated the [`User`] and asked an authorizer about the
//! request's [`Attributes`]. Objects are JSON all the way; typed kinds only tell which fields exist. The rules know
//! neither the cloud nor the edge: both serve them.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod admit;
mod api;
mod custom;
mod defaults;
mod delete;
mod discovery;
mod escalation;
mod failure;
mod field;
mod json;
mod jsonpath;
mod kind;
mod patch;
mod podsecurity;
mod priority;
mod protobuf;
mod read;
mod reference;
mod request;
mod selector;
mod service;
mod sheet;
mod store;
mod strict;
mod subresource;
mod table;
#[cfg(test)]
mod tests;
mod validate;
mod watch;
mod write;

pub use api::{Api, BODY_MAX, Body, Hooks, Options, TokenOrder, User, VersionInfo};
pub use failure::{Cause, Failure};
pub use request::Attributes;
pub use store::{
    Change, Changes, Item, Key, Page, Range, Room, Store, StoreError, WatchError, Write, WriteError,
};
pub use write::CONTROLLERS;
