//! What a device tells of by itself (COV, 13.1), and the looks whether that is still all: a device that was switched off has forgotten
//! whom it was to tell.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use framework::{Fault, Kind, Subscription, Value};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::apdu::SUBSCRIBE_COV;
use crate::device::{Device, NotDone};
use crate::link::{Event, Listening, Timing};
use crate::reads;
use crate::service::{self, Notification};
use crate::target::ObjectId;
use crate::visitor::Visitor;

/// 10 s between two looks at all that is told of: so old may a value be that got lost.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A minute: a device that says again and again that it is there is not asked anew each time.
const RENEWED_AT_LEAST: Duration = Duration::from_secs(60);

/// Subscriptions at a device. They end with this; `cancel` says so to the device, too.
#[derive(Debug)]
pub(crate) struct Monitor {
    device: Arc<Device>,
    process: u32,
    objects: Vec<ObjectId>,
    timing: Timing,
    watching: JoinHandle<()>,
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Monitor {
    /// Asks for these, and tells `values` what comes. The places that are told of; the others are left to be read.
    pub(crate) async fn start(
        device: Arc<Device>,
        told: Vec<(usize, Visitor)>,
        values: Subscription,
        timing: Timing,
        lifetime: u32,
    ) -> (Self, Vec<usize>) {
        let listening = device.listen();
        let mut watch = Watch {
            device: Arc::clone(&device),
            listening,
            told,
            values,
            timing,
            lifetime,
            renewals: BTreeMap::new(),
            last: BTreeMap::new(),
            restarted_at: None,
        };
        let mut asked: Vec<ObjectId> = watch.told.iter().map(|(_, visitor)| visitor.target.object).collect();
        asked.sort();
        asked.dedup();
        for object in asked {
            match watch.subscribe(object).await {
                Ok(()) => {}
                Err(NotDone::Refused(refusal)) => {
                    let reason = crate::code::of(refusal);
                    tracing::debug!(peer = %device.peer(), %object, reason, "no changes are told; it is read in its cycle");
                }
                // Who does not answer this does not answer the others, either: they are read.
                Err(_) => break,
            }
            // What each of them is now comes with its subscription, and there is room for so many.
            watch.told_meanwhile();
        }
        watch.told.retain(|(_, visitor)| watch.renewals.contains_key(&visitor.target.object));
        let places = watch.told.iter().map(|(place, _)| *place).collect();
        let (process, objects) = (watch.listening.process, watch.renewals.keys().copied().collect());
        let watching = tokio::spawn(watch.run());
        (Monitor { device, process, objects, timing, watching }, places)
    }

    /// The device is to tell no more.
    pub(crate) async fn cancel(self) {
        let once = Timing { tries: 1, ..self.timing };
        for object in &self.objects {
            let body = service::subscribe(self.process, *object, None);
            if matches!(self.device.ask(SUBSCRIBE_COV, &body, once).await, Err(NotDone::Silent(_))) {
                return;
            }
        }
    }
}

struct Watch {
    device: Arc<Device>,
    listening: Listening,
    told: Vec<(usize, Visitor)>,
    values: Subscription,
    timing: Timing,
    lifetime: u32,
    /// When which object is asked for anew.
    renewals: BTreeMap<ObjectId, Instant>,
    /// What was told last, by place.
    last: BTreeMap<usize, Result<Value, Fault>>,
    /// When all of it was last asked for anew because the device said that it is there.
    restarted_at: Option<Instant>,
}

impl Watch {
    /// Until the device is gone, or nobody wants it any more.
    async fn run(mut self) {
        if self.told.is_empty() {
            return;
        }
        let reason = self.watch().await;
        let place = self.told.first().map_or(0, |(place, _)| *place);
        // The session ends with any of them.
        self.values.push(place, Err(Fault::Link(reason)));
    }

    async fn watch(&mut self) -> String {
        // What was subscribed to comes at once; what does not is missing soon, and not only after the first look.
        let mut look_at = Instant::now() + LOOK_EVERY;
        loop {
            let renew_at = self.renewals.values().min().copied().unwrap_or(look_at);
            tokio::select! {
                event = self.listening.events.recv() => match event {
                    Some(Event::Changed(notification)) => {
                        self.changed(notification);
                    }
                    Some(Event::IsThere) => self.is_there(),
                    None => return "the socket has ended".to_owned(),
                },
                () = sleep_until(renew_at.min(look_at)) => {
                    if Instant::now() >= look_at {
                        if let Err(reason) = self.look().await {
                            return reason;
                        }
                        look_at = Instant::now() + LOOK_EVERY;
                    }
                    if let Err(reason) = self.renew().await {
                        return reason;
                    }
                }
            }
        }
    }

    async fn subscribe(&mut self, object: ObjectId) -> Result<(), NotDone> {
        let body = service::subscribe(self.listening.process, object, Some(self.lifetime));
        self.device.ask(SUBSCRIBE_COV, &body, self.timing).await?;
        let half = Duration::from_secs(self.lifetime.into()) / 2;
        self.renewals.insert(object, Instant::now() + half);
        Ok(())
    }

    /// Tells what the device has told. The places of that.
    fn changed(&mut self, notification: Notification) -> Vec<usize> {
        let Notification { object, value: Some(value), flags, .. } = notification else { return Vec::new() };
        let mut places = Vec::new();
        for (place, visitor) in self.told.iter().filter(|(_, visitor)| visitor.target.object == object) {
            let outcome = match &value {
                Ok(value) => reads::value(visitor, value, flags.as_ref()),
                Err(reason) => Err(Fault::Device(reason.clone())),
            };
            self.last.insert(*place, outcome.clone());
            self.values.push(*place, outcome);
            places.push(*place);
        }
        places
    }

    /// The device may have been switched on just now.
    fn is_there(&mut self) {
        let now = Instant::now();
        if self.restarted_at.is_none_or(|at| now.duration_since(at) >= RENEWED_AT_LEAST) {
            self.restarted_at = Some(now);
            self.renewals.values_mut().for_each(|at| *at = now);
        }
    }

    /// Reads all of it: the device lives, what got lost is found, and what is not told of any more.
    async fn look(&mut self) -> Result<(), String> {
        let all: Vec<(usize, Visitor)> = self.told.clone();
        let mut from = 0;
        while let Some(rest) = all.get(from..).filter(|rest| !rest.is_empty()) {
            let visitors: Vec<&Visitor> = rest.iter().map(|(_, visitor)| visitor).collect();
            let read = reads::many(&self.device, &visitors, self.timing).await;
            // What was told meanwhile may be newer than what was read.
            let newer = self.told_meanwhile();
            from += read.len().max(1);
            for (at, outcome) in read {
                let Some((place, visitor)) = rest.get(at) else { continue };
                if let Err(fault) = &outcome
                    && fault.is_unanswered()
                {
                    return Err(fault.to_string());
                }
                if newer.contains(place) {
                    continue;
                }
                if is_missed(visitor, self.last.get(place), &outcome) {
                    tracing::info!(peer = %self.device.peer(), object = %visitor.target.object, "the device did not tell of this, and is asked anew");
                    self.renewals.insert(visitor.target.object, Instant::now());
                }
                self.last.insert(*place, outcome.clone());
                self.values.push(*place, outcome);
            }
        }
        Ok(())
    }

    fn told_meanwhile(&mut self) -> Vec<usize> {
        let mut places = Vec::new();
        while let Ok(event) = self.listening.events.try_recv() {
            match event {
                Event::Changed(notification) => places.extend(self.changed(notification)),
                Event::IsThere => self.is_there(),
            }
        }
        places
    }

    /// Asks anew for what is due.
    async fn renew(&mut self) -> Result<(), String> {
        let now = Instant::now();
        let due: Vec<ObjectId> =
            self.renewals.iter().filter(|(_, at)| **at <= now).map(|(object, _)| *object).collect();
        for object in due {
            match self.subscribe(object).await {
                Ok(()) => {}
                Err(NotDone::Silent(reason) | NotDone::Unsent(reason)) => {
                    return Err(Fault::Silent(reason).to_string());
                }
                Err(why) => {
                    // It is looked at, and asked for again.
                    let reason = Fault::from(why).to_string();
                    tracing::warn!(peer = %self.device.peer(), %object, reason, "the device tells of changes no more; it is looked at each 10 s");
                    self.renewals.insert(object, Instant::now() + RENEWED_AT_LEAST);
                }
            }
        }
        Ok(())
    }
}

/// Whether a device has not told of a change: of numbers with a fraction small ones are not told (COV increment).
fn is_missed(visitor: &Visitor, told: Option<&Result<Value, Fault>>, read: &Result<Value, Fault>) -> bool {
    let has_steps = matches!(visitor.encoding.kind, Kind::Float | Kind::Double);
    read.is_ok() && !has_steps && told.is_some_and(|told| told != read)
}
