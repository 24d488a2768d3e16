//! Single exchanges with a device, each within its deadline.

use std::time::Duration;

use apimachinery::NamespacedName;
use beehive::Env;

use crate::backoff::Backoff;
use crate::device::property::PropertyState;
use crate::events;
use crate::plan::PropertyPlan;
use crate::protocol::{Fault, Protocol, Session};

/// 5 s for a connection to come up.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// 5 s for one request to a device.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

pub(super) async fn connect<P: Protocol>(
    protocol: &P,
    address: &P::Address,
    env: &Env,
) -> Result<P::Session, Fault> {
    match env.timeout(CONNECT_DEADLINE, protocol.connect(address)).await {
        Some(connected) => connected,
        None => Err(Fault::Link(format!("no connection within {} s", CONNECT_DEADLINE.as_secs()))),
    }
}

/// Gives the device what is desired, unless it has it. Only a lost link is an error.
pub(super) async fn write<S: Session>(
    device: &NamespacedName,
    session: &mut S,
    plan: &PropertyPlan<S::Visitor>,
    property: &mut PropertyState,
    rewrite: &mut Backoff,
    env: &Env,
) -> Result<(), Fault> {
    let Some(desired) = property.to_write(env.now()).cloned() else {
        return Ok(());
    };
    // Not every register can be read: a refused read does not keep it from being written.
    let there = within(env, session.read(&plan.visitor)).await;
    if matches!(&there, Ok(value) if *value == desired.value) {
        property.was_written(env.now());
        return Ok(());
    }
    if let Err(Fault::Link(reason)) = there {
        return Err(Fault::Link(reason));
    }
    match within(env, session.write(&plan.visitor, &desired.value)).await {
        Ok(()) => {
            events::desired_written(env, device, &plan.name, &desired.text);
            property.recovered();
            property.was_written(env.now());
            Ok(())
        }
        Err(Fault::Device(reason)) => {
            let is_new = property.failed_with(&reason);
            events::desired_not_written(env, device, &plan.name, &reason, is_new);
            property.was_not_written(env.now() + env.jitter(rewrite.delay()));
            Ok(())
        }
        Err(Fault::Link(reason)) => Err(Fault::Link(reason)),
    }
}

/// Reads a property. Only a lost link is an error.
pub(super) async fn read<S: Session>(
    device: &NamespacedName,
    session: &mut S,
    plan: &PropertyPlan<S::Visitor>,
    property: &mut PropertyState,
    env: &Env,
) -> Result<(), Fault> {
    let value = within(env, session.read(&plan.visitor)).await;
    property.was_collected(plan.collect.unwrap_or(REQUEST_DEADLINE), env.now());
    match value {
        Ok(value) => {
            if property.recovered() {
                events::property_readable(device, &plan.name);
            }
            property.read(value.to_string(), env.wall());
            Ok(())
        }
        Err(Fault::Device(reason)) => {
            let is_new = property.failed_with(&reason);
            events::property_unreadable(env, device, &plan.name, &reason, is_new);
            Ok(())
        }
        Err(Fault::Link(reason)) => Err(Fault::Link(reason)),
    }
}

/// A request that takes too long makes the connection useless: its answer may still come, to the next question.
async fn within<T>(env: &Env, request: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    match env.timeout(REQUEST_DEADLINE, request).await {
        Some(answer) => answer,
        None => Err(Fault::Link(format!("no answer within {} s", REQUEST_DEADLINE.as_secs()))),
    }
}
