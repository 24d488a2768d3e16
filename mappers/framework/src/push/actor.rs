//! The actor of one target: takes readings out of its outbox, in order, and waits longer after every failure.

use std::rc::Rc;
use std::time::Duration;

use beehive::{Actor, Capacity, Context, Env, Fault, Message, Moment, Policy};
use futures::future::AbortHandle;

use crate::backoff::Backoff;
use crate::events;
use crate::push::client::Client;
use crate::push::outbox::Outbox;
use crate::push::parcel::Parcel;
use crate::push::pushers::Pushers;
use crate::push::trouble::{Sent, Trouble};

/// The kind of these children of a mapper.
pub(crate) const PUSH: &str = "push";
/// 500 ms before the second try of a target that is away; doubles up to 30 s.
const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
/// 256 readings are offered to a client at once.
const BATCH: usize = 256;
/// 45 s: longer than any client gives itself. One that takes longer is made anew.
const SEND_WITHIN: Duration = Duration::from_secs(45);
/// 3 s to send what waits when the mapper ends, or nothing is pushed there any more.
const LAST_WITHIN: Duration = Duration::from_secs(3);
/// 10 s: what waits for longer is written to the disk, and what has come since with the next time. A mapper that is killed loses no more.
const KEEP_EVERY: Duration = Duration::from_secs(10);

/// What a target's actor is told.
#[derive(Debug)]
pub(crate) enum PushMsg {
    /// Readings wait, or it is time to try again.
    Due,
}

impl Message for PushMsg {
    fn name(&self) -> &'static str {
        match self {
            PushMsg::Due => "Due",
        }
    }
}

/// How a target's actor is restarted. Its budget has no end: a defect in one client must never be a fault of the mapper.
pub(crate) fn policy() -> Policy {
    Policy {
        budget: usize::MAX,
        window: Duration::from_secs(600),
        capacity: Capacity::new(4, "one wake-up at a time, by readings and by the timer"),
        ..Policy::default()
    }
}

/// The actor of one target.
pub(crate) struct Pusher {
    outbox: Rc<Outbox>,
    pushers: Pushers,
    client: Client,
    retry: Backoff,
    /// The target is away, and is not tried before then.
    not_before: Moment,
    /// So many are sent one by one, since one of them was refused among others.
    one_by_one: usize,
    timer: Option<AbortHandle>,
    /// When nothing waited last, or what did was brought to the disk.
    kept_at: Moment,
    /// The last reading that waited then.
    seen: u64,
    /// It could not be, and that was said.
    is_not_kept: bool,
}

impl Pusher {
    pub(crate) fn new(outbox: Rc<Outbox>, pushers: Pushers) -> Self {
        let client = Client::to(outbox.target(), pushers.tls(), &pushers.credentials());
        let (retry, not_before) = (RETRY, Moment::default());
        Pusher {
            outbox,
            pushers,
            client,
            retry,
            not_before,
            one_by_one: 0,
            timer: None,
            kept_at: Moment::default(),
            seen: 0,
            is_not_kept: false,
        }
    }
}

impl Actor for Pusher {
    type Message = PushMsg;

    async fn started(&mut self, cx: &mut Context<PushMsg>) -> Result<(), Fault> {
        self.kept_at = cx.now();
        let (outbox, myself) = (Rc::clone(&self.outbox), cx.myself());
        cx.spawn(async move {
            loop {
                outbox.filled().await;
                if myself.tell(PushMsg::Due).await.is_err() {
                    return;
                }
            }
        });
        // What was there before this incarnation.
        self.timer = Some(cx.after(Duration::ZERO, PushMsg::Due));
        Ok(())
    }

    async fn handle(&mut self, message: PushMsg, cx: &mut Context<PushMsg>) -> Result<(), Fault> {
        match message {
            PushMsg::Due => {
                if cx.now() >= self.not_before {
                    self.send(cx.env()).await;
                }
            }
        }
        self.keep_sometimes(cx.env()).await;
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        if self.outbox.len() > 0 {
            self.timer = Some(cx.after(self.not_before.since(cx.now()), PushMsg::Due));
        }
        #[allow(clippy::cast_precision_loss)]
        cx.env().measure("mapper_push_bytes_waiting", self.pushers.sizes().1 as f64);
        Ok(())
    }

    async fn stopping(&mut self, cx: &mut Context<PushMsg>) {
        let env = cx.env().clone();
        let last = async { while self.outbox.len() > 0 && self.send(&env).await {} };
        let _ = env.timeout(LAST_WITHIN, last).await;
        let left = self.outbox.len();
        let is_kept = match self.pushers.is_served_by(&self.outbox) {
            // The mapper ends, or begins anew.
            Some(true) => self.keep(false, &env).await,
            // Another actor has the file, and what was in it.
            Some(false) => false,
            // Nobody pushes there any more.
            None => {
                self.outbox.clear();
                self.keep(true, &env).await;
                false
            }
        };
        if left > 0 && !is_kept {
            events::push_left(&env, &self.outbox.target().shown(), left);
        }
    }

    fn snapshot(&self) -> serde_json::Value {
        serde_json::json!({ "target": self.outbox.target().shown(), "waiting": self.outbox.len() })
    }
}

impl Pusher {
    /// Sends one batch. Whether the target is there.
    async fn send(&mut self, env: &Env) -> bool {
        let size = if self.one_by_one > 0 { 1 } else { BATCH };
        let (numbers, batch): (Vec<u64>, Vec<Rc<Parcel>>) = self.outbox.first(size).into_iter().unzip();
        if batch.is_empty() {
            return true;
        }
        let sent = match env.timeout(SEND_WITHIN, self.client.send(&batch, env)).await {
            Some(sent) => sent,
            None => {
                self.client =
                    Client::to(self.outbox.target(), self.pushers.tls(), &self.pushers.credentials());
                let reason = format!("no answer within {} s", SEND_WITHIN.as_secs());
                Sent { taken: 0, trouble: Some(Trouble::Away(reason)) }
            }
        };
        for (number, parcel) in numbers.iter().zip(&batch).take(sent.taken) {
            self.outbox.done(*number);
            self.outbox.was_refused(&parcel.reading, None);
            self.one_by_one = self.one_by_one.saturating_sub(1);
            env.count("mapper_readings_pushed");
        }
        match sent.trouble {
            None => self.is_there(env),
            Some(Trouble::Away(reason)) => {
                self.is_away(&reason, env);
                return false;
            }
            // Which of them it is, is found by sending them alone.
            Some(Trouble::OneRefused(_)) if batch.len() > 1 => {
                self.is_there(env);
                self.one_by_one = batch.len();
            }
            Some(Trouble::Refused(reason) | Trouble::OneRefused(reason)) => {
                self.is_there(env);
                if let (Some(number), Some(parcel)) = (numbers.get(sent.taken), batch.get(sent.taken)) {
                    self.refused(*number, parcel, &reason, env);
                }
            }
        }
        true
    }

    /// Brings what has waited for long to the disk, and takes away from there what waits no more. A target that answers has readings on their
    /// way all the time, and none for long.
    async fn keep_sometimes(&mut self, env: &Env) {
        let (span, now) = (self.outbox.span(), env.now());
        let is_time = now.since(self.kept_at) >= KEEP_EVERY;
        let is_due = is_time && span.is_some_and(|(first, _)| first <= self.seen);
        if is_due {
            self.keep(false, env).await;
        } else if self.outbox.is_stale(span.map_or(u64::MAX, |(first, _)| first)) {
            self.keep(true, env).await;
        }
        if is_time || span.is_none() {
            (self.kept_at, self.seen) = (now, span.map_or(0, |(_, last)| last));
        }
    }

    /// Brings what waits to the disk. Whether it is there.
    async fn keep(&mut self, nothing: bool, env: &Env) -> bool {
        let Some((path, change)) = self.outbox.to_keep(nothing) else { return self.outbox.is_kept() };
        let written = match env.blocking(move || change.apply(&path)).await {
            Ok(written) => written.map_err(|error| error.to_string()),
            Err(fault) => Err(fault.reason),
        };
        let is_kept = written.is_ok();
        if let Err(reason) = written {
            self.outbox.was_not_kept();
            events::push_not_kept(env, &self.outbox.target().shown(), &reason, !self.is_not_kept);
        }
        self.is_not_kept = !is_kept;
        is_kept
    }

    fn is_there(&mut self, env: &Env) {
        self.retry.reset();
        self.not_before = Moment::default();
        if self.outbox.is_away(None) {
            events::push_target_back(env, &self.outbox.target().shown(), self.outbox.len());
        }
    }

    fn is_away(&mut self, reason: &str, env: &Env) {
        self.not_before = env.now() + env.jitter(self.retry.delay());
        let is_new = self.outbox.is_away(Some(reason.to_owned()));
        events::push_target_away(env, &self.outbox.target().shown(), reason, is_new);
    }

    fn refused(&mut self, number: u64, parcel: &Parcel, reason: &str, env: &Env) {
        self.outbox.done(number);
        self.one_by_one = self.one_by_one.saturating_sub(1);
        let (reading, target) = (&parcel.reading, self.outbox.target().shown());
        let is_new = self.outbox.was_refused(reading, Some(reason.to_owned()));
        events::push_refused(env, &reading.device, &reading.property, &target, reason, is_new);
    }
}
