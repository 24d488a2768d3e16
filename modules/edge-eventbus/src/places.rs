//! How many clients there are room for, and who makes room for a newcomer. Pure.

use std::rc::Rc;
use std::time::Duration;

use beehive::Moment;

use crate::peer::{Door, Source};

/// 30 s: who promises no sign of life and has been silent for so long may be gone.
const SILENCE: Duration = Duration::from_secs(30);
/// 20 min: a keep-alive that is longer, or none, is no promise of a sign of life.
const PROMISE: u16 = 20 * 60;

/// Bounds of clients that are connected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Altogether.
    pub(crate) all: usize,
    /// Through one listener: where there are several, none takes the last quarter from the others.
    pub(crate) door: usize,
    /// From one source.
    pub(crate) source: usize,
}

impl Limits {
    pub(crate) fn of(config: &config::edge::EventBus) -> Self {
        let all = usize::from(config.max_connections);
        let doors = [
            !config.mqtt_server_internal.is_empty(),
            config.tls.enable,
            !config.unix_socket.path.as_os_str().is_empty(),
        ];
        let several = doors.iter().filter(|on| **on).count() > 1;
        let door = if several { all.div_ceil(4) * 3 } else { all };
        Limits { all, door: door.min(all), source: usize::from(config.max_connections_per_address) }
    }
}

/// A client that is connected, or wants to be.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    pub(crate) client: Rc<str>,
    /// Whether it is a user's.
    pub(crate) named: bool,
    pub(crate) door: Door,
    pub(crate) source: Source,
    /// In seconds, as it asked for.
    pub(crate) keep_alive: u16,
    /// When it last said something.
    pub(crate) heard: Moment,
    /// Whether it has said anything since its CONNECT.
    pub(crate) spoke: bool,
}

impl Seat {
    /// Whether it may be gone for all that anybody knows.
    fn may_be_gone(&self, now: Moment) -> bool {
        let promises = (1..=PROMISE).contains(&self.keep_alive);
        !promises && (!self.spoke || now.since(self.heard) >= SILENCE)
    }
}

/// What becomes of a newcomer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// There is room.
    Free,
    /// This one goes.
    Of(Rc<str>),
    /// There is no room.
    None,
}

/// Whether there is a place for a newcomer. A silent client that promised no sign of life makes room, the one that has
/// been silent longest; for a user any anonymous client does. A user makes room for users only.
pub(crate) fn place(limits: Limits, seats: &[Seat], newcomer: &Seat, now: Moment) -> Place {
    let of_source = |seat: &&Seat| seat.source == newcomer.source;
    let of_door = |seat: &&Seat| seat.door == newcomer.door;
    // The narrowest bound first: who is over his own share displaces nobody else.
    if !newcomer.source.is_everyone() && seats.iter().filter(of_source).count() >= limits.source {
        return victim(seats.iter().filter(of_source), newcomer, now);
    }
    if seats.iter().filter(of_door).count() >= limits.door {
        return victim(seats.iter().filter(of_door), newcomer, now);
    }
    if seats.len() >= limits.all {
        return victim(seats.iter(), newcomer, now);
    }
    Place::Free
}

fn victim<'a>(seats: impl Iterator<Item = &'a Seat>, newcomer: &Seat, now: Moment) -> Place {
    let may = |seat: &&Seat| {
        (newcomer.named || !seat.named) && (seat.may_be_gone(now) || (newcomer.named && !seat.named))
    };
    let order = |seat: &&Seat| (!seat.may_be_gone(now), seat.named, seat.heard);
    seats.filter(may).min_by_key(order).map_or(Place::None, |seat| Place::Of(Rc::clone(&seat.client)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { all: 4, door: 3, source: 2 };

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn seat(client: &str, uid: u32) -> Seat {
        Seat {
            client: client.into(),
            named: false,
            door: Door::Unix,
            source: Source::Uid(uid),
            keep_alive: 0,
            heard: at(100),
            spoke: true,
        }
    }

    fn everyone(client: &str) -> Seat {
        Seat { door: Door::Plain, source: crate::peer::Peer::default().source, ..seat(client, 0) }
    }

    fn of(client: &str) -> Place {
        Place::Of(client.into())
    }

    #[test]
    fn the_longest_silent_of_those_that_promise_nothing_makes_room() {
        let keeps = Seat { keep_alive: 60, heard: at(0), ..everyone("keeps") };
        let too_long = Seat { keep_alive: PROMISE + 1, heard: at(50), ..everyone("too long") };
        let seats = [keeps.clone(), everyone("a"), too_long.clone()];
        let new = everyone("new");
        assert_eq!(place(LIMITS, &seats, &new, at(100)), of("too long"));
        assert_eq!(place(LIMITS, &[keeps.clone(), everyone("a"), keeps.clone()], &new, at(129)), Place::None);
        assert_eq!(place(LIMITS, &[keeps.clone(), everyone("a"), keeps.clone()], &new, at(130)), of("a"));
        // Who has said nothing at all goes at once.
        let mute = Seat { spoke: false, ..everyone("mute") };
        assert_eq!(place(LIMITS, &[keeps.clone(), mute, keeps.clone()], &new, at(100)), of("mute"));
        assert_eq!(place(LIMITS, &[keeps.clone(), keeps], &new, at(100)), Place::Free);
    }

    #[test]
    fn users_are_let_in_before_anonymous_clients_and_never_go_for_them() {
        let keeps = |name: &str, named| Seat { keep_alive: 60, named, ..everyone(name) };
        let user = keeps("new", true);
        let anonymous = keeps("new", false);
        let seats = [keeps("u", true), keeps("a", false), keeps("v", true)];
        assert_eq!(place(LIMITS, &seats, &user, at(500)), of("a"));
        assert_eq!(place(LIMITS, &seats, &anonymous, at(500)), Place::None);
        let silent = Seat { named: true, ..everyone("silent") };
        let seats = [keeps("u", true), silent, keeps("v", true)];
        assert_eq!(place(LIMITS, &seats, &anonymous, at(500)), Place::None);
        assert_eq!(place(LIMITS, &seats, &user, at(500)), of("silent"));
    }

    #[test]
    fn a_source_displaces_its_own_and_a_listener_leaves_room_for_the_others() {
        let mut seats = vec![seat("1", 1), seat("2", 1), everyone("old")];
        assert_eq!(place(LIMITS, &seats, &seat("new", 1), at(100)), Place::None);
        assert_eq!(place(LIMITS, &seats, &seat("new", 1), at(200)), of("1"));
        assert_eq!(place(LIMITS, &seats, &seat("new", 2), at(200)), Place::Free);
        seats.push(seat("3", 2));
        // All are taken, three of them through the Unix socket.
        seats[2].heard = at(0);
        assert_eq!(place(LIMITS, &seats, &seat("new", 3), at(200)), of("1"));
        assert_eq!(place(LIMITS, &seats, &everyone("new"), at(200)), of("old"));
    }

    #[test]
    fn one_listener_may_take_every_place_and_several_may_not() {
        let mut config = config::edge::EventBus::default();
        let limits = |config: &config::edge::EventBus| {
            let limits = Limits::of(config);
            (limits.all, limits.door, limits.source)
        };
        assert_eq!(limits(&config), (128, 128, 64));
        config.unix_socket.path = "/run/mqtt.sock".into();
        assert_eq!(limits(&config), (128, 96, 64));
        config.max_connections = 1;
        assert_eq!(limits(&config), (1, 1, 64));
    }
}
