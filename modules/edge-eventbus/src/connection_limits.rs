//! How many clients there are room for, and who makes room for a newcomer. Pure.

use std::rc::Rc;
use std::time::Duration;

use beehive::Moment;

use crate::peer::{ListenerKind, PeerOrigin};

/// 30 s: who promises no sign of life and has been silent for so long may be gone.
const SILENCE: Duration = Duration::from_secs(30);
/// 20 min: a keep-alive that is longer, or none, is no promise of a sign of life.
const PROMISE: u16 = 20 * 60;

/// Bounds of clients that are connected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    /// Altogether.
    pub(crate) all: usize,
    /// Through one listener: where there are several, none takes the last quarter from the others.
    pub(crate) listener: usize,
    /// From one source.
    pub(crate) source: usize,
}

impl ConnectionLimits {
    pub(crate) fn of(config: &config::edge::EventBus) -> Self {
        let all = usize::from(config.max_connections);
        let doors = [
            !config.mqtt_server_internal.is_empty(),
            config.tls.enable,
            config.web_socket.enable,
            !config.unix_socket.path.as_os_str().is_empty(),
        ];
        let several = doors.iter().filter(|on| **on).count() > 1;
        let listener = if several { all.div_ceil(4) * 3 } else { all };
        ConnectionLimits {
            all,
            listener: listener.min(all),
            source: usize::from(config.max_connections_per_address),
        }
    }
}

/// A client that is connected, or wants to be.
#[derive(Debug, Clone)]
pub(crate) struct ClientConnection {
    pub(crate) client: Rc<str>,
    /// Whether it is a user's.
    pub(crate) named: bool,
    pub(crate) listener: ListenerKind,
    pub(crate) source: PeerOrigin,
    /// In seconds, as it asked for.
    pub(crate) keep_alive: u16,
    /// When it last said something.
    pub(crate) heard: Moment,
    /// Whether it has said anything since its CONNECT.
    pub(crate) spoke: bool,
}

impl ClientConnection {
    /// Whether it may be gone for all that anybody knows.
    fn may_be_gone(&self, now: Moment) -> bool {
        let promises = (1..=PROMISE).contains(&self.keep_alive);
        !promises && (!self.spoke || now.since(self.heard) >= SILENCE)
    }
}

/// What becomes of a newcomer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admission {
    /// There is room.
    Free,
    /// This one goes.
    Evict(Rc<str>),
    /// There is no room.
    Refused,
}

/// Whether there is a place for a newcomer. A silent client that promised no sign of life makes room, the one that has
/// been silent longest; for a user any anonymous client does. A user makes room for users only.
pub(crate) fn place(
    limits: ConnectionLimits,
    connections: &[ClientConnection],
    newcomer: &ClientConnection,
    now: Moment,
) -> Admission {
    let of_source = |connection: &&ClientConnection| connection.source == newcomer.source;
    let of_listener = |connection: &&ClientConnection| connection.listener == newcomer.listener;
    // The narrowest bound first: who is over his own share displaces nobody else.
    if !newcomer.source.is_everyone() && connections.iter().filter(of_source).count() >= limits.source {
        return victim(connections.iter().filter(of_source), newcomer, now);
    }
    if connections.iter().filter(of_listener).count() >= limits.listener {
        return victim(connections.iter().filter(of_listener), newcomer, now);
    }
    if connections.len() >= limits.all {
        return victim(connections.iter(), newcomer, now);
    }
    Admission::Free
}

fn victim<'a>(
    connections: impl Iterator<Item = &'a ClientConnection>,
    newcomer: &ClientConnection,
    now: Moment,
) -> Admission {
    let may = |connection: &&ClientConnection| {
        (newcomer.named || !connection.named)
            && (connection.may_be_gone(now) || (newcomer.named && !connection.named))
    };
    let order =
        |connection: &&ClientConnection| (!connection.may_be_gone(now), connection.named, connection.heard);
    connections
        .filter(may)
        .min_by_key(order)
        .map_or(Admission::Refused, |connection| Admission::Evict(Rc::clone(&connection.client)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits { all: 4, listener: 3, source: 2 };

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn connection(client: &str, uid: u32) -> ClientConnection {
        ClientConnection {
            client: client.into(),
            named: false,
            listener: ListenerKind::Unix,
            source: PeerOrigin::Uid(uid),
            keep_alive: 0,
            heard: at(100),
            spoke: true,
        }
    }

    fn everyone(client: &str) -> ClientConnection {
        ClientConnection {
            listener: ListenerKind::Plain,
            source: crate::peer::Peer::default().source,
            ..connection(client, 0)
        }
    }

    fn of(client: &str) -> Admission {
        Admission::Evict(client.into())
    }

    #[test]
    fn the_longest_silent_of_those_that_promise_nothing_makes_room() {
        let keeps = ClientConnection { keep_alive: 60, heard: at(0), ..everyone("keeps") };
        let too_long = ClientConnection { keep_alive: PROMISE + 1, heard: at(50), ..everyone("too long") };
        let connections = [keeps.clone(), everyone("a"), too_long.clone()];
        let new = everyone("new");
        assert_eq!(place(LIMITS, &connections, &new, at(100)), of("too long"));
        assert_eq!(
            place(LIMITS, &[keeps.clone(), everyone("a"), keeps.clone()], &new, at(129)),
            Admission::Refused
        );
        assert_eq!(place(LIMITS, &[keeps.clone(), everyone("a"), keeps.clone()], &new, at(130)), of("a"));
        // Who has said nothing at all goes at once.
        let mute = ClientConnection { spoke: false, ..everyone("mute") };
        assert_eq!(place(LIMITS, &[keeps.clone(), mute, keeps.clone()], &new, at(100)), of("mute"));
        assert_eq!(place(LIMITS, &[keeps.clone(), keeps], &new, at(100)), Admission::Free);
    }

    #[test]
    fn users_are_let_in_before_anonymous_clients_and_never_go_for_them() {
        let keeps = |name: &str, named| ClientConnection { keep_alive: 60, named, ..everyone(name) };
        let user = keeps("new", true);
        let anonymous = keeps("new", false);
        let connections = [keeps("u", true), keeps("a", false), keeps("v", true)];
        assert_eq!(place(LIMITS, &connections, &user, at(500)), of("a"));
        assert_eq!(place(LIMITS, &connections, &anonymous, at(500)), Admission::Refused);
        let silent = ClientConnection { named: true, ..everyone("silent") };
        let connections = [keeps("u", true), silent, keeps("v", true)];
        assert_eq!(place(LIMITS, &connections, &anonymous, at(500)), Admission::Refused);
        assert_eq!(place(LIMITS, &connections, &user, at(500)), of("silent"));
    }

    #[test]
    fn a_source_displaces_its_own_and_a_listener_leaves_room_for_the_others() {
        let mut connections = vec![connection("1", 1), connection("2", 1), everyone("old")];
        assert_eq!(place(LIMITS, &connections, &connection("new", 1), at(100)), Admission::Refused);
        assert_eq!(place(LIMITS, &connections, &connection("new", 1), at(200)), of("1"));
        assert_eq!(place(LIMITS, &connections, &connection("new", 2), at(200)), Admission::Free);
        connections.push(connection("3", 2));
        // All are taken, three of them through the Unix socket.
        connections[2].heard = at(0);
        assert_eq!(place(LIMITS, &connections, &connection("new", 3), at(200)), of("1"));
        assert_eq!(place(LIMITS, &connections, &everyone("new"), at(200)), of("old"));
    }

    #[test]
    fn one_listener_may_take_every_place_and_several_may_not() {
        let mut config = config::edge::EventBus::default();
        let limits = |config: &config::edge::EventBus| {
            let limits = ConnectionLimits::of(config);
            (limits.all, limits.listener, limits.source)
        };
        assert_eq!(limits(&config), (128, 128, 64));
        config.unix_socket.path = "/run/mqtt.sock".into();
        assert_eq!(limits(&config), (128, 96, 64));
        config.max_connections = 1;
        assert_eq!(limits(&config), (1, 1, 64));
    }
}
