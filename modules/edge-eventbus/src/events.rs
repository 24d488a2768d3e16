//! The broker's named events, each a counter of the hive. Where clients cause one, its line is told at each doubling.

use beehive::Metrics;

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
/// A connection was refused, whatever the reason.
pub(crate) const CONNECTION_REFUSED: &str = "eventbus_connection_refused";
/// Of those, for its user name or password.
pub(crate) const LOGIN_REFUSED: &str = "eventbus_login_refused";
/// Of those, because it is not authorized.
pub(crate) const UNAUTHORIZED_REFUSED: &str = "eventbus_unauthorized_refused";
/// Of those, for want of room.
pub(crate) const BUSY_REFUSED: &str = "eventbus_busy_refused";
/// A TLS handshake failed, or its certificate names no user.
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
/// A connection ended because what came is no MQTT 3.1.1.
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

/// Where the broker counts: the hive's counters, which outlive an incarnation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counters(Metrics);

impl Counters {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Counters(metrics.clone())
    }

    /// Counts an event. Answers how often it has happened.
    pub(crate) fn count(&self, event: &'static str) -> u64 {
        self.add(event, 1)
    }

    /// Counts an event that happened so many times.
    pub(crate) fn add(&self, event: &'static str, more: u64) -> u64 {
        if more > 0 {
            self.0.add(event, more);
        }
        self.of(event)
    }

    /// How often an event has happened.
    pub(crate) fn of(&self, event: &str) -> u64 {
        self.0.count_of(event)
    }
}
