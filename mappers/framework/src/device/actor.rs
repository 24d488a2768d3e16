//! The actor of one device.
//!
//! A message says that something has changed or is due; what there is to do is decided from the state alone, one
//! exchange with the device at a time, so that a new description never waits behind a round of reads.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Actor, Capacity, Context, Env, Fault as ActorFault, Lane, Message, Moment, Policy, Reply};
use futures::future::AbortHandle;

use crate::backoff::{Backoff, Redial};
use crate::commands::CommandLog;
use crate::device::crash_budget::RETRY_UNHEALTHY;
use crate::device::instance::{Description, DeviceInstance};
use crate::device::property::PropertyState;
use crate::device::read_write;
use crate::device::recorders::Recorders;
use crate::device::reporter::{DeviceState, Reporter};
use crate::edgecore::EdgeCore;
use crate::events;
use crate::fault::Fault;
use crate::plan::{DevicePlan, PROPERTIES_MAX, RefusedProperty, StateReport, parse_device};
use crate::protocol::Protocol;
use crate::push::{Outlets, Pushers};
use crate::subscription::Pushed;

/// 500 ms before the first second try to write what a device refused; doubles up to 30 s.
const REWRITE: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
/// 500 ms: on a slow device, reports do not wait longer than that for a round of reads.
const REPORT_AT_LEAST: Duration = Duration::from_millis(500);

/// What a device's actor is told.
#[derive(Debug)]
pub(crate) enum DeviceMsg {
    /// Its instance has a new description.
    Described,
    /// The mapper has registered at edgecore.
    Registered,
    /// A cycle, a retry or a report is due.
    Due,
    /// The device has sent something by itself.
    Pushed,
    /// Something is wrong, or well again, where readings are pushed.
    PushChanged,
    /// Somebody wants to know a property, as it is now.
    Read(String, Reply<Result<ReadAnswer, String>>),
    /// Somebody calls a method with a property and its value.
    Write { method: String, property: String, text: String, reply: Reply<Result<(), String>> },
}

/// A property as it was just read.
#[derive(Debug)]
pub(crate) struct ReadAnswer {
    pub(crate) value: String,
    /// In the words of twins.
    pub(crate) kind: &'static str,
    /// Milliseconds since 1970.
    pub(crate) at: u64,
}

impl Message for DeviceMsg {
    fn name(&self) -> &'static str {
        match self {
            DeviceMsg::Described => "Described",
            DeviceMsg::Registered => "Registered",
            DeviceMsg::Due => "Due",
            DeviceMsg::Pushed => "Pushed",
            DeviceMsg::PushChanged => "PushChanged",
            DeviceMsg::Read(..) => "Read",
            DeviceMsg::Write { .. } => "Write",
        }
    }

    fn lane(&self) -> Lane {
        match self {
            DeviceMsg::Described | DeviceMsg::Registered => Lane::Control,
            DeviceMsg::Due
            | DeviceMsg::Pushed
            | DeviceMsg::PushChanged
            | DeviceMsg::Read(..)
            | DeviceMsg::Write { .. } => Lane::Work,
        }
    }
}

/// How a device's actor is restarted. Its budget has no end, because it must never be a fault of the mapper: what
/// fails again and again is left alone by [`crate::device::crash_budget`].
pub(crate) fn policy() -> Policy {
    Policy {
        budget: usize::MAX,
        window: Duration::from_secs(600),
        capacity: Capacity::new(
            16,
            "one wake-up at a time, what the device has sent, and those who ask over REST",
        ),
        ..Policy::default()
    }
}

pub(crate) struct Device<P: Protocol> {
    pub(super) instance: Rc<DeviceInstance>,
    pub(super) protocol: Rc<P>,
    pub(super) commands: CommandLog,
    pushers: Pushers,
    /// Where readings are pushed, by the properties' places.
    pub(super) outlets: Outlets,
    /// `None`: the device was removed.
    pub(super) description: Option<Rc<Description>>,
    described: u64,
    registrations: u64,
    /// Whether the description has not been parsed yet.
    is_unparsed: bool,
    /// `None`: not parsed yet, or the device cannot be served as it is described.
    pub(super) plan: Option<Rc<DevicePlan<P>>>,
    /// As the plan's properties, in their order; after them those that cannot be served.
    pub(super) properties: Vec<PropertyState>,
    /// Where the next read looks first, so that every property has its turn.
    pub(super) next_property: usize,
    pub(super) session: Option<P::Session>,
    pub(super) connect_at: Moment,
    /// The properties that were asked for in vain since the last answer.
    pub(super) unanswered: BTreeSet<usize>,
    /// When the device last answered anything, or was described.
    pub(super) answered_at: Moment,
    /// The protocol fails again and again, and is left alone until then.
    unhealthy_until: Option<Moment>,
    pub(super) redial: Redial,
    /// What the device sends by itself, and which properties those are by their places.
    pub(super) pushed: Pushed,
    pub(super) subscribed: Vec<usize>,
    /// The session does not know yet what it is to send.
    pub(super) is_unsubscribed: bool,
    /// What saves its streams.
    pub(super) recorders: Recorders,
    pub(super) rewrite: Backoff,
    /// Why the device is out of reach, since it is.
    pub(super) link_fault: Option<String>,
    reporter: Reporter,
    reported_at: Moment,
    timer: Option<AbortHandle>,
}

impl<P: Protocol> Device<P> {
    pub(crate) fn new(
        instance: Rc<DeviceInstance>,
        protocol: Rc<P>,
        edgecore: EdgeCore,
        commands: CommandLog,
        pushers: Pushers,
        streams: Option<Arc<Path>>,
    ) -> Self {
        let (description, described) = instance.description();
        let registrations = instance.registrations();
        Device {
            instance,
            protocol,
            commands,
            pushers,
            outlets: Outlets::default(),
            description,
            described,
            registrations,
            is_unparsed: true,
            plan: None,
            properties: Vec::new(),
            next_property: 0,
            session: None,
            connect_at: Moment::default(),
            unanswered: BTreeSet::new(),
            answered_at: Moment::default(),
            unhealthy_until: None,
            pushed: Pushed::default(),
            subscribed: Vec::new(),
            is_unsubscribed: true,
            redial: Redial::new(),
            recorders: Recorders::below(streams),
            rewrite: REWRITE,
            link_fault: None,
            reporter: Reporter::new(edgecore),
            reported_at: Moment::default(),
            timer: None,
        }
    }
}

impl<P: Protocol> Actor for Device<P> {
    type Message = DeviceMsg;

    async fn started(&mut self, cx: &mut Context<DeviceMsg>) -> Result<(), ActorFault> {
        if let Some((failures, unhealthy_until)) = self.instance.starts(cx.now()) {
            events::device_restarted(cx.env(), self.instance.name(), failures);
            if unhealthy_until.is_some() {
                events::device_unhealthy(cx.env(), self.instance.name(), RETRY_UNHEALTHY.as_secs());
                let seconds = RETRY_UNHEALTHY.as_secs();
                let reason = format!(
                    "its protocol fails again and again in the mapper; it is tried again after {seconds} s"
                );
                self.reporter.is(DeviceState::Unhealthy, Some(reason));
            }
            self.unhealthy_until = unhealthy_until;
        }
        let (pushed, myself) = (self.pushed.clone(), cx.myself());
        cx.spawn(async move {
            loop {
                pushed.changed().await;
                if myself.tell(DeviceMsg::Pushed).await.is_err() {
                    return;
                }
            }
        });
        let (bell, myself) = (self.outlets.bell(), cx.myself());
        cx.spawn(async move {
            loop {
                bell.notified().await;
                if myself.tell(DeviceMsg::PushChanged).await.is_err() {
                    return;
                }
            }
        });
        // What is queued from before would do, too, but nothing may be.
        self.timer = Some(cx.after(Duration::ZERO, DeviceMsg::Due));
        Ok(())
    }

    async fn handle(&mut self, message: DeviceMsg, cx: &mut Context<DeviceMsg>) -> Result<(), ActorFault> {
        self.follow();
        if self.description.is_none() {
            return Ok(());
        }
        let env = cx.env().clone();
        match message {
            DeviceMsg::Described
            | DeviceMsg::Registered
            | DeviceMsg::Due
            | DeviceMsg::Pushed
            | DeviceMsg::PushChanged => {
                self.serve(&env).await;
            }
            DeviceMsg::Read(property, reply) => reply.send(self.read_now(&property, &env).await),
            DeviceMsg::Write { method, property, text, reply } => {
                reply.send(self.call(&method, &property, &text, &env).await);
            }
        }
        self.follow_recorders(cx);
        self.note_side_faults();
        if !self.is_exchange_due(env.now()) || env.now().since(self.reported_at) >= REPORT_AT_LEAST {
            self.report(&env).await;
        }
        self.wake_up_later(cx);
        Ok(())
    }

    /// What has changed since the last report is not lost with the mapper.
    async fn stopping(&mut self, cx: &mut Context<DeviceMsg>) {
        self.follow();
        if let Some(session) = self.session.take() {
            read_write::close(session, cx.env()).await;
        }
        if self.description.is_some() {
            self.report(&cx.env().clone()).await;
        }
    }

    fn snapshot(&self) -> serde_json::Value {
        serde_json::json!({
            "state": self.reporter.state().map(DeviceState::as_str),
            "connected": self.session.is_some(),
            "properties": self.properties.len(),
            "fault": self.link_fault,
        })
    }
}

impl<P: Protocol> Device<P> {
    /// Takes what the mapper has set.
    fn follow(&mut self) {
        let registrations = self.instance.registrations();
        if std::mem::replace(&mut self.registrations, registrations) != registrations {
            self.properties.iter_mut().for_each(PropertyState::forget_reported);
            self.reporter.forget_reported();
        }
        let (description, described) = self.instance.description();
        if std::mem::replace(&mut self.described, described) != described {
            self.description = description;
            self.is_unparsed = true;
            self.unhealthy_until = None;
        }
        if self.description.is_none() {
            self.session = None;
            self.plan = None;
            self.properties.clear();
        }
    }

    /// Parses a new description, or does one exchange with the device, unless it is left alone.
    async fn serve(&mut self, env: &Env) {
        if self.unhealthy_until.is_some_and(|until| env.now() < until) {
            return;
        }
        self.unhealthy_until = None;
        if self.is_unparsed {
            self.parse(env);
        }
        let Some(plan) = self.plan.clone() else { return };
        self.take_pushed(&plan, env);
        self.exchange(&plan, env).await;
    }

    fn parse(&mut self, env: &Env) {
        let Some(description) = self.description.clone() else { return };
        let device = self.instance.name();
        let parsed = parse_device(&*self.protocol, &description.device, description.model.as_ref());
        for warning in &parsed.warnings {
            events::device_not_honoured(env, device, warning);
        }
        self.is_unparsed = false;
        self.instance.set_refused(parsed.plan.is_err());
        match parsed.plan {
            Ok(mut plan) => {
                let watches: Vec<_> =
                    plan.properties.iter_mut().map(|planned| planned.watch.take()).collect();
                let plan = Rc::new(plan);
                self.follow_plan(Rc::clone(&plan), env.now());
                for (property, watch) in self.properties.iter_mut().zip(watches) {
                    property.set_watch(watch);
                }
                self.recall_commands(&plan, env.now());
                let pushes = plan.properties.iter().map(|planned| &planned.push);
                self.outlets.follow(self.instance.name(), pushes, &self.pushers);
                let refused = plan.refused.iter().cloned();
                self.properties.extend(refused.map(|refused| PropertyState::refused(refused, env.wall())));
            }
            Err(refusal) => {
                events::device_refused(env, device, &refusal);
                self.reporter.is(DeviceState::Unhealthy, Some(refusal.to_string()));
                self.plan = None;
                self.session = None;
                self.outlets.follow(device, std::iter::empty(), &self.pushers);
                let named = description.device.spec.iter().flat_map(|spec| &spec.properties);
                let (said, at) = (refusal.to_string(), env.wall());
                let refused = named
                    .take(PROPERTIES_MAX)
                    .map(|property| PropertyState::refused(RefusedProperty::new(property, said.clone()), at));
                self.properties = refused.collect();
            }
        }
    }

    /// What of the device has no effect, and what is wrong where readings are pushed, is told with the properties.
    fn note_side_faults(&mut self) {
        let note = self.plan.as_ref().and_then(|plan| plan.note.clone());
        for (at, property) in self.properties.iter_mut().enumerate() {
            let push = self.outlets.fault(at, self.instance.name(), property.name());
            let faults: Vec<String> = note.iter().cloned().chain(push).collect();
            property.set_side_fault((!faults.is_empty()).then(|| faults.join(". ")));
        }
    }

    /// Goes on with what is known of the properties that have not changed.
    fn follow_plan(&mut self, plan: Rc<DevicePlan<P>>, now: Moment) {
        (self.redial, self.rewrite, self.connect_at) = (Redial::new(), REWRITE, now);
        (self.answered_at, self.next_property, self.is_unsubscribed) = (now, 0, true);
        self.unanswered.clear();
        let before = self.plan.replace(Rc::clone(&plan));
        let is_same_device = before.as_ref().is_some_and(|before| before.address == plan.address);
        if !is_same_device {
            self.session = None;
        }
        let known = std::mem::take(&mut self.properties);
        let before = before.iter().filter(|_| is_same_device).flat_map(|before| &before.properties);
        let mut known: BTreeMap<&str, _> =
            before.zip(known).map(|(was, state)| (was.name.as_str(), (was, state))).collect();
        for planned in &plan.properties {
            let same = known
                .remove(planned.name.as_str())
                .filter(|(was, _)| was.visitor == planned.visitor && was.kind == planned.kind);
            self.properties.push(match same {
                Some((_, mut state)) => {
                    state.follow_plan(planned, now);
                    state
                }
                None => PropertyState::new(planned, now),
            });
        }
    }

    pub(super) fn is_online(&mut self, env: &Env) {
        self.redial.answered(env.now());
        self.reporter.is(DeviceState::Online, None);
        if self.link_fault.take().is_some() {
            events::device_online(env, self.instance.name());
        }
    }

    pub(super) fn is_offline(&mut self, fault: &Fault, env: &Env) {
        let fault = fault.to_string();
        // Another reason than before is news: the way to a device may be mended in one place and fail in the next.
        let is_new = self.link_fault.as_ref() != Some(&fault);
        self.properties.iter_mut().for_each(|property| property.is_out_of_reach(&fault, env.wall()));
        events::device_offline(env, self.instance.name(), &fault, is_new);
        self.reporter.is(DeviceState::Offline, Some(fault.clone()));
        self.link_fault = Some(fault);
    }

    async fn report(&mut self, env: &Env) {
        self.reported_at = env.now();
        self.instance.set_twins(self.properties.iter().filter_map(PropertyState::twin).collect());
        let (state_report, name) = (self.state_report(), self.instance.name());
        self.reporter.report(name, state_report, &mut self.properties, env).await;
    }

    fn state_report(&self) -> Option<StateReport> {
        match (&self.plan, &self.description) {
            (Some(plan), _) => plan.state,
            (None, Some(description)) => {
                let status = description.device.status.as_ref()?;
                status.report_to_cloud.then_some(StateReport { report_cycle: None })
            }
            (None, None) => None,
        }
    }

    /// When there is something to do with the device itself.
    fn exchange_due(&self) -> Option<Moment> {
        if self.unhealthy_until.is_some() {
            return self.unhealthy_until;
        }
        match (&self.plan, &self.session) {
            _ if self.is_unparsed => Some(Moment::default()),
            (None, _) => None,
            (Some(_), None) => Some(self.connect_at),
            (Some(_), Some(_)) if self.is_unsubscribed => Some(Moment::default()),
            (Some(_), Some(_)) => self.properties.iter().filter_map(PropertyState::due).min(),
        }
    }

    fn is_exchange_due(&self, now: Moment) -> bool {
        self.exchange_due().is_some_and(|due| due <= now)
    }

    fn wake_up_later(&mut self, cx: &Context<DeviceMsg>) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        let now = cx.now();
        let report = self.reporter.due(self.state_report(), &self.properties, now);
        let due = [self.exchange_due(), report].into_iter().flatten().min();
        self.timer = due.map(|due| cx.after(due.since(now), DeviceMsg::Due));
    }
}
