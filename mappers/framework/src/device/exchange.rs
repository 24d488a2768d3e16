//! What a device's actor does with its device: it connects, writes what is desired, and reads what is due.
//!
//! A property that is not answered is that property's fault, and is asked less and less often. The device is offline when it
//! cannot be connected to, when nothing of it has answered since the last answer, or when it has been silent for long.

use std::time::Duration;

use beehive::{Env, Moment};

use crate::commands::Outcome;
use crate::device::actor::Device;
use crate::device::property::PropertyState;
use crate::device::read_write;
use crate::events;
use crate::fault::Fault;
use crate::plan::{Desired, DesiredValue, DevicePlan, PropertyPlan};
use crate::protocol::Protocol;
use crate::value::Value;

/// 10 s: a device that has not answered for that long, and for two of its cycles, is offline even if not all was asked yet.
const SILENT_MAX: Duration = Duration::from_secs(10);
/// 1024: properties that are offered to a session for one request.
const OFFERED_MAX: usize = 1024;
/// 5 s: how soon a write is read back, or a property is tried again, that has no cycle.
const DEFAULT_CYCLE: Duration = Duration::from_secs(5);

impl<P: Protocol> Device<P> {
    /// Connects if need be, and writes one property or reads some that are due.
    pub(super) async fn exchange(&mut self, plan: &DevicePlan<P>, env: &Env) {
        if self.session.is_none() && !self.connect(plan, env).await {
            return;
        }
        if self.is_unsubscribed {
            self.subscribe(plan, env).await;
        }
        if !self.properties.iter().any(PropertyState::is_polled) && self.unanswered.is_empty() {
            // Nothing will be asked: the connection itself is all that can be said.
            self.is_online(env);
        }
        let now = env.now();
        let to_write = self.properties.iter().position(|property| property.to_write(now).is_some());
        match to_write {
            Some(at) => self.write(plan, at, env).await,
            None => self.read(plan, env).await,
        }
    }

    async fn connect(&mut self, plan: &DevicePlan<P>, env: &Env) -> bool {
        if env.now() < self.connect_at {
            return false;
        }
        match read_write::connect(&*self.protocol, &plan.address, env).await {
            Ok(session) => (self.session, self.is_unsubscribed) = (Some(session), true),
            Err(fault) => {
                self.connect_at = env.now() + env.jitter(self.redial.failed());
                self.is_offline(&fault, env);
                return false;
            }
        }
        let (now, was_away) = (env.now(), self.link_fault.is_some());
        for (property, planned) in self.properties.iter_mut().zip(&plan.properties) {
            property.reconnected(planned, was_away, now);
        }
        true
    }

    /// Asks the device to send by itself what is read in cycles otherwise.
    async fn subscribe(&mut self, plan: &DevicePlan<P>, env: &Env) {
        self.is_unsubscribed = false;
        let values = self.pushed.renew();
        let Some(session) = &mut self.session else { return };
        let wanted = |(at, planned): (usize, &PropertyPlan<P::Visitor>)| {
            planned.collect.filter(|_| planned.stream.is_none()).map(|_| at)
        };
        self.subscribed = plan.properties.iter().enumerate().filter_map(wanted).collect();
        let visitors = self.subscribed.iter().filter_map(|at| plan.properties.get(*at));
        let visitors: Vec<&P::Visitor> = visitors.map(|planned| &planned.visitor).collect();
        let sent = read_write::subscribe(session, &visitors, values.clone(), env).await;
        for (place, at) in self.subscribed.iter().enumerate() {
            if let Some(property) = self.properties.get_mut(*at) {
                property.set_subscribed(sent.contains(&place));
            }
        }
        self.prepare_recorders(plan, &values, env);
    }

    /// Takes what the device has sent by itself.
    pub(super) fn take_pushed(&mut self, plan: &DevicePlan<P>, env: &Env) {
        for (place, outcome) in self.pushed.take() {
            let Some(at) = self.subscribed.get(place).copied() else { continue };
            if let Err(fault) = &outcome
                && fault.ends_the_session()
            {
                self.has_broken_off(fault, env);
            }
            self.was_read(plan, at, outcome, env);
        }
    }

    /// The device has ended the session by itself. If it does so again and again it is out of reach between two sessions.
    fn has_broken_off(&mut self, fault: &Fault, env: &Env) {
        if self.session.take().is_none() {
            return;
        }
        let pause = self.redial.lost(env.now());
        self.connect_at = env.now() + env.jitter(pause);
        if !pause.is_zero() {
            self.is_offline(fault, env);
        }
    }

    async fn read(&mut self, plan: &DevicePlan<P>, env: &Env) {
        let due = self.in_turn(plan, env.now());
        let Some(session) = &mut self.session else { return };
        let visitors: Vec<&P::Visitor> =
            due.iter().filter_map(|at| plan.properties.get(*at)).map(|planned| &planned.visitor).collect();
        if visitors.is_empty() {
            return;
        }
        let read = read_write::read(session, &visitors, env).await;
        if let Some(first) = due.first() {
            self.next_property = first + 1;
        }
        for (place, outcome) in read {
            if let Some(at) = due.get(place) {
                self.was_read(plan, *at, outcome, env);
            }
        }
    }

    /// What is due, that which has waited longest first, and of several each in its turn.
    fn in_turn(&self, plan: &DevicePlan<P>, now: Moment) -> Vec<usize> {
        let count = plan.properties.len();
        let is_due = |at: &usize| self.properties.get(*at).is_some_and(|property| property.to_read(now));
        let mut due: Vec<usize> =
            (0..count).map(|step| (self.next_property + step) % count).filter(is_due).collect();
        due.sort_by_key(|at| self.properties.get(*at).and_then(PropertyState::read_due));
        due.truncate(OFFERED_MAX);
        due
    }

    pub(super) fn was_read(
        &mut self,
        plan: &DevicePlan<P>,
        at: usize,
        outcome: Result<Value, Fault>,
        env: &Env,
    ) {
        let (Some(planned), Some(property)) = (plan.properties.get(at), self.properties.get_mut(at)) else {
            return;
        };
        let (device, cycle) = (self.instance.name(), planned.collect.unwrap_or(DEFAULT_CYCLE));
        let (now, wall) = (env.now(), env.wall());
        property.was_collected(cycle, now);
        match &outcome {
            Ok(value) => {
                let judged = property.judge(value, wall);
                match &judged.anomaly {
                    None => {
                        if property.read(value.to_string(), now, wall) {
                            events::property_readable(device, &planned.name);
                        }
                    }
                    Some(reason) => {
                        if judged.is_told {
                            property.read_in_doubt(value.to_string(), reason.clone(), now, wall);
                        } else {
                            property.has_no_value(reason.clone(), wall);
                        }
                        events::anomaly_found(env, device, &planned.name, reason, judged.is_new);
                    }
                }
                if judged.is_pushed {
                    let lost = self.outlets.was_read(at, (device, &planned.name), value, (now, wall));
                    events::push_lost(env, lost);
                }
            }
            Err(Fault::Doubtful(value, reason)) => {
                let is_new = property.read_in_doubt(value.to_string(), reason.clone(), now, wall);
                events::property_in_doubt(env, device, &planned.name, reason, is_new);
            }
            Err(Fault::NoValue(reason)) => {
                let is_new = property.has_no_value(reason.clone(), wall);
                events::property_without_value(env, device, &planned.name, reason, is_new);
            }
            Err(fault) => {
                let reason = fault.to_string();
                let is_new = property.could_not_be_read(reason.clone(), cycle, now, wall);
                events::property_unreadable(env, device, &planned.name, &reason, is_new);
            }
        }
        if let Some(reason) = property.untaken_news() {
            events::value_untaken(env, device, &planned.name, &reason);
        }
        self.was_answered(plan, at, outcome.err().as_ref(), env);
    }

    /// Gives the device what is desired.
    async fn write(&mut self, plan: &DevicePlan<P>, at: usize, env: &Env) {
        let (Some(planned), Some(property)) = (plan.properties.get(at), self.properties.get(at)) else {
            return;
        };
        let Some(desired) = property.to_write(env.now()).cloned() else { return };
        let fault = if planned.is_command {
            self.command(planned, at, &desired, env).await
        } else {
            self.keep_up(planned, at, &desired, env).await
        };
        self.was_answered(plan, at, fault.as_ref(), env);
    }

    /// A set point: given to the device unless it has it.
    async fn keep_up(
        &mut self,
        planned: &PropertyPlan<P::Visitor>,
        at: usize,
        desired: &DesiredValue,
        env: &Env,
    ) -> Option<Fault> {
        let session = self.session.as_mut()?;
        let outcome = match &desired.value {
            None => read_write::release(session, &planned.visitor, env).await,
            Some(value) => match read_write::holds(session, &planned.visitor, value, env).await {
                Ok(true) => Ok(false),
                Ok(false) => read_write::write(session, &planned.visitor, value, env).await.map(|()| true),
                Err(fault) => Err(fault),
            },
        };
        let property = self.properties.get_mut(at)?;
        let (device, now) = (self.instance.name(), env.now());
        match outcome {
            Ok(is_written) => {
                if is_written {
                    let shown = desired.value.as_ref().map_or("(given up)", |_| &desired.text);
                    events::desired_written(env, device, &planned.name, shown);
                }
                property.was_written(now);
                None
            }
            // What came of it is not known: it is read first, the next time.
            Err(fault) if fault.is_unanswered() => {
                property.was_not_written(None, now + env.jitter(self.rewrite.delay()));
                Some(fault)
            }
            // Whatever the device would say: with each try the same comes of it.
            Err(fault @ Fault::Unfit(_)) => {
                let reason = format!("{fault}; it is not tried again until another value is desired");
                let is_new = property.is_given_up(reason.clone());
                events::desired_not_written(env, device, &planned.name, &reason, is_new);
                // The device has answered all the same, when it was read.
                None
            }
            Err(fault) => {
                let reason = fault.to_string();
                let again = now + env.jitter(self.rewrite.delay());
                let is_new = property.was_not_written(Some(reason.clone()), again);
                events::desired_not_written(env, device, &planned.name, &reason, is_new);
                Some(fault)
            }
        }
    }

    /// A command: noted, then sent, and never again unless nothing was sent.
    async fn command(
        &mut self,
        planned: &PropertyPlan<P::Visitor>,
        at: usize,
        desired: &DesiredValue,
        env: &Env,
    ) -> Option<Fault> {
        let (device, name, version) = (self.instance.name().clone(), &planned.name, &desired.version);
        if let Err(reason) = self.commands.note(&device, name, version, Outcome::Sent, env).await {
            let reason = format!("not sent, because it cannot be noted that it is: {reason}");
            let again = env.now() + env.jitter(self.rewrite.delay());
            let is_new = self.properties.get_mut(at)?.was_not_written(Some(reason.clone()), again);
            events::desired_not_written(env, &device, name, &reason, is_new);
            return Some(Fault::Device(reason));
        }
        let session = self.session.as_mut()?;
        // What is released is no command.
        let value = desired.value.as_ref()?;
        let fault = read_write::write(session, &planned.visitor, value, env).await.err();
        let property = self.properties.get_mut(at)?;
        let outcome = match &fault {
            None => {
                events::desired_written(env, &device, name, &desired.text);
                property.was_written(env.now());
                Outcome::Done
            }
            Some(Fault::NotSent(_)) => {
                property.was_not_written(None, env.now() + env.jitter(self.rewrite.delay()));
                if let Err(reason) = self.commands.take_back(&device, name, env).await {
                    property.is_given_up(format!("not sent, and noted as sent: {reason}"));
                }
                return fault;
            }
            Some(fault) => {
                let reason = given_up(fault);
                events::command_given_up(env, &device, name, &reason);
                property.is_given_up(reason.clone());
                Outcome::Failed(reason)
            }
        };
        if let Err(reason) = self.commands.note(&device, name, version, outcome, env).await {
            events::command_not_noted(env, &device, name, &reason);
        }
        fault
    }

    /// What was sent before, by this mapper or by the one before it, is not sent again.
    pub(super) fn recall_commands(&mut self, plan: &DevicePlan<P>, now: Moment) {
        for (planned, property) in plan.properties.iter().zip(&mut self.properties) {
            let Desired::Value(desired) = &planned.desired else { continue };
            if !planned.is_command {
                continue;
            }
            match self.commands.outcome(self.instance.name(), &planned.name, &desired.version) {
                None => {}
                Some(Outcome::Done) => drop(property.was_written(now)),
                Some(Outcome::Failed(reason)) => drop(property.is_given_up(reason)),
                Some(Outcome::Sent) => {
                    let fault = Fault::Link("the mapper ended before the answer came".to_owned());
                    property.is_given_up(given_up(&fault));
                }
            }
        }
    }

    pub(super) fn was_answered(&mut self, plan: &DevicePlan<P>, at: usize, fault: Option<&Fault>, env: &Env) {
        // That a value is none for the device was found without asking it.
        if matches!(fault, Some(Fault::Unfit(_))) {
            return;
        }
        let now = env.now();
        let Some(fault) = fault.filter(|fault| fault.is_unanswered()) else {
            self.unanswered.clear();
            self.answered_at = now;
            return self.is_online(env);
        };
        self.unanswered.insert(at);
        let polled = self.properties.iter().filter(|property| property.is_polled()).count();
        // A stream that is silent says nothing of what is asked for and answers.
        let asked = polled + plan.properties.iter().filter(|planned| planned.stream.is_some()).count();
        let cycle = plan.properties.iter().filter_map(|planned| planned.collect).max().unwrap_or_default();
        let is_long = now.since(self.answered_at) >= SILENT_MAX.max(cycle * 2);
        let is_gone = self.unanswered.len() >= asked.max(1) || (self.unanswered.len() > 1 && is_long);
        let is_gone = is_gone || self.link_fault.is_some();
        if (is_gone || fault.ends_the_session()) && self.session.take().is_some() {
            let pause = match (is_gone, fault.ends_the_session()) {
                (true, true) => self.redial.lost(now),
                (true, false) => self.redial.silent(),
                (false, _) => self.redial.lost_with_one(now),
            };
            self.connect_at = now + env.jitter(pause);
        }
        if is_gone {
            self.is_offline(fault, env);
        }
    }
}

fn given_up(fault: &Fault) -> String {
    match fault {
        Fault::Device(_) | Fault::Unfit(_) | Fault::NoValue(_) | Fault::Doubtful(..) | Fault::NotSent(_) => {
            fault.to_string()
        }
        Fault::Link(_) | Fault::Silent(_) => format!(
            "it was sent once, and whether the device has done it is not known ({fault}); desire it again, with another \
             value or other metadata"
        ),
    }
}
