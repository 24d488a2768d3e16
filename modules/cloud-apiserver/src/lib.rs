//! The stand-alone Kubernetes API: a SQLite file, HTTPS, and the controllers that a single box needs.
//!
//! For trying out, for tests and for a box without a cluster. [`kubeapi`] holds the rules; here are what it stands on
//! ([`store`]), who may ask (tokens and RBAC), the server, and the controllers of `kube-controller-manager` and
//! `kube-scheduler` in their plain kind.
//!
//! Three actors, whom nobody tells anything: the API server ([`actor`]) with its HTTPS server, the controller manager
//! ([`controllers`]) with an informer for each kind that is watched and the controllers as its children, and the one that lets
//! events end ([`event_ttl`]). What they stand on
//! ([`StandAlone`]) outlives their incarnations, and answers requests of the same process without them.
//!
//! # Owns
//! One folder: the database, the CA, the key of the tokens, the admin's kubeconfig. Secrets are in the clear there: the
//! folder's mode 0700 and the files' 0600 protect them, checked at each start ([`FolderError`]). One port.
//! # Accepts
//! HTTPS with bearer tokens, of nodes too (`pods/log`, `exec`, `nodes/proxy`: by [`nodecalls`]); requests of the same process through [`StandAlone::client`].
//! # Tells
//! Nobody: its clients watch.
//! # Keeps across a restart
//! Of the daemon: every object. The history of changes does not outlive it: a watch from before is told to list again.
//! Of the API server's actor: the port, with what waits in its queue, the objects and their history. Connections end; a
//! client's watch goes on from the resourceVersion that it saw last.
//! Of a controller or an informer: nothing. It lists anew, a controller after all requests of its predecessor are answered, so
//! that it knows whatever they wrote: nothing is written twice.
//! # Never
//! Answers a write before it is on disk, or a request without credentials. Serves HTTPS on the hive's thread.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod access;
mod actor;
mod admission;
mod answer;
mod authenticator;
mod bootstrap;
mod byte_quota;
mod certificate;
pub mod controllers;
mod error;
mod event_ttl;
mod events;
mod folder;
mod handler;
mod impersonate;
mod keys;
mod kubelets;
mod loopback;
mod rbac;
mod rbac_cache;
mod rest;
mod standalone;
pub mod store;
#[cfg(test)]
mod tests;
mod turns;
mod untaken;

pub use access::{AccessControl, TokenRequest};
pub use actor::ApiServerMsg;
pub use admission::ClusterPolicy;
pub use error::StartError;
pub use folder::FolderError;
pub use standalone::{Running, Settings, StandAlone, StandAloneMailboxes, actors, mailboxes, start};
