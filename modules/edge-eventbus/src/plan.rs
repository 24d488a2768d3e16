//! Bounds, and which topics are DeviceTwin's.

use std::time::Duration;

use crate::topic;

/// 256 KiB: the largest message for a twin or for the cloud; a twin of 1 000 properties of 128 bytes in one document fits.
/// A packet up to that size is read whenever it comes; a larger one waits for its share of [`LARGE_BYTES`].
pub(crate) const SMALL_BYTES: usize = 256 << 10;
/// 16 MiB of large packets are read at once, whoever sends them, and one of the largest size in any case.
pub(crate) const LARGE_BYTES: usize = 16 << 20;
/// 16 KiB a second, after 10 s: a large packet that comes more slowly keeps others from coming.
pub(crate) const LARGE_RATE: usize = 16 << 10;
/// 64 MiB: a PUBLISH of 3.1 or 3.1.1 that is larger than those that are taken is read to its end and dropped up to this
/// size, as a closed connection would only bring it again.
pub(crate) const SKIPPED_BYTES: usize = 64 << 20;
/// 72 KiB: a CONNECT with the largest will. Nobody is known before it, so it is taken in less memory.
pub(crate) const CONNECT_BYTES: usize = 72 << 10;
/// 8 KiB: the request that opens a WebSocket, with the cookies that a browser may send along.
pub(crate) const UPGRADE_BYTES: usize = 8 << 10;
/// 16 KiB: a read buffer that is larger is given back when it is empty.
pub(crate) const BUFFER_BYTES: usize = 16 << 10;
/// 2,000 small publishes a second of one connection where the settings say nothing else (`maxMessagesPerSecond`).
pub(crate) const MESSAGES_A_SECOND: u32 = 2_000;
/// 64 units of work (see `rate_limit.rs`), 16 small publishes, of one client are done before another client's turn comes.
pub(crate) const TURN_WORK: u64 = 64;
/// 64 KiB of one client are taken before another client's turn comes.
pub(crate) const TURN_BYTES: u64 = 64 << 10;
/// 64 connections of one listener that have not said who they are: each may make the broker keep a CONNECT.
pub(crate) const PENDING_CONNECTS: usize = 64;
/// 256 sessions, the absent clients' included, or twice as many as clients may be there at once; who makes room is in
/// `quotas.rs`.
pub(crate) const SESSIONS: usize = 256;
/// 2048 subscriptions of one client: clients that follow each device by name bring hundreds in one SUBSCRIBE.
pub(crate) const SUBSCRIPTIONS: usize = 2048;
/// 4096 different filters at once, shared as `quotas.rs` says.
pub(crate) const FILTERS: usize = 4096;
/// From 100 messages in a subscriber's queue on publishers of QoS 1 and 2 wait for it, where the settings say nothing else
/// (`mqttSessionQueueSize`).
pub(crate) const QUEUE_SIZE: usize = 100;
/// 10 times as many are the end: what comes then is lost for this client, and counted. What the node itself publishes, and QoS 0,
/// waits for nobody.
pub(crate) const QUEUE_ENDS: usize = 10;
/// 4 MiB of payload in a subscriber's queue are the end, too; one message alone may be larger.
pub(crate) const QUEUE_BYTES: usize = 4 << 20;
/// 10 s in all are a subscriber waited for, and does a publisher wait for subscribers, in [`PATIENCE_AGAIN`].
pub(crate) const SUBSCRIBER_PATIENCE: Duration = Duration::from_secs(10);
/// 5 min after the first of these waits there may be others: for a subscriber if its queue has become short again.
pub(crate) const PATIENCE_AGAIN: Duration = Duration::from_secs(300);
/// 20 messages of QoS 1 on the way to one client.
pub(crate) const INFLIGHT: usize = 20;
/// 512 KiB of payload on the way to one client; one message alone may be larger.
pub(crate) const INFLIGHT_BYTES: usize = 512 << 10;
/// 16 MiB of payload for all sessions together, what several of them hold once; beyond it the one that holds most gives way.
pub(crate) const HELD_BYTES: usize = 16 << 20;
/// 32 KiB: a session that holds less is not what makes it too much.
pub(crate) const HELD_LITTLE: usize = 32 << 10;
/// 16 publishes of one client wait for DeviceTwin or the store at once; they share commits.
pub(crate) const PENDING: usize = 16;
/// 256 packets of one client, as many as one of MQTT 5 may have open, are held back behind a publish of it that waits for room,
/// and 64 KiB of them; one packet alone may be larger. Then nothing more is read from it.
pub(crate) const HELD_BACK: usize = 256;
pub(crate) const HELD_BACK_BYTES: usize = 64 << 10;
/// 64 acknowledgements wait for one client's socket; then nothing more is read from it.
pub(crate) const CONTROL: usize = 64;
/// 4,096 of the publishes of QoS 2 that a client has not released are known by what they say, too (see `qos2.rs`): 16 KiB.
pub(crate) const QOS2_DIGESTS: usize = 4096;
/// 64 KiB are taken out of a client's queue at once.
pub(crate) const WRITE_BYTES: usize = 64 << 10;
/// 10 s from the connection to its CONNECT.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// 6 s of these for the name of an external broker: a name server that is away takes the C library 5 s.
pub(crate) const FOUND_WITHIN: Duration = Duration::from_secs(6);
/// 10 s, as mosquitto's `sys_interval`.
pub(crate) const FIGURES_EVERY: Duration = Duration::from_secs(10);
/// 1 s for the last word to a client whose connection ends.
pub(crate) const GOODBYE: Duration = Duration::from_secs(1);
/// 16 KiB of that are one piece, as a record of TLS has them.
pub(crate) const WRITE_PIECE: usize = 16 << 10;
/// 20 s for one piece: less than 1 KiB a second is no reader. mosquitto waits for ever, within the keep-alive.
pub(crate) const WRITE_DEADLINE: Duration = Duration::from_secs(20);
/// 30 s: DeviceTwin commits to a slow card.
pub(crate) const TWIN_DEADLINE: Duration = Duration::from_secs(30);
/// 50 retained messages of a new subscription are in a client's queue at once; the rest is looked up when these have left,
/// so that there may be any number of them.
pub(crate) const RETAINED_PAGE: usize = 50;
/// 2000 topics are looked at for one such page before another client's turn comes.
pub(crate) const RETAINED_LOOKS: usize = 2000;
/// 256 messages of QoS 1 and 2 that a client of MQTT 5 may have open on a connection.
pub(crate) const RECEIVE_MAXIMUM: u16 = 256;
/// 16 topics that get a number towards a client of MQTT 5 that takes numbers.
pub(crate) const OUTGOING_ALIASES: u16 = 16;
/// 16 topics that a client of MQTT 5 may give a number.
pub(crate) const TOPIC_ALIASES: u16 = 16;
/// 4 MiB of wills are kept over a power cut, shared as `quotas.rs` says: 3,000 of 1 KiB.
pub(crate) const WILL_BYTES: usize = 4 << 20;
/// 2 s for the wills of connected clients when the broker ends.
pub(crate) const LAST_WILLS: Duration = Duration::from_secs(2);
/// 1 s: what only has to be deleted from the store waits for so long, as it may be the next commit's.
pub(crate) const LAZY_STORE: Duration = Duration::from_secs(1);
/// 128 bytes: the longest name of a client that is taken, see `identity.rs`; of an anonymous one it is its client id.
pub(crate) const CLIENT_ID_BYTES: usize = 128;
/// 64 bytes: the longest user name, which leaves as much for the client id.
pub(crate) const USER_BYTES: usize = 64;
/// 1 KiB: the longest password.
pub(crate) const PASSWORD_BYTES: usize = 1 << 10;
/// 512 messages wait for the router; then publishers wait.
pub(crate) const BACKLOG: usize = 512;

/// 4 MiB of messages for the cloud wait for the store, those of anonymous clients half of it; then their publishers
/// wait.
pub(crate) const UPLOAD_BYTES: usize = 4 << 20;
/// 512 bytes: what a small one of them takes beside its payload.
pub(crate) const UPLOAD_OVERHEAD: usize = 512;
/// 10,000 messages and 8 MiB of `edgecore`'s own wait for an external broker that is away; what comes then is lost.
pub(crate) const EXTERNAL_MESSAGES: usize = 10_000;
pub(crate) const EXTERNAL_BYTES: usize = 8 << 20;
/// 256 messages for the cloud in one commit.
pub(crate) const UPLOAD_BATCH: usize = 256;
/// 1 MiB of payload in one commit; one message alone always fits.
pub(crate) const UPLOAD_BATCH_BYTES: usize = 1 << 20;
/// 1024 sources are counted at once: more clients and topics than a node's devices have.
pub(crate) const UPLOAD_SOURCES: usize = 1024;
/// 1 s between a message that the store does not take and the end of its connection, because many a client comes back
/// at once and says it again.
pub(crate) const REFUSAL_PAUSE: Duration = Duration::from_secs(1);

/// Whether a client's publish on `topic` is for the cloud: `$hw/events/upload/#`, `SYS/dis/upload_records` and
/// `+/user/#`, to which KubeEdge's EventBus subscribes.
pub(crate) fn is_for_the_cloud(topic: &str) -> bool {
    let mut levels = topic.split('/');
    match (levels.next(), levels.next(), levels.next()) {
        (Some("$hw"), Some("events"), Some("upload")) => true,
        // A wildcard in the first level keeps away from `$` topics.
        (Some(first), Some("user"), _) => !first.starts_with('$'),
        _ => topic == "SYS/dis/upload_records",
    }
}

/// What clients publish in the trees that begin with `$`, in the router's form (see [`crate::topic::router_form`]): the
/// topics that KubeEdge's devices and applications publish on, and what is left of `$hw` only `edgecore` says. In the
/// other trees they publish what they like.
const CLIENTS_HW: [&str; 6] = [
    "s/hw/events/device/+/+/state/update",
    "s/hw/events/device/+/+/twin/update",
    "s/hw/events/device/+/+/twin/get",
    "s/hw/events/device/+/+/method/call",
    "s/hw/events/node/+/membership/get",
    "s/hw/events/upload/#",
];
/// Of other trees what goes to the cloud: see [`is_for_the_cloud`].
const FOR_THE_CLOUD: [&str; 2] = ["SYS/dis/upload_records", "+/user/#"];
/// Time series of devices for applications on the node, with a namespace and, as in KubeEdge's older form, without.
const CLIENTS_KE: [&str; 2] = ["s/ke/events/device/+/+/data/update", "s/ke/events/device/+/data/update"];
/// Trees in which no other topic is a client's: `$hw` and the broker's own.
const CLOSED: [&str; 4] = ["s/hw/#", "s/SYS/#", "s/share/#", "s/queue/#"];

/// Whether a client without particular rights may publish on a topic, given in the router's form.
pub(crate) fn is_clients(router_form: &str) -> bool {
    router_form.starts_with("u/")
        || CLIENTS_HW.iter().chain(&CLIENTS_KE).any(|filter| topic::matches(filter, router_form))
}

/// Whether a client may be given the right to publish on a topic, given in the router's form.
pub(crate) fn may_be_clients(router_form: &str) -> bool {
    let closed = CLOSED.iter().any(|tree| topic::matches(tree, router_form));
    !closed || CLIENTS_HW.iter().any(|filter| topic::matches(filter, router_form))
}

/// Whether a filter, given in the router's form, takes a topic of [`may_be_clients`].
pub(crate) fn may_overlap_clients(router_form: &str) -> bool {
    let closed = CLOSED.iter().any(|tree| topic::covers(tree, router_form));
    !closed || CLIENTS_HW.iter().any(|filter| topic::overlap(filter, router_form))
}

/// Whether a client's publish on `topic` is DeviceTwin's: what KubeEdge's EventBus hands to it, with a device being
/// `<namespace>/<name>`, less what no client may say.
pub(crate) fn is_twins(topic: &str) -> bool {
    let router_form = topic::router_form(topic);
    router_form.starts_with("s/hw/") && may_be_clients(&router_form) && !is_for_the_cloud(topic)
}

/// Filters for all that clients publish for DeviceTwin and for the cloud, as KubeEdge's EventBus subscribes to them.
pub(crate) fn from_clients() -> Vec<String> {
    let own_trees = CLIENTS_HW.iter().filter_map(|filter| topic::from_router_form(filter));
    own_trees.chain(FOR_THE_CLOUD.iter().map(|filter| (*filter).to_owned())).collect()
}

/// How long a client may be silent.
pub(crate) fn silence(keep_alive: u16) -> Option<Duration> {
    (keep_alive > 0).then(|| Duration::from_millis(u64::from(keep_alive) * 1500))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_topics_are_those_of_the_contract() {
        for topic in [
            "$hw/events/device/default/sensor-1/twin/update",
            "$hw/events/device/default/sensor-1/twin/get",
            "$hw/events/device/default/sensor-1/state/update",
            "$hw/events/device/default/sensor-1/method/call",
            "$hw/events/device/events/device/twin/update",
            "$hw/events/node/edge-1/membership/get",
        ] {
            assert!(is_twins(topic), "{topic}");
        }
        for topic in [
            "$hw/events/device/default/sensor-1/twin/cloud_updated",
            "$hw/events/device/default/sensor-1/twin/update/result",
            "$hw/events/device/default/sensor-1/twin/get/result",
            "$hw/events/device/default/sensor-1/state/update/result",
            "$hw/events/device/default/sensor-1/method/call/result",
            "$hw/events/device/sensor-1/twin/update",
            "$hw/events/node/edge-1/membership/get/result",
            "$hw/events/upload/x",
            "hw/events/device/a/b/twin/update",
            "$ke/events/device/a/b/data/update",
        ] {
            assert!(!is_twins(topic), "{topic}");
        }
    }

    #[test]
    fn topics_for_the_cloud_are_those_of_the_contract() {
        for topic in [
            "$hw/events/upload",
            "$hw/events/upload/a/b",
            "SYS/dis/upload_records",
            "app/user/x/y",
            "app/user",
            "/user/x",
        ] {
            assert!(is_for_the_cloud(topic) && !is_twins(topic), "{topic}");
        }
        for topic in [
            "$hw/events/uploads",
            "hw/events/upload/x",
            "$hw/events/device/a/b/twin/update",
            "SYS/dis/upload_records/x",
            "SYS/dis",
            "$app/user/x",
            "app/users/x",
            "a/b/user/x",
            "user/x",
        ] {
            assert!(!is_for_the_cloud(topic), "{topic}");
        }
        let filters = ["$hw/events/upload/#", "SYS/dis/upload_records", "+/user/#"];
        let takes = |topic: &str| {
            let router_form = crate::topic::router_form(topic);
            filters
                .iter()
                .any(|filter| crate::topic::matches(&crate::topic::router_form(filter), &router_form))
        };
        for first in ["$hw", "hw", "SYS", "", "$", "a", "user"] {
            for second in ["events", "dis", "user", ""] {
                for third in ["", "/upload", "/upload/x", "/upload_records", "/", "/user/#"] {
                    let topic = format!("{first}/{second}{third}");
                    assert_eq!(is_for_the_cloud(&topic), takes(&topic), "{topic}");
                }
            }
        }
    }

    #[test]
    fn what_is_listened_to_elsewhere_is_what_goes_on_here() {
        let filters = from_clients();
        let takes = |topic: &str| {
            let router_form = topic::router_form(topic);
            filters.iter().any(|filter| topic::matches(&topic::router_form(filter), &router_form))
        };
        for topic in [
            "$hw/events/device/default/sensor-1/twin/update",
            "$hw/events/device/default/sensor-1/twin/get",
            "$hw/events/device/default/sensor-1/state/update",
            "$hw/events/node/edge-1/membership/get",
            "$hw/events/upload/a/b",
            "SYS/dis/upload_records",
            "app/user/x",
        ] {
            assert!(takes(topic) && (is_twins(topic) || is_for_the_cloud(topic)), "{topic}");
        }
        for topic in
            ["$hw/events/device/a/b/twin/cloud_updated", "$hw/events/device/a/b/twin/update/delta", "a/b"]
        {
            assert!(!takes(topic), "{topic}");
        }
    }

    #[test]
    fn a_client_may_be_silent_for_one_and_a_half_keep_alives() {
        assert_eq!(silence(0), None);
        assert_eq!(silence(3), Some(Duration::from_millis(4500)));
    }
}
