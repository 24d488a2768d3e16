//! One device: its connection, its cycles, its reports. One task each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::backoff::Backoff;
use crate::edgecore::{EdgeCore, Line, Told};
use crate::exchange::{read, write};
use crate::plan::{Plan, StateReport};
use crate::protocol::{Fault, Protocol};
use crate::table::Key;
use crate::track::Track;

/// For a connection to come up.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Between two tries to reach a device, and between two tries to write what it refused.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_CAP: Duration = Duration::from_secs(30);
/// A round of reads on a slow device is interrupted after that time, to write and to tell.
const ROUND: Duration = Duration::from_millis(500);
/// Between two tries to tell edgecore something.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// Properties in one report: far below what edgecore takes.
const REPORT_MAX: usize = 256;

/// What to do about a device.
pub(crate) enum Order<P: Protocol> {
    /// This.
    Serve(Arc<Plan<P>>),
    /// Nothing: it cannot be served as it is described.
    Refused {
        /// Whether to tell its state.
        tell: bool,
    },
}

impl<P: Protocol> Clone for Order<P> {
    fn clone(&self) -> Self {
        match self {
            Order::Serve(plan) => Order::Serve(Arc::clone(plan)),
            Order::Refused { tell } => Order::Refused { tell: *tell },
        }
    }
}

impl<P: Protocol> Order<P> {
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Order::Refused { .. })
    }

    fn state(&self) -> Option<StateReport> {
        match self {
            Order::Serve(plan) => plan.state,
            Order::Refused { tell } => tell.then_some(StateReport { again: None }),
        }
    }
}

/// What the task of a device gets.
pub(crate) struct Post<P: Protocol> {
    pub(crate) key: Key,
    pub(crate) protocol: Arc<P>,
    pub(crate) edgecore: EdgeCore,
    /// The task ends when the other side does.
    pub(crate) orders: watch::Receiver<Order<P>>,
    pub(crate) registrations: watch::Receiver<u64>,
    pub(crate) seen: Arc<Mutex<Seen>>,
}

impl<P: Protocol> Clone for Post<P> {
    fn clone(&self) -> Self {
        Post {
            key: self.key.clone(),
            protocol: Arc::clone(&self.protocol),
            edgecore: self.edgecore.clone(),
            orders: self.orders.clone(),
            registrations: self.registrations.clone(),
            seen: Arc::clone(&self.seen),
        }
    }
}

/// What is known of a device, for those who ask.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) lines: Vec<Line>,
}

/// Keeps a device, also through a panic in its protocol.
pub(crate) async fn keep<P: Protocol>(post: Post<P>) {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
    loop {
        // In a set, so that the inner task ends when this one is aborted.
        let mut one = JoinSet::new();
        one.spawn(Keeper::new(post.clone()).run());
        match one.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                tracing::error!(device = %post.key, "the device's task panicked; it is started again");
                sleep(backoff.delay()).await;
            }
            Some(Ok(()) | Err(_)) | None => return,
        }
    }
}

/// Whether a device answers, in KubeEdge's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Online,
    Offline,
    /// Its description cannot be served.
    Unhealthy,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            State::Online => "online",
            State::Offline => "offline",
            State::Unhealthy => "unhealthy",
        }
    }
}

/// Why a session is over.
enum Over {
    /// Connect again at once.
    NewAddress,
    /// Connect again after a while.
    Lost,
    /// The device was removed.
    Removed,
}

struct Keeper<P: Protocol> {
    post: Post<P>,
    order: Order<P>,
    /// As the plan's properties, in their order.
    tracks: Vec<Track>,
    /// Where the next round of reads begins, so that every property has its turn.
    turn: usize,
    state: Option<State>,
    state_told: Option<(State, Instant)>,
    /// The state is not told before that time, because edgecore did not take it.
    state_after: Instant,
    /// Nothing is told before that time, because edgecore was away.
    tell_after: Instant,
    reconnect: Backoff,
    rewrite: Backoff,
    /// The last thing that went wrong with the device, and with telling, so that each is logged once.
    link_fault: Option<String>,
    tell_fault: Option<String>,
}

impl<P: Protocol> Keeper<P> {
    fn new(mut post: Post<P>) -> Self {
        let order = post.orders.borrow_and_update().clone();
        let now = Instant::now();
        let mut keeper = Keeper {
            post,
            order,
            tracks: Vec::new(),
            turn: 0,
            state: None,
            state_told: None,
            state_after: now,
            tell_after: now,
            reconnect: Backoff::new(RETRY_FIRST, RETRY_CAP),
            rewrite: Backoff::new(RETRY_FIRST, RETRY_CAP),
            link_fault: None,
            tell_fault: None,
        };
        if let Order::Serve(plan) = keeper.order.clone() {
            keeper.tracks = plan.properties.iter().map(|planned| Track::new(planned, now)).collect();
        }
        keeper
    }

    async fn run(mut self) {
        loop {
            let over = match self.order.clone() {
                Order::Refused { .. } => {
                    self.state = Some(State::Unhealthy);
                    self.rest(None).await
                }
                Order::Serve(plan) => match self.connect(&plan).await {
                    Ok(session) => self.serve(session).await,
                    Err(fault) => {
                        self.link_down(&fault);
                        Over::Lost
                    }
                },
            };
            let over = match over {
                Over::Lost => {
                    let until = Instant::now() + self.reconnect.delay();
                    self.rest(Some(until)).await
                }
                Over::NewAddress | Over::Removed => over,
            };
            if matches!(over, Over::Removed) {
                return;
            }
        }
    }

    async fn connect(&self, plan: &Plan<P>) -> Result<P::Session, Fault> {
        match timeout(CONNECT_DEADLINE, self.post.protocol.connect(&plan.address)).await {
            Ok(connected) => connected,
            Err(_) => Err(Fault::Link(format!("no connection within {} s", CONNECT_DEADLINE.as_secs()))),
        }
    }

    /// Without a connection: tells what there is to tell, until a time or until the orders change.
    async fn rest(&mut self, until: Option<Instant>) -> Over {
        loop {
            self.tell().await;
            let state = self.state_due();
            let wake = [until, state].into_iter().flatten().min();
            tokio::select! {
                changed = self.post.orders.changed() => {
                    if changed.is_err() {
                        return Over::Removed;
                    }
                    self.take_order();
                    return Over::NewAddress;
                }
                Ok(()) = self.post.registrations.changed() => self.registered(),
                () = at(wake) => {
                    if until.is_some_and(|until| until <= Instant::now()) {
                        return Over::NewAddress;
                    }
                }
            }
        }
    }

    /// With a connection.
    async fn serve(&mut self, mut session: P::Session) -> Over {
        let now = Instant::now();
        if let Order::Serve(plan) = &self.order {
            for (track, planned) in self.tracks.iter_mut().zip(&plan.properties) {
                track.reconnected(planned, now);
            }
        }
        loop {
            let Order::Serve(plan) = self.order.clone() else {
                return Over::NewAddress;
            };
            if let Err(fault) = self.work(&mut session, &plan).await {
                self.link_down(&fault);
                return Over::Lost;
            }
            self.tell().await;
            let wake = self.due(&plan);
            tokio::select! {
                changed = self.post.orders.changed() => {
                    if changed.is_err() {
                        return Over::Removed;
                    }
                    if !self.take_order() {
                        return Over::NewAddress;
                    }
                }
                Ok(()) = self.post.registrations.changed() => self.registered(),
                () = at(wake) => {}
            }
        }
    }

    /// Writes and reads what is due. Only a lost link is an error.
    async fn work(&mut self, session: &mut P::Session, plan: &Plan<P>) -> Result<(), Fault> {
        let mut answered = false;
        for (planned, track) in plan.properties.iter().zip(&mut self.tracks) {
            if track.to_write(Instant::now()).is_some() {
                write(&self.post.key, session, planned, track, &mut self.rewrite).await?;
                answered = true;
            }
        }
        if answered {
            self.link_up();
        }
        let (started, count, turn) = (Instant::now(), plan.properties.len(), self.turn);
        for at in (0..count).map(|step| (turn + step) % count) {
            let (Some(planned), Some(track)) = (plan.properties.get(at), self.tracks.get_mut(at)) else {
                continue;
            };
            if !track.to_read(Instant::now()) {
                continue;
            }
            read(&self.post.key, session, planned, track).await?;
            self.link_up();
            // A new order does not wait for a long round of reads either.
            if started.elapsed() > ROUND || self.post.orders.has_changed().unwrap_or(true) {
                self.turn = (at + 1) % count;
                return Ok(());
            }
        }
        if plan.properties.iter().all(|planned| planned.collect.is_none()) {
            // Nothing will be asked: the connection itself is all that can be said.
            self.link_up();
        }
        Ok(())
    }

    /// Follows a changed plan. False: the session is of no more use.
    fn take_order(&mut self) -> bool {
        let order = self.post.orders.borrow_and_update().clone();
        let now = Instant::now();
        let old = std::mem::replace(&mut self.order, order.clone());
        self.reconnect.reset();
        self.rewrite.reset();
        let Order::Serve(plan) = order else {
            self.tracks.clear();
            return false;
        };
        let Order::Serve(old) = old else {
            self.tracks = plan.properties.iter().map(|planned| Track::new(planned, now)).collect();
            return false;
        };
        let same_device = old.address == plan.address;
        let mut tracks: Vec<Option<Track>> = std::mem::take(&mut self.tracks).into_iter().map(Some).collect();
        let places: BTreeMap<&str, usize> =
            old.properties.iter().enumerate().map(|(place, was)| (was.name.as_str(), place)).collect();
        for planned in &plan.properties {
            let place = places.get(planned.name.as_str()).copied().filter(|place| {
                let was = old.properties.get(*place);
                let same = was.is_some_and(|was| was.visitor == planned.visitor && was.kind == planned.kind);
                same_device && same
            });
            let kept = place.and_then(|place| tracks.get_mut(place)).and_then(Option::take);
            self.tracks.push(match kept {
                Some(mut track) => {
                    track.follow(planned, now);
                    track
                }
                None => Track::new(planned, now),
            });
        }
        same_device
    }

    /// edgecore may have been away: everything is told again.
    fn registered(&mut self) {
        self.tracks.iter_mut().for_each(Track::forget_told);
        self.state_told = None;
        self.tell_fault = None;
        self.tell_after = Instant::now();
    }

    fn link_up(&mut self) {
        self.reconnect.reset();
        self.state = Some(State::Online);
        if self.link_fault.take().is_some() {
            tracing::info!(device = %self.post.key, "the device answers again");
        }
    }

    fn link_down(&mut self, fault: &Fault) {
        self.state = Some(State::Offline);
        let fault = fault.to_string();
        if self.link_fault.as_ref() != Some(&fault) {
            tracing::warn!(device = %self.post.key, fault, "the device is out of reach; trying on");
            self.link_fault = Some(fault);
        }
    }

    async fn tell(&mut self) {
        self.show();
        if Instant::now() < self.tell_after {
            return;
        }
        if self.tell_state().await && self.tell_twins().await {
            return;
        }
        self.tell_after = Instant::now() + TELL_AGAIN;
    }

    /// False: edgecore is away.
    async fn tell_state(&mut self) -> bool {
        let (Some(state), Some(report)) = (self.state, self.order.state()) else {
            return true;
        };
        let now = Instant::now();
        let due = match &self.state_told {
            Some((told, at)) => *told != state || report.again.is_some_and(|again| *at + again <= now),
            None => true,
        };
        if !due || now < self.state_after {
            return true;
        }
        match self.post.edgecore.state(&self.post.key, state.as_str()).await {
            Told::Taken => {}
            Told::Refused(reason) => {
                tracing::warn!(device = %self.post.key, reason, "edgecore refused the device's state");
            }
            Told::Later(reason) => {
                self.not_taken(&format!("state: {reason}"));
                self.state_after = now + TELL_AGAIN;
                return true;
            }
            Told::Away(reason) => {
                self.not_taken(&reason);
                return false;
            }
        }
        self.state_told = Some((state, now));
        true
    }

    /// False: edgecore is away.
    async fn tell_twins(&mut self) -> bool {
        let Order::Serve(plan) = self.order.clone() else {
            return true;
        };
        let now = Instant::now();
        let mut lines = Vec::new();
        for (place, (planned, track)) in plan.properties.iter().zip(&self.tracks).enumerate() {
            if let Some(known) = track.to_tell(planned.again, now) {
                lines.push((place, Line { property: planned.name.clone(), kind: planned.kind, known }));
            }
        }
        for part in lines.chunks(REPORT_MAX) {
            let (places, together): (Vec<usize>, Vec<Line>) = part.iter().cloned().unzip();
            match self.post.edgecore.status(&self.post.key, &together).await {
                Told::Taken => {
                    for (place, line) in places.into_iter().zip(together) {
                        self.told(place, line, now);
                    }
                }
                Told::Away(reason) => {
                    self.not_taken(&reason);
                    return false;
                }
                // One bad value spoils a whole report: what is good goes alone.
                Told::Refused(_) | Told::Later(_) => {
                    if !self.tell_one_by_one(part, now).await {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// False: edgecore is away.
    async fn tell_one_by_one(&mut self, lines: &[(usize, Line)], now: Instant) -> bool {
        for (place, line) in lines.iter().cloned() {
            match self.post.edgecore.status(&self.post.key, std::slice::from_ref(&line)).await {
                Told::Taken => self.told(place, line, now),
                Told::Refused(reason) => self.refused(place, line, now, &reason),
                Told::Later(reason) => {
                    self.not_taken(&format!("property `{}`: {reason}", line.property));
                    if let Some(track) = self.tracks.get_mut(place) {
                        track.not_told(line.known, now + TELL_AGAIN);
                    }
                }
                Told::Away(reason) => {
                    self.not_taken(&reason);
                    return false;
                }
            }
        }
        true
    }

    /// Said once for every reason.
    fn not_taken(&mut self, reason: &str) {
        if self.tell_fault.as_deref() != Some(reason) {
            tracing::warn!(device = %self.post.key, reason, "edgecore did not take a report; trying on");
            self.tell_fault = Some(reason.to_owned());
        }
    }

    /// It is not said again until it changes.
    fn refused(&mut self, place: usize, line: Line, now: Instant, reason: &str) {
        let property = line.property.clone();
        tracing::warn!(device = %self.post.key, property, reason, "edgecore refused a value");
        self.told(place, line, now);
    }

    fn told(&mut self, place: usize, line: Line, now: Instant) {
        if let Some(track) = self.tracks.get_mut(place) {
            track.told(line.known, now);
        }
    }

    /// For those who ask.
    fn show(&self) {
        let Order::Serve(plan) = &self.order else {
            return;
        };
        let lines = plan.properties.iter().zip(&self.tracks).filter_map(|(planned, track)| {
            let known = track.known()?;
            Some(Line { property: planned.name.clone(), kind: planned.kind, known })
        });
        self.post.seen.lock().unwrap_or_else(PoisonError::into_inner).lines = lines.collect();
    }

    fn due(&self, plan: &Plan<P>) -> Option<Instant> {
        let device = self.tracks.iter().filter_map(Track::due).min();
        [device, self.state_due(), self.twins_due(plan)].into_iter().flatten().min()
    }

    fn state_due(&self) -> Option<Instant> {
        let report = self.order.state()?;
        let state = self.state?;
        let due = match &self.state_told {
            Some((told, at)) if *told == state => *at + report.again?,
            Some(_) | None => self.state_after,
        };
        Some(due.max(self.tell_after).max(self.state_after))
    }

    /// When edgecore is to be told something, be it what it did not take, or what it knows already.
    fn twins_due(&self, plan: &Plan<P>) -> Option<Instant> {
        let now = Instant::now();
        let due = plan.properties.iter().zip(&self.tracks).filter_map(|(planned, track)| {
            let untold = track.to_tell(planned.again, now).map(|_| now);
            untold.or_else(|| track.again_due(planned.again))
        });
        due.min().map(|due| due.max(self.tell_after))
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
