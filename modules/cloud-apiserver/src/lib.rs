//! The stand-alone Kubernetes API: a SQLite file, HTTPS, and the controllers that a single box needs.
//!
//! For trying out, for tests and for a box without a cluster. [`kubeapi`] holds the rules; here are what it stands on
//! ([`store`]), who may ask (tokens and RBAC), the server, and the controllers of `kube-controller-manager` and
//! `kube-scheduler` in their plain kind.
//!
//! # Owns
//! One folder: the database, the CA, the key of the tokens, the admin's kubeconfig. Secrets are in the clear there: the
//! folder's mode 0700 and the files' 0600 protect them, checked at each start ([`FolderError`]).
//! # Accepts
//! HTTPS with bearer tokens; requests of the same process through [`Running::client`].
//! # Tells
//! Nobody: its clients watch.
//! # Keeps across a restart
//! Every object. The history of changes does not outlive it: a watch from before is told to list again.
//! # Never
//! Answers a write before it is on disk, or a request without credentials.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod access;
mod admission;
mod authority;
mod bootstrap;
pub mod controllers;
mod folder;
mod impersonate;
mod keys;
mod places;
mod quota;
mod rbac;
mod rest;
mod serve;
mod server;
mod stall;
pub mod store;
#[cfg(test)]
mod tests;

pub use access::{AccessControl, TokenRequest};
pub use admission::ClusterPolicy;
pub use folder::FolderError;
pub use server::{Running, Settings, StartError, start};
