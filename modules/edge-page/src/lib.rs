//! A page for people on the node: the link, the outbox, pods, devices, disk and memory, the certificate and the last events, also
//! while the node is cut off. Off unless `modules.edgePage.enable`; the `README.md` of this folder says how it is opened.
//!
//! It listens on loopback, which every user of the machine and every pod with `hostNetwork` reaches, so who asks shows a credential:
//! `keadm ctl page` asks at edgecore's own socket, which only its user opens, for a URL that opens the page once. Behind it are a path
//! that nobody can guess and a cookie that is sent to that path alone: browsers send cookies to all ports of a host, and
//! somebody else may listen at the next one.
//!
//! # Owns
//! The port, the tickets in such URLs, and the sessions of browsers.
//! # Accepts
//! [`contract::edgepage::EdgePageMsg`]: that somebody wants to see the page, or an invitation to it. HTTP at the port.
//! # Tells
//! Nobody. It asks EdgeHub, Edged and DeviceTwin for what they own, each for 2 s; what is not answered is said to be unknown. It reads
//! the head of the outbox.
//! # Keeps across a restart
//! Nothing: somebody else may have had the port meanwhile and heard a cookie, so all sessions end with it.
//! # Never
//! Changes anything, answers another host's name than loopback's or a page of elsewhere, writes a text of others without escaping it,
//! or does more for a hundred who look than for one: a page is made once for all who ask within a second, beside the hive's thread.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod door;
mod events;
mod facts;
mod gather;
mod html;
mod outbox;
mod pages;
mod plan;
mod quantities;
mod sessions;
mod settings;
mod view;

pub use actor::EdgePage;
pub use settings::Settings;
