//! The broker's named events: each is one function, which counts it and writes its line of the log. What clients can make happen
//! as often as they like has its line at each doubling, and is at the level of debug between.

use beehive::{Env, Metrics};

use crate::error::{ConnectionError, RouterError};
use crate::packet::ConnectCode;
use crate::topic;

/// A message came, from a client or from `edgecore`.
pub(crate) const MESSAGE_IN: &str = "eventbus_message_in";
/// A message was written to a client.
pub(crate) const MESSAGE_OUT: &str = "eventbus_message_out";
/// A publish to a topic that is nobody's to publish on, or no name.
pub(crate) const TOPIC_REFUSED: &str = "eventbus_topic_refused";
/// A publish of a client that has no right to its topic.
pub(crate) const PUBLISH_REFUSED: &str = "eventbus_publish_refused";
/// A will that its client may not publish.
pub(crate) const WILL_REFUSED: &str = "eventbus_will_refused";
/// There was no room to keep a will over a power cut.
pub(crate) const WILL_NOT_KEPT: &str = "eventbus_will_not_kept";
/// A connection was refused, whatever the reason.
pub(crate) const CONNECTION_REFUSED: &str = "eventbus_connection_refused";
/// Of those, for its user name or password.
pub(crate) const LOGIN_REFUSED: &str = "eventbus_login_refused";
/// Of those, because it is not authorized.
pub(crate) const UNAUTHORIZED_REFUSED: &str = "eventbus_unauthorized_refused";
/// Of those, for want of room.
pub(crate) const BUSY_REFUSED: &str = "eventbus_busy_refused";
/// Of those, for its version of MQTT.
pub(crate) const VERSION_REFUSED: &str = "eventbus_version_refused";
/// A handshake of TLS or WebSocket failed, or a certificate names no user.
pub(crate) const HANDSHAKE_REFUSED: &str = "eventbus_handshake_refused";
/// A connected client made room for another one.
pub(crate) const CLIENT_DISPLACED: &str = "eventbus_client_displaced";
/// A connection ended because its client came again.
pub(crate) const SESSION_TAKEN_OVER: &str = "eventbus_session_taken_over";
/// A connection ended because its user is gone or has another password.
pub(crate) const CONNECTION_REVOKED: &str = "eventbus_connection_revoked";
/// DeviceTwin refused a publish.
pub(crate) const TWIN_REFUSED: &str = "eventbus_twin_refused";
/// DeviceTwin did not answer about a publish.
pub(crate) const TWIN_UNANSWERED: &str = "eventbus_twin_unanswered";
/// A subscription was refused.
pub(crate) const SUBSCRIPTION_REFUSED: &str = "eventbus_subscription_refused";
/// A connection ended because what came is no MQTT.
pub(crate) const CONNECTION_MALFORMED: &str = "eventbus_connection_malformed";
/// A message of QoS 0 found its subscriber's queue full.
pub(crate) const QOS0_DROPPED: &str = "eventbus_qos0_dropped";
/// A message of QoS 1 found its subscriber's queue full.
pub(crate) const QOS1_LOST: &str = "eventbus_qos1_lost";
/// A client was cut off because it does not keep up.
pub(crate) const CLIENT_CUT_OFF: &str = "eventbus_client_cut_off";
/// There was no room for a retained message.
pub(crate) const NOT_RETAINED: &str = "eventbus_not_retained";
/// A connection ended because the store did not take its message for the cloud.
pub(crate) const CLOSED_FOR_UPLOAD: &str = "eventbus_closed_for_upload";
/// A session gave way because all together hold too much.
pub(crate) const SESSION_GIVEN_UP: &str = "eventbus_session_given_up";
/// A session of an absent client made room.
pub(crate) const SESSION_FORGOTTEN: &str = "eventbus_session_forgotten";
/// A session of an absent client that may not connect any more was dropped.
pub(crate) const SESSION_REFUSED: &str = "eventbus_session_refused";
/// A session of an absent client was over.
pub(crate) const SESSION_EXPIRED: &str = "eventbus_session_expired";
/// A publish larger than those that are taken was dropped.
pub(crate) const OVERSIZED: &str = "eventbus_publish_oversized";
/// A connection was closed because it does not read, or was not answered for.
pub(crate) const CONNECTION_STUCK: &str = "eventbus_connection_stuck";
/// A client was read more slowly because it asked for more than its share.
pub(crate) const CLIENT_SLOWED: &str = "eventbus_client_slowed";
/// The router died.
pub(crate) const ROUTER_DIED: &str = "eventbus_router_died";
/// The router was full, and an empty one took its place.
pub(crate) const ROUTER_REPLACED: &str = "eventbus_router_replaced";
/// A message for the cloud is in the outbox.
pub(crate) const UPLOAD_KEPT: &str = "eventbus_upload_kept";
/// A message for the cloud was refused; its client sends it again.
pub(crate) const UPLOAD_REFUSED: &str = "eventbus_upload_refused";
/// A message of QoS 0 for the cloud was dropped.
pub(crate) const UPLOAD_DROPPED: &str = "eventbus_upload_dropped";
/// A place where clients connect could not be had.
pub(crate) const PLACE_MISSING: &str = "eventbus_place_missing";
/// A connection could not be accepted.
pub(crate) const ACCEPT_FAILED: &str = "eventbus_accept_failed";
/// Retained messages did not get into the store.
pub(crate) const RETAINED_NOT_STORED: &str = "eventbus_retained_not_stored";
/// A file of users or rights was not taken.
pub(crate) const FILE_REFUSED: &str = "eventbus_file_refused";

/// Where the broker counts: the hive's counters, which outlive an incarnation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counters(Metrics);

/// The line of an event that clients cause, with how often it was caused by all of them. The log thins them for each client, so
/// that one who floods hides no other.
macro_rules! tell {
    ($level:ident, $event:expr, $times:expr, $($fields_and_words:tt)+) => {
        tracing::$level!(event = $event, times = $times, $($fields_and_words)+)
    };
}

impl Counters {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Counters(metrics.clone())
    }

    /// How often an event has happened.
    pub(crate) fn of(&self, event: &str) -> u64 {
        self.0.count_of(event)
    }

    fn count(&self, event: &'static str) -> u64 {
        self.add(event, 1)
    }

    fn add(&self, event: &'static str, more: u64) -> u64 {
        if more > 0 {
            self.0.add(event, more);
        }
        self.of(event)
    }

    /// See [`MESSAGE_IN`]. Traffic has no line of the log.
    pub(crate) fn message_in(&self) {
        self.count(MESSAGE_IN);
    }

    /// See [`MESSAGE_OUT`].
    pub(crate) fn messages_out(&self, messages: u64) {
        self.add(MESSAGE_OUT, messages);
    }

    /// See [`TOPIC_REFUSED`].
    pub(crate) fn topic_refused(&self, client: &str, topic: &str, reason: &str) {
        let times = self.count(TOPIC_REFUSED);
        tell!(warn, TOPIC_REFUSED, times, ?client, ?topic, reason, "publish refused");
    }

    /// See [`TOPIC_REFUSED`]: `edgecore` itself published, which is a defect.
    pub(crate) fn own_topic_refused(&self, topic: &str, reason: &str) {
        self.count(TOPIC_REFUSED);
        tracing::error!(event = TOPIC_REFUSED, ?topic, reason, "node's own publish refused");
    }

    /// See [`PUBLISH_REFUSED`].
    pub(crate) fn publish_refused(&self, client: &str, peer: &str, topic: &str) {
        let times = self.count(PUBLISH_REFUSED);
        let no_right = || "the client has no right to this topic".to_owned();
        let missing = |meant| format!("the namespace is missing: {meant:?}");
        let reason = topic::with_namespace(topic).map_or_else(no_right, missing);
        tell!(warn, PUBLISH_REFUSED, times, ?client, peer, ?topic, reason, "publish refused");
    }

    /// See [`WILL_REFUSED`].
    pub(crate) fn will_refused(&self, client: &str, topic: &str, reason: &str) {
        let times = self.count(WILL_REFUSED);
        tell!(warn, WILL_REFUSED, times, ?client, ?topic, reason, "will refused");
    }

    /// See [`WILL_NOT_KEPT`].
    pub(crate) fn will_not_kept(&self, client: &str, topic: &str) {
        let times = self.count(WILL_NOT_KEPT);
        tell!(
            warn,
            WILL_NOT_KEPT,
            times,
            ?client,
            ?topic,
            "no room to keep another will over a power cut; it is published if its client goes while edgecore runs"
        );
    }

    /// See [`CONNECTION_REFUSED`]; with the reasons that have a counter of their own.
    pub(crate) fn connection_refused(&self, peer: &str, code: ConnectCode) {
        self.count(CONNECTION_REFUSED);
        let event = match code {
            ConnectCode::BadUserNameOrPassword => LOGIN_REFUSED,
            ConnectCode::NotAuthorized => UNAUTHORIZED_REFUSED,
            ConnectCode::ServerUnavailable => BUSY_REFUSED,
            ConnectCode::UnacceptableVersion => VERSION_REFUSED,
            ConnectCode::Accepted
            | ConnectCode::IdentifierRejected
            | ConnectCode::InvalidTopic
            | ConnectCode::PacketTooLarge
            | ConnectCode::UnknownAuthMethod
            | ConnectCode::Malformed(_) => {
                tracing::debug!(event = CONNECTION_REFUSED, peer, ?code, "connection refused");
                return;
            }
        };
        let times = self.count(event);
        tell!(warn, event, times, peer, ?code, "connection refused");
    }

    /// A client's connection ended other than by a DISCONNECT. What happens every day is not counted.
    pub(crate) fn connection_ended(&self, client: &str, error: &ConnectionError) {
        let reason = beehive::Fault::from_error(error).reason;
        let Some(event) = event_of(error) else {
            tracing::debug!(?client, ?reason, "connection closed");
            return;
        };
        let times = self.count(event);
        tell!(warn, event, times, ?client, ?reason, "connection closed");
    }

    /// A connection ended before its client had said who it is: all that is known is where it comes from.
    pub(crate) fn newcomer_ended(&self, peer: &str, error: &ConnectionError) {
        let reason = beehive::Fault::from_error(error).reason;
        let Some(event) = event_of(error) else {
            tracing::debug!(%peer, ?reason, "connection closed");
            return;
        };
        let times = self.count(event);
        tell!(warn, event, times, %peer, ?reason, "connection closed");
    }

    /// See [`CLIENT_DISPLACED`].
    pub(crate) fn client_displaced(&self, client: &str, newcomer: &str) {
        let times = self.count(CLIENT_DISPLACED);
        tell!(warn, CLIENT_DISPLACED, times, ?client, ?newcomer, "too many clients: one made room");
    }

    /// See [`TWIN_REFUSED`].
    pub(crate) fn twin_refused(&self, client: &str, topic: &str, reason: &str) {
        let times = self.count(TWIN_REFUSED);
        tell!(warn, TWIN_REFUSED, times, ?client, ?topic, ?reason, "DeviceTwin refuses a publish");
    }

    /// See [`TWIN_UNANSWERED`].
    pub(crate) fn twin_unanswered(&self, client: &str, topic: &str, error: &beehive::AskError) {
        let times = self.count(TWIN_UNANSWERED);
        tell!(error, TWIN_UNANSWERED, times, ?client, ?topic, %error, "DeviceTwin does not answer");
    }

    /// See [`SUBSCRIPTION_REFUSED`].
    pub(crate) fn subscription_refused(&self, client: &str, filter: &str, reason: &str) {
        let times = self.count(SUBSCRIPTION_REFUSED);
        tell!(warn, SUBSCRIPTION_REFUSED, times, ?client, ?filter, reason, "subscription refused");
    }

    /// See [`QOS0_DROPPED`].
    pub(crate) fn qos0_dropped(&self, client: &str, topic: &str) {
        self.count(QOS0_DROPPED);
        tracing::debug!(event = QOS0_DROPPED, ?client, ?topic, "queue is full, message of QoS 0 dropped");
    }

    /// See [`QOS1_LOST`].
    pub(crate) fn qos1_lost(&self, client: &str, topic: &str) {
        let times = self.count(QOS1_LOST);
        tell!(
            warn,
            QOS1_LOST,
            times,
            ?client,
            ?topic,
            "the queue of a client that is away or does not keep up is full, message lost"
        );
    }

    /// See [`CLIENT_CUT_OFF`].
    pub(crate) fn client_cut_off(&self, client: &str) {
        let times = self.count(CLIENT_CUT_OFF);
        tell!(warn, CLIENT_CUT_OFF, times, ?client, "client does not keep up and is cut off");
    }

    /// See [`NOT_RETAINED`].
    pub(crate) fn not_retained(&self, client: &str, topic: &str) {
        let times = self.count(NOT_RETAINED);
        tell!(warn, NOT_RETAINED, times, ?client, ?topic, "no room for another retained message");
    }

    /// See [`SESSION_GIVEN_UP`]; `lost` messages of QoS 1 were in it.
    pub(crate) fn session_given_up(&self, client: &str, lost: u64) {
        self.add(QOS1_LOST, lost);
        let times = self.count(SESSION_GIVEN_UP);
        tell!(
            warn,
            SESSION_GIVEN_UP,
            times,
            ?client,
            lost,
            "sessions hold too much, and this one most: it is given up"
        );
    }

    /// See [`SESSION_FORGOTTEN`].
    pub(crate) fn session_forgotten(&self, client: &str) {
        let times = self.count(SESSION_FORGOTTEN);
        tell!(
            warn,
            SESSION_FORGOTTEN,
            times,
            ?client,
            "too many sessions: one of an absent client is forgotten"
        );
    }

    /// See [`SESSION_REFUSED`].
    pub(crate) fn session_refused(&self, client: &str, reason: &str) {
        let times = self.count(SESSION_REFUSED);
        tell!(warn, SESSION_REFUSED, times, ?client, reason, "session of an absent client is dropped");
    }

    /// See [`SESSION_EXPIRED`].
    pub(crate) fn session_expired(&self, client: &str) {
        self.count(SESSION_EXPIRED);
        tracing::debug!(event = SESSION_EXPIRED, ?client, "session of an absent client is over");
    }

    /// See [`OVERSIZED`].
    pub(crate) fn publish_oversized(&self, client: &str, topic: &str, size: usize, limit: usize) {
        let times = self.count(OVERSIZED);
        tell!(
            warn,
            OVERSIZED,
            times,
            ?client,
            ?topic,
            size,
            limit,
            "publish is larger than those that are taken (modules.eventBus.maxMessageBytes; for twins and the cloud 256 KiB) and is dropped"
        );
    }

    /// See [`CLIENT_SLOWED`].
    pub(crate) fn client_slowed(&self, client: &str, peer: &str) {
        let times = self.count(CLIENT_SLOWED);
        tell!(
            info,
            CLIENT_SLOWED,
            times,
            ?client,
            peer,
            "client sends more than its share and is read more slowly"
        );
    }

    /// See [`ROUTER_DIED`].
    pub(crate) fn router_died(&self, error: &RouterError) {
        self.count(ROUTER_DIED);
        tracing::error!(event = ROUTER_DIED, %error, "MQTT router is gone; another takes its place and clients stay connected");
    }

    /// See [`ROUTER_REPLACED`].
    pub(crate) fn router_replaced(&self) {
        self.count(ROUTER_REPLACED);
        tracing::debug!(event = ROUTER_REPLACED, "MQTT router was full of topics or filters and is replaced");
    }

    /// See [`UPLOAD_KEPT`]. Traffic has no line of the log.
    pub(crate) fn upload_kept(&self) {
        self.count(UPLOAD_KEPT);
    }

    /// See [`UPLOAD_REFUSED`].
    pub(crate) fn upload_refused(&self, client: &str, topic: &str, reason: &str) {
        let times = self.count(UPLOAD_REFUSED);
        tell!(
            warn,
            UPLOAD_REFUSED,
            times,
            ?client,
            ?topic,
            reason,
            "message for the cloud refused; its client sends it again"
        );
    }

    /// See [`UPLOAD_DROPPED`].
    pub(crate) fn upload_dropped(&self, client: &str, topic: &str, reason: &str) {
        let times = self.count(UPLOAD_DROPPED);
        tell!(warn, UPLOAD_DROPPED, times, ?client, ?topic, reason, "message of QoS 0 for the cloud dropped");
    }
}

/// By what the end of a connection is counted; `None`: it happens every day.
fn event_of(error: &ConnectionError) -> Option<&'static str> {
    match error {
        ConnectionError::MalformedPacket(_) | ConnectionError::Protocol(_) | ConnectionError::Coded(..) => {
            Some(CONNECTION_MALFORMED)
        }
        ConnectionError::NotKept(_) => Some(CLOSED_FOR_UPLOAD),
        ConnectionError::Handshake(_)
        | ConnectionError::Upgrade(_)
        | ConnectionError::Unnamed(_)
        | ConnectionError::NoCertificate => Some(HANDSHAKE_REFUSED),
        ConnectionError::TakenOver { .. } => Some(SESSION_TAKEN_OVER),
        ConnectionError::Revoked => Some(CONNECTION_REVOKED),
        ConnectionError::Unanswered(_) | ConnectionError::Stuck | ConnectionError::Slow => {
            Some(CONNECTION_STUCK)
        }
        ConnectionError::Socket(_)
        | ConnectionError::Closed
        | ConnectionError::Silent
        | ConnectionError::Displaced
        | ConnectionError::MadeRoom
        | ConnectionError::Ending => None,
    }
}

/// See [`PLACE_MISSING`].
pub(crate) fn place_missing(env: &Env, reason: &str) {
    env.count(PLACE_MISSING);
    tracing::error!(event = PLACE_MISSING, reason, "MQTT clients cannot connect there; tried again");
}

/// See [`ACCEPT_FAILED`].
pub(crate) fn accept_failed(env: &Env, error: &std::io::Error) {
    env.count(ACCEPT_FAILED);
    tracing::warn!(event = ACCEPT_FAILED, %error, "connection not accepted");
}

/// See [`RETAINED_NOT_STORED`].
pub(crate) fn retained_not_stored(env: &Env, reason: &str, tried: std::time::Duration) {
    env.count(RETAINED_NOT_STORED);
    tracing::error!(
        event = RETAINED_NOT_STORED,
        reason,
        ?tried,
        "retained messages are not in the store and would not survive a restart"
    );
}

/// See [`FILE_REFUSED`].
pub(crate) fn file_refused(env: &Env, key: &str, files: &[std::path::PathBuf], reason: &str) {
    env.count(FILE_REFUSED);
    tracing::error!(
        event = FILE_REFUSED,
        key,
        ?files,
        reason,
        "invalid file of users or rights; the previous one stays in force"
    );
}
