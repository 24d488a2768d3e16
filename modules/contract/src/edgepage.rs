//! What the node's page accepts, and what those who own the facts on it say.
//!
//! Texts are as others wrote them, and may be long and hostile: whoever shows them cuts and escapes them. Lists have the most urgent
//! first, no more than were asked for, and how many there are in all.

use beehive::{Message, Reply};
use bytes::Bytes;
use serde::Serialize;
use thiserror::Error;

/// 40 events of pods and of the node are kept for the page, and so many are on it: what a screen or two shows. What is older stands in the
/// outbox or in the cluster.
pub const EVENTS_MAX: usize = 40;

/// The link to the cloud, as EdgeHub sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkView {
    /// Whether there is one.
    pub up: bool,
    /// For how many seconds there has been one, or none; since edgecore began at the most.
    pub since_seconds: u64,
    /// The server at its other end.
    pub server: Option<String>,
    /// `quic` or `websocket`.
    pub carrier: Option<&'static str>,
    /// All servers that are dialled.
    pub servers: Vec<String>,
    /// How many dials came to nothing since there was a link.
    pub failed_dials: u64,
    /// What went wrong last: why a link ended, or could not be made.
    pub last_failure: Option<LinkFailure>,
    /// The node's certificate; `None`: somebody else looks after it.
    pub certificate: Option<CertificateView>,
    /// What became of the link, the newest first.
    pub events: Vec<EventView>,
}

/// What went wrong with the link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkFailure {
    /// A sentence for people.
    pub reason: String,
    /// How many seconds ago.
    pub seconds_ago: u64,
}

/// The node's certificate. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateView {
    /// When it ends.
    pub ends_unix: u64,
    /// When it is renewed, if there is a link.
    pub renewed_unix: u64,
    /// Whether edgecore renews it.
    pub rotates: bool,
    /// A renewal is under way.
    pub is_renewing: bool,
}

/// The node and its pods, as Edged sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    /// The pods.
    pub pods: Vec<PodView>,
    /// How many there are.
    pub pods_in_all: usize,
    /// What the node has left, as it was measured last.
    pub resources: Vec<ResourceView>,
    /// The node's conditions, as it reported them last.
    pub conditions: Vec<ConditionView>,
    /// What a kubelet tells as events of the node and its pods, the newest first.
    pub events: Vec<EventView>,
}

/// A pod of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// As in its status: `Running`.
    pub phase: String,
    /// One word on what is wrong with it: `CrashLoopBackOff`.
    pub reason: Option<String>,
    /// A sentence on that.
    pub message: Option<String>,
    /// How many of its containers are ready.
    pub ready: usize,
    /// How many it has.
    pub containers: usize,
    /// How often they were started again.
    pub restarts: u64,
    /// When it was taken on, RFC 3339.
    pub started: Option<String>,
}

/// What the node has left of something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceView {
    /// A kubelet's signal: `memory.available`.
    pub signal: &'static str,
    /// How much is left; bytes, or how many.
    pub available: u64,
    /// Of how much.
    pub capacity: u64,
}

/// A condition of the node or of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConditionView {
    /// `Ready`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// Since when, RFC 3339; empty: not known.
    pub since: String,
}

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventView {
    /// When, in seconds since 1970 by the node's clock.
    pub unix: i64,
    /// It is no good news.
    pub is_warning: bool,
    /// About what: `Pod shop/till`, `Node edge-1`, `Link`.
    pub about: String,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// How often.
    pub count: u64,
}

/// The node's devices, as DeviceTwin sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DevicesView {
    /// The devices.
    pub devices: Vec<DeviceView>,
    /// How many there are.
    pub devices_in_all: usize,
}

/// A device of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// online, offline, ok, unhealthy or unknown.
    pub state: String,
    /// Why it is in that state, as its mapper says.
    pub reason: Option<String>,
    /// RFC 3339, when it was last online.
    pub last_online: Option<String>,
    /// Its protocol.
    pub protocol: String,
    /// What is wrong with it.
    pub conditions: Vec<ConditionView>,
    /// Its properties, by name.
    pub properties: Vec<PropertyView>,
    /// How many it has.
    pub properties_in_all: usize,
}

/// A property of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PropertyView {
    /// Its name.
    pub name: String,
    /// What the device says that it is.
    pub reported: Option<String>,
    /// When it said so, in milliseconds since 1970 by the node's clock.
    pub reported_unix_ms: Option<i64>,
    /// What it should be.
    pub desired: Option<String>,
    /// What is wrong with either.
    pub error: Option<String>,
    /// It has not been heard in time.
    pub is_stale: bool,
}

/// How much is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewBounds {
    /// Pods, devices or servers.
    pub rows: usize,
    /// Properties of one device, or conditions.
    pub parts: usize,
    /// Bytes of one text.
    pub text: usize,
}

impl ViewBounds {
    /// A text as long as it may be: what is longer ends in `…`.
    pub fn cut(&self, text: &str) -> String {
        if text.len() <= self.text {
            return text.to_owned();
        }
        format!("{}…", &text[..text.floor_char_boundary(self.text)])
    }
}

/// In which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageForm {
    /// For a browser.
    Html,
    /// For scripts.
    Json,
}

/// The page, made once for all that ask at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadePage {
    /// For a browser.
    pub html: Bytes,
    /// For scripts.
    pub json: Bytes,
}

/// Why there is no page.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoPage {
    /// The settings say so.
    #[error(
        "the node's page is off: set modules.edgePage.enable: true in edgecore.yaml, and restart edgecore"
    )]
    Off,
    /// The port is not ours.
    #[error("the node's page is not served, and is tried again every 10 s: {0}")]
    NotServed(String),
    /// As many ask as may.
    #[error("as many wait for the node's page as may; try again")]
    Busy,
}

/// Messages to the node's page.
#[derive(Debug)]
pub enum EdgePageMsg {
    /// Somebody who may wants to see it.
    View {
        /// In which form.
        form: PageForm,
        /// The page.
        reply: Reply<Result<Bytes, NoPage>>,
    },
    /// Somebody whom edgecore's own socket let in wants to open it in a browser.
    Invite {
        /// A URL that opens it once.
        reply: Reply<Result<String, NoPage>>,
    },
    /// The page was made, or could not be.
    Made(Option<MadePage>),
    /// Nobody has asked for a while: what was made is let go.
    Forget,
    /// The server has ended, or could not begin: try again.
    Serve,
}

impl Message for EdgePageMsg {
    fn name(&self) -> &'static str {
        match self {
            EdgePageMsg::View { .. } => "View",
            EdgePageMsg::Invite { .. } => "Invite",
            EdgePageMsg::Made(_) => "Made",
            EdgePageMsg::Forget => "Forget",
            EdgePageMsg::Serve => "Serve",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_letters() {
        let bounds = ViewBounds { rows: 1, parts: 1, text: 4 };
        assert_eq!((bounds.cut("abcd"), bounds.cut("abcde")), ("abcd".to_owned(), "abcd…".to_owned()));
        assert_eq!(bounds.cut("abcé"), "abc…");
    }
}
