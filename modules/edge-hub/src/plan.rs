//! Whom to dial next, how and when. Pure: the time and the jitter are arguments.

use std::collections::BTreeSet;
use std::time::Duration;

use beehive::Moment;
use contract::edgehub::LinkEnd;

/// 2 s: the pause after a refusal without advice; jitter makes it 1 to 2 s.
pub const REFUSED_PAUSE: Duration = Duration::from_secs(2);
/// 60 s: the longest pause, however long the cloud asks for.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// 10 s: how far a pause grows by itself when the cloud asks again and again. What made it ask (an API server that is away) ends without
/// a word to the node, which is to be there soon after. A thousand nodes that are sent away so are 133 dials a second in all; a cloud
/// that has too many asks for more.
pub const GROWS_TO: Duration = Duration::from_secs(10);
/// 15 s: one dial may take this long, and one server without others is dialled this long before that is told.
pub const ATTEMPT_LIMIT: Duration = Duration::from_secs(15);
/// 3 s: how long QUIC is tried alone. An answer over the worst link that is used takes two round trips of 600 ms.
pub const HEAD_START: Duration = Duration::from_secs(3);
/// 10 s after a fallback QUIC is tried again: a link that was cut as a whole comes back as a whole.
pub const FIRST_PROBE: Duration = Duration::from_secs(10);
/// 5 min: the longest time between looks whether UDP passes again.
pub const PROBE_EVERY: Duration = Duration::from_secs(300);

/// 1 s between looks whether the calls have ended for which going over to QUIC waits.
pub const CALLS_LOOK: Duration = Duration::from_secs(1);
/// 24 h: the longest that going over to QUIC waits for calls. No answer of a node goes on for longer than 4 h, so that a call is cut by this
/// only where others have followed it without a gap for a day.
pub const WAITS_FOR_CALLS: Duration = Duration::from_secs(24 * 3600);

/// 6 s: how long one of several servers may be silent over both carriers before the next is tried.
pub const PATIENCE: Duration = Duration::from_secs(6);
/// 900 ms: the same right after one has ended its link in order, as a CloudCore does that stops, and of those that are dialled beside a
/// silent link: how the link was made is known to work. A packet of its, be it an answer to the first one, has it waited for on.
pub const SHORT_PATIENCE: Duration = Duration::from_millis(900);

/// 60 s without a link before servers are tried that the cloud has named and the settings have not.
pub const NAMED_AFTER: Duration = Duration::from_secs(60);

/// What carries a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// QUIC: a stream for each lane.
    Quic,
    /// WebSocket, where UDP is blocked.
    WebSocket,
}

impl Carrier {
    /// Its name in logs and snapshots.
    pub fn name(self) -> &'static str {
        match self {
            Carrier::Quic => "quic",
            Carrier::WebSocket => "websocket",
        }
    }
}

/// 60 s between two lines of the log about a link that is still missing.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// A time without a link, from the first dial that failed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outage {
    failed: u64,
    said_at: Option<Moment>,
}

impl Outage {
    /// Another dial has failed. Answers how many by now if that is to be said: the first, and then once a minute.
    pub fn dial_failed(&mut self, now: Moment) -> Option<u64> {
        self.failed += 1;
        if self.said_at.is_some_and(|at| now.since(at) < SAY_EVERY) {
            return None;
        }
        self.said_at = Some(now);
        Some(self.failed)
    }
}

/// What to do while there is no link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// Dial this server now. WebSocket joins in after `head_start`.
    Dial {
        /// Its place in the list.
        server: usize,
        /// How long QUIC is tried alone.
        head_start: Duration,
    },
    /// Nothing, for so long.
    Wait(Duration),
}

/// Where one of the servers stands.
#[derive(Debug, Clone, Default)]
struct ServerState {
    /// It has asked not to be dialled before.
    not_before: Moment,
    /// How often it has asked since a link was up.
    asked: u32,
    /// It was tried in this turn.
    tried: bool,
    /// The cloud has named it; it does not stand in the settings.
    is_named: bool,
    /// It is not of this turn.
    is_out: bool,
}

/// Decides from what the attempts so far came to.
#[derive(Debug)]
pub struct Plan {
    servers: Vec<ServerState>,
    /// The server that served last; the first of each turn.
    preferred: usize,
    turn_began: Option<Moment>,
    /// Since when there is no link.
    unlinked: Option<Moment>,
    /// Which of the servers that the cloud has named is tried next.
    next_named: usize,
    /// How the link of the server that served last ended, until each has had its turn.
    last_end: LinkEnd,
    /// The link that is up is silent: which servers were dialled beside it.
    beside: Option<BTreeSet<usize>>,
    /// What carried the last link: where UDP was blocked a moment ago, it gets no head start.
    last: Carrier,
    probe: Duration,
    /// Since when QUIC passes and calls over the link keep it in use.
    held: Option<Moment>,
}

impl Plan {
    /// For so many servers, in the order of their listing.
    pub fn new(servers: usize) -> Self {
        Plan {
            servers: vec![ServerState::default(); servers.max(1)],
            preferred: 0,
            turn_began: None,
            unlinked: None,
            next_named: 0,
            last_end: LinkEnd::Other,
            beside: None,
            last: Carrier::Quic,
            probe: FIRST_PROBE,
            held: None,
        }
    }

    /// What to do now that there is no link and no attempt. `jitter` makes half of a pause to all of it.
    pub fn next(&mut self, now: Moment, jitter: impl Fn(Duration) -> Duration) -> NextStep {
        self.unlinked.get_or_insert(now);
        let began = match self.turn_began {
            Some(began) => began,
            None => {
                self.begin_turn(now);
                now
            }
        };
        let count = self.servers.len();
        let mut order: Vec<usize> = (0..count).map(|step| (self.preferred + step) % count).collect();
        let is_named = |at: usize| self.servers.get(at).is_some_and(|server| server.is_named);
        // Behind those of the settings comes the one that the cloud has named.
        // The one that has just fallen silent comes last: it had its time.
        let is_last = |at: usize| self.last_end == LinkEnd::Silent && at == self.preferred;
        order.sort_by_key(|at| (is_last(*at), *at != self.preferred && is_named(*at)));
        let due = |server: &ServerState| !server.is_out && !server.tried && server.not_before <= now;
        if let Some(at) = order.into_iter().find(|at| self.servers.get(*at).is_some_and(due)) {
            if let Some(server) = self.servers.get_mut(at) {
                server.tried = true;
            }
            return NextStep::Dial { server: at, head_start: self.head_start() };
        }
        // The turn is over. Whoever was silent is tried again; who asked to wait is given the time.
        let of_turn = self.servers.iter().filter(|server| !server.is_out);
        let silent = of_turn.clone().any(|server| server.tried && server.not_before <= now);
        let pause = if silent {
            // It counts from the turn's beginning: an attempt that took long was a pause in itself.
            jitter(REFUSED_PAUSE).saturating_sub(now.since(began))
        } else {
            let first = of_turn.map(|server| server.not_before).min().unwrap_or(now);
            first.since(now)
        };
        self.last_end = LinkEnd::Other;
        self.new_turn();
        NextStep::Wait(pause)
    }

    /// How long QUIC is tried alone.
    pub fn head_start(&self) -> Duration {
        match self.last {
            Carrier::Quic => HEAD_START,
            Carrier::WebSocket => Duration::ZERO,
        }
    }

    /// The link that is up has fallen silent.
    pub fn silence_begins(&mut self) {
        self.beside.get_or_insert_default();
    }

    /// It is heard again.
    pub fn silence_ends(&mut self) {
        self.beside = None;
    }

    /// Whom to dial next beside a link with `silent`, which does not answer: the servers of the settings that have not asked to wait, each
    /// once. Where there is no other, the same one once more: behind one address there may be several, and a dial takes another way to
    /// them. `None`: all had their turn, or the link is not silent.
    pub fn beside(&mut self, silent: usize, now: Moment) -> Option<usize> {
        let tried = self.beside.as_mut()?;
        let count = self.servers.len();
        let may = |server: &ServerState| !server.is_named && server.not_before <= now;
        let others = (1..count).map(|step| (silent + step) % count);
        let others: Vec<usize> = others.filter(|at| self.servers.get(*at).is_some_and(may)).collect();
        let server = if others.is_empty() { Some(silent) } else { None };
        let server = server.or_else(|| others.into_iter().find(|at| !tried.contains(at)))?;
        tried.insert(server).then_some(server)
    }

    /// How long a server may be silent before another one is tried; `None`: there is no other.
    pub fn patience(&self) -> Option<Duration> {
        let others = self.servers.iter().filter(|server| !server.is_out).count() > 1;
        let is_leaving = self.last_end == LinkEnd::ClosedByCloud;
        // Each moment that is spent on one while a link is silent, or has just ended in order, is one in which the node is cut off.
        let is_urgent = self.beside.is_some() || is_leaving;
        others.then_some(if is_urgent { SHORT_PATIENCE } else { PATIENCE })
    }

    /// The cloud has named another server, which is tried when those of the settings have been silent for long.
    pub fn named(&mut self) {
        self.servers.push(ServerState { is_named: true, is_out: true, ..ServerState::default() });
    }

    /// Of the servers that the cloud has named one has its turn, and only where there was no link for long: an address of the cloud changes
    /// seldom, and each that leads nowhere would hold up the others. The one that served last is among those of the settings.
    fn begin_turn(&mut self, now: Moment) {
        self.turn_began = Some(now);
        let is_long = self.unlinked.is_some_and(|since| now.since(since) >= NAMED_AFTER);
        let preferred = self.preferred;
        let named =
            self.servers.iter().enumerate().filter(|(at, server)| *at != preferred && server.is_named);
        let named: Vec<usize> = named.map(|(at, _)| at).collect();
        let turn = is_long.then(|| named.get(self.next_named % named.len().max(1)).copied()).flatten();
        if turn.is_some() {
            self.next_named = self.next_named.wrapping_add(1);
        }
        for (at, server) in self.servers.iter_mut().enumerate() {
            server.is_out = server.is_named && at != preferred && turn != Some(at);
        }
    }

    fn new_turn(&mut self) {
        self.turn_began = None;
        for server in &mut self.servers {
            server.tried = false;
        }
    }

    /// An attempt came to nothing. Only a cloud that answers and asks to wait makes the pause grow: it doubles with every
    /// time that it asks, up to 10 s. What it asks for beyond that is waited as it is, 60 s at the most.
    pub fn failed(
        &mut self,
        server: usize,
        wait: Option<Duration>,
        now: Moment,
        jitter: impl Fn(Duration) -> Duration,
    ) {
        let Some(server) = self.servers.get_mut(server) else { return };
        server.tried = true;
        if let Some(wait) = wait {
            let grown = wait.saturating_mul(2_u32.pow(server.asked.min(6))).clamp(REFUSED_PAUSE, GROWS_TO);
            let pause = grown.max(wait).min(LONGEST_PAUSE);
            server.asked += 1;
            server.not_before = now + jitter(pause);
        }
    }

    /// The cloud let the node in.
    pub fn linked(&mut self, server: usize, carrier: Carrier) {
        self.preferred = server;
        self.last_end = LinkEnd::Other;
        self.beside = None;
        self.last = carrier;
        self.unlinked = None;
        self.held = None;
        self.new_turn();
        if let Some(server) = self.servers.get_mut(server) {
            (server.asked, server.not_before) = (0, Moment::default());
        }
        if carrier == Carrier::Quic {
            self.probe = FIRST_PROBE;
        }
    }

    /// A link that was up ended: a new turn, at once.
    pub fn ended(&mut self, end: LinkEnd) {
        self.last_end = end;
        self.held = None;
        self.beside = None;
        self.new_turn();
    }

    /// The node has another address or route: whatever was silent may answer now, and UDP may pass. Who asked to wait is
    /// still given the time.
    pub fn network_changed(&mut self) {
        self.new_turn();
        self.held = None;
        self.last = Carrier::Quic;
        self.probe = FIRST_PROBE;
    }

    /// QUIC passes beside a link over WebSocket, over which so many calls are open. Whether to go over to it now: they would end.
    pub fn may_move(&mut self, calls: usize, now: Moment) -> bool {
        self.held.get_or_insert(now);
        !self.is_held_by(calls, now)
    }

    /// Whether calls have kept the link in use since QUIC was found to pass.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Whether so many calls do now.
    pub fn is_held_by(&self, calls: usize, now: Moment) -> bool {
        calls > 0 && self.held.is_some_and(|since| now.since(since) < WAITS_FOR_CALLS)
    }

    /// QUIC does not pass, or not any more.
    pub fn quic_failed(&mut self) {
        self.held = None;
    }

    /// When to look whether QUIC passes again, beside a link over `carrier`, or whether the calls have ended for which that waits. The pause
    /// doubles up to 5 min.
    pub fn next_probe(&mut self, carrier: Carrier) -> Option<Duration> {
        match carrier {
            Carrier::Quic => None,
            Carrier::WebSocket if self.held.is_some() => Some(CALLS_LOOK),
            Carrier::WebSocket => {
                let pause = self.probe;
                self.probe = (2 * pause).min(PROBE_EVERY);
                Some(pause)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn whole(pause: Duration) -> Duration {
        pause
    }

    fn dial(server: usize) -> NextStep {
        NextStep::Dial { server, head_start: HEAD_START }
    }

    #[test]
    fn a_missing_link_is_said_at_once_and_then_once_a_minute_with_the_count() {
        let mut outage = Outage::default();
        // A dial every 2 s for five minutes.
        let said: Vec<(u64, u64)> =
            (0..150).filter_map(|dial| Some((2 * dial, outage.dial_failed(at(2 * dial))?))).collect();
        assert_eq!(said, [(0, 1), (60, 31), (120, 61), (180, 91), (240, 121)]);
        assert_eq!(Outage::default().dial_failed(at(241)), Some(1), "a link that was up begins it anew");
    }

    #[test]
    fn an_attempt_is_followed_by_the_next_for_ever() {
        let mut plan = Plan::new(1);
        let mut now = at(0);
        for _ in 0..1000 {
            assert_eq!(plan.next(now, whole), dial(0));
            plan.failed(0, None, now, whole);
            assert_eq!(plan.next(now, whole), NextStep::Wait(REFUSED_PAUSE));
            now = now + REFUSED_PAUSE;
        }
        // One that took longer than the pause is followed at once.
        assert_eq!(plan.next(now, whole), dial(0));
        plan.failed(0, None, now + seconds(6), whole);
        assert_eq!(plan.next(now + seconds(6), whole), NextStep::Wait(Duration::ZERO));
    }

    #[test]
    fn a_server_that_ended_its_link_in_order_is_not_waited_for_long_where_there_are_others() {
        for (end, patience) in [(LinkEnd::ClosedByCloud, SHORT_PATIENCE), (LinkEnd::Other, PATIENCE)] {
            let mut plan = Plan::new(2);
            plan.linked(1, Carrier::Quic);
            plan.ended(end);
            assert_eq!(plan.next(at(0), whole), dial(1), "it may be back");
            assert_eq!(plan.patience(), Some(patience));
            plan.failed(1, None, at(0), whole);
            assert_eq!(plan.next(at(0), whole), dial(0));
            assert_eq!(plan.patience(), Some(patience), "the next may be gone as well");
            plan.failed(0, None, at(0), whole);
            assert!(matches!(plan.next(at(0), whole), NextStep::Wait(_)));
            assert_eq!(plan.patience(), Some(PATIENCE), "each once");
        }
        let mut alone = Plan::new(1);
        alone.ended(LinkEnd::ClosedByCloud);
        assert_eq!(alone.patience(), None);
    }

    #[test]
    fn beside_a_silent_server_each_other_of_the_settings_has_a_short_turn() {
        let mut plan = Plan::new(1);
        assert_eq!(plan.beside(0, at(0)), None, "it is not silent");
        plan.named();
        plan.silence_begins();
        assert_eq!(plan.beside(0, at(0)), Some(0), "one address may lead to several");
        assert_eq!(plan.beside(0, at(0)), None, "once");
        let mut plan = Plan::new(3);
        plan.linked(2, Carrier::Quic);
        plan.silence_begins();
        plan.failed(0, Some(seconds(30)), at(0), whole);
        assert_eq!((plan.beside(2, at(10)), plan.beside(2, at(10))), (Some(1), None), "one asked to wait");
        assert_eq!((plan.beside(2, at(31)), plan.patience()), (Some(0), Some(SHORT_PATIENCE)));
        // Heard again, and silent again: everybody has another turn.
        plan.silence_ends();
        assert_eq!((plan.beside(2, at(31)), plan.patience()), (None, Some(PATIENCE)));
        plan.silence_begins();
        assert_eq!(plan.beside(2, at(31)), Some(0));
    }

    #[test]
    fn a_server_whose_link_died_of_silence_is_dialled_after_the_others() {
        for (end, order) in [(LinkEnd::Silent, [2, 0, 1]), (LinkEnd::Other, [1, 2, 0])] {
            let mut plan = Plan::new(3);
            plan.linked(1, Carrier::Quic);
            plan.ended(end);
            for server in order {
                assert_eq!(plan.next(at(0), whole), dial(server));
                plan.failed(server, None, at(0), whole);
            }
        }
    }

    #[test]
    fn a_link_that_ended_is_dialled_at_once() {
        let mut plan = Plan::new(2);
        assert_eq!(plan.next(at(0), whole), dial(0));
        plan.failed(0, None, at(0), whole);
        assert_eq!(plan.next(at(0), whole), dial(1));
        plan.linked(1, Carrier::Quic);
        plan.ended(LinkEnd::Other);
        // With the server that served last.
        assert_eq!(plan.next(at(100), whole), dial(1));
        plan.failed(1, None, at(100), whole);
        assert_eq!(plan.next(at(100), whole), dial(0));
    }

    #[test]
    fn servers_are_tried_in_turn_before_any_pause() {
        let mut plan = Plan::new(3);
        for turn in 0..3 {
            for server in 0..3 {
                assert_eq!(plan.next(at(2 * turn), whole), dial(server));
                plan.failed(server, None, at(2 * turn), whole);
            }
            assert_eq!(plan.next(at(2 * turn), whole), NextStep::Wait(REFUSED_PAUSE));
        }
    }

    #[test]
    fn a_server_that_the_cloud_named_is_tried_when_the_others_were_silent_for_long_one_in_a_turn() {
        let mut plan = Plan::new(1);
        plan.named();
        plan.named();
        assert_eq!(plan.patience(), None);
        let turn = |plan: &mut Plan, second| {
            let mut dialled = Vec::new();
            while let NextStep::Dial { server, .. } = plan.next(at(second), whole) {
                dialled.push(server);
                plan.failed(server, None, at(second), whole);
            }
            dialled
        };
        assert_eq!(turn(&mut plan, 0), [0]);
        assert_eq!(turn(&mut plan, 59), [0]);
        assert_eq!(turn(&mut plan, 60), [0, 1]);
        assert_eq!(turn(&mut plan, 62), [0, 2]);
        assert_eq!(turn(&mut plan, 64), [0, 1]);
        // The one that served last is the first, and the settings' own next.
        plan.linked(1, Carrier::Quic);
        plan.ended(LinkEnd::Other);
        assert_eq!(turn(&mut plan, 100), [1, 0]);
        assert_eq!(turn(&mut plan, 160), [1, 0, 2]);
    }

    #[test]
    fn the_pause_grows_only_when_the_cloud_asks() {
        let mut plan = Plan::new(1);
        let mut now = at(0);
        for (asked, expected) in [(3, 3), (3, 6), (3, 10), (3, 10), (20, 20), (20, 20), (5, 10)] {
            assert_eq!(plan.next(now, whole), dial(0));
            plan.failed(0, Some(seconds(asked)), now, whole);
            assert_eq!(plan.next(now, whole), NextStep::Wait(seconds(expected)));
            now = now + seconds(expected);
        }
        assert_eq!(plan.next(now, whole), dial(0));
        plan.failed(0, None, now, whole);
        assert_eq!(plan.next(now, whole), NextStep::Wait(REFUSED_PAUSE));
        // A link that was up forgets it, and no wish is too short or too long.
        plan.linked(0, Carrier::Quic);
        for (asked, pause) in [(0, 2), (u64::MAX / 4, 60)] {
            plan.failed(0, Some(seconds(asked)), now, whole);
            assert_eq!(plan.next(now, whole), NextStep::Wait(seconds(pause)));
            plan.linked(0, Carrier::Quic);
        }
    }

    #[test]
    fn who_asks_to_wait_is_left_alone_while_others_are_tried() {
        let mut plan = Plan::new(2);
        assert_eq!(plan.next(at(0), whole), dial(0));
        plan.failed(0, Some(seconds(30)), at(0), whole);
        assert_eq!(plan.next(at(0), whole), dial(1));
        plan.failed(1, None, at(0), whole);
        assert_eq!(plan.next(at(0), whole), NextStep::Wait(REFUSED_PAUSE));
        assert_eq!(plan.next(at(2), whole), dial(1));
        plan.failed(1, Some(seconds(60)), at(2), whole);
        // Both ask: until the first may be dialled.
        assert_eq!(plan.next(at(2), whole), NextStep::Wait(seconds(28)));
        assert_eq!(plan.next(at(30), whole), dial(0));
    }

    #[test]
    fn a_change_of_the_network_ends_a_pause_but_not_a_wait() {
        let mut plan = Plan::new(2);
        assert_eq!(plan.next(at(0), whole), dial(0));
        plan.failed(0, Some(seconds(30)), at(0), whole);
        assert_eq!(plan.next(at(0), whole), dial(1));
        plan.network_changed();
        assert_eq!(plan.next(at(1), whole), dial(1));
    }

    #[test]
    fn going_over_to_quic_waits_for_calls_a_day_at_the_longest() {
        let mut plan = Plan::new(1);
        plan.linked(0, Carrier::WebSocket);
        assert_eq!(plan.next_probe(Carrier::WebSocket), Some(FIRST_PROBE));
        assert!(!plan.is_held_by(2, at(10)), "nobody knows yet whether QUIC passes: it is dialled");
        assert!(!plan.may_move(2, at(10)) && plan.is_held());
        assert_eq!(plan.next_probe(Carrier::WebSocket), Some(CALLS_LOOK));
        assert!(
            plan.is_held_by(1, at(11)) && !plan.is_held_by(0, at(12)),
            "it is not dialled before the last has ended"
        );
        assert!(!plan.may_move(1, at(13)), "another has begun meanwhile");
        assert!(plan.may_move(0, at(14)));
        // A day, from the first time on.
        let day = 10 + WAITS_FOR_CALLS.as_secs();
        assert!(plan.is_held_by(1, at(day - 1)) && !plan.may_move(1, at(day - 1)));
        assert!(!plan.is_held_by(1, at(day)) && plan.may_move(1, at(day)));
        // UDP is blocked again: the looks go on as before, and a day begins anew.
        plan.quic_failed();
        assert_eq!(plan.next_probe(Carrier::WebSocket), Some(2 * FIRST_PROBE));
        assert!(!plan.may_move(1, at(day)));
        let changes: [fn(&mut Plan); 3] = [
            |plan| plan.linked(0, Carrier::WebSocket),
            |plan| plan.ended(LinkEnd::Other),
            Plan::network_changed,
        ];
        for change in changes {
            plan.may_move(1, at(day));
            change(&mut plan);
            assert!(!plan.is_held());
        }
    }

    #[test]
    fn where_udp_was_blocked_websocket_waits_for_nobody_and_quic_is_looked_for() {
        let mut plan = Plan::new(1);
        plan.linked(0, Carrier::WebSocket);
        let pauses: Vec<u64> =
            (0..7).filter_map(|_| plan.next_probe(Carrier::WebSocket)).map(|pause| pause.as_secs()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300]);
        plan.ended(LinkEnd::Other);
        assert_eq!(plan.next(at(0), whole), NextStep::Dial { server: 0, head_start: Duration::ZERO });
        // A link that flaps over WebSocket does not begin the looks anew.
        plan.linked(0, Carrier::WebSocket);
        assert_eq!(plan.next_probe(Carrier::WebSocket), Some(PROBE_EVERY));
        plan.linked(0, Carrier::Quic);
        assert_eq!(plan.next_probe(Carrier::Quic), None);
        assert_eq!(plan.next_probe(Carrier::WebSocket), Some(FIRST_PROBE));
    }
}
