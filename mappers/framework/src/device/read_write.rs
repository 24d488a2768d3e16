//! Single exchanges with a device, each within its deadline.

use std::time::Duration;

use beehive::Env;

use crate::fault::Fault;
use crate::protocol::{Protocol, Session};
use crate::subscription::Subscription;
use crate::value::Value;

/// 1 s to take leave of a device.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

pub(super) async fn connect<P: Protocol>(
    protocol: &P,
    address: &P::Address,
    env: &Env,
) -> Result<P::Session, Fault> {
    let deadline = protocol.connect_deadline(address);
    match env.timeout(deadline, protocol.connect(address)).await {
        Some(connected) => connected,
        None => Err(Fault::NotSent(format!("no connection within {} s", deadline.as_secs()))),
    }
}

/// What came of properties, by their places in `visitors`.
pub(super) async fn read<S: Session>(
    session: &mut S,
    visitors: &[&S::Visitor],
    env: &Env,
) -> Vec<(usize, Result<Value, Fault>)> {
    let deadline = session.deadline();
    let mut read = match env.timeout(deadline, session.read_many(visitors)).await {
        Some(read) => read,
        None => vec![(0, Err(late(deadline)))],
    };
    read.retain(|(at, _)| *at < visitors.len());
    if read.is_empty() {
        // It would be asked for ever.
        read.push((0, Err(Fault::Device("the mapper gave no answer for it".to_owned()))));
    }
    read
}

pub(super) async fn holds<S: Session>(
    session: &mut S,
    visitor: &S::Visitor,
    value: &Value,
    env: &Env,
) -> Result<bool, Fault> {
    let deadline = session.deadline();
    env.timeout(deadline, session.holds(visitor, value)).await.unwrap_or_else(|| Err(late(deadline)))
}

pub(super) async fn release<S: Session>(
    session: &mut S,
    visitor: &S::Visitor,
    env: &Env,
) -> Result<bool, Fault> {
    let deadline = session.deadline();
    env.timeout(deadline, session.release(visitor)).await.unwrap_or_else(|| Err(late(deadline)))
}

pub(super) async fn read_one<S: Session>(
    session: &mut S,
    visitor: &S::Visitor,
    env: &Env,
) -> Result<Value, Fault> {
    let deadline = session.deadline();
    env.timeout(deadline, session.read(visitor)).await.unwrap_or_else(|| Err(late(deadline)))
}

pub(super) async fn write<S: Session>(
    session: &mut S,
    visitor: &S::Visitor,
    value: &Value,
    env: &Env,
) -> Result<(), Fault> {
    let deadline = session.deadline();
    env.timeout(deadline, session.write(visitor, value)).await.unwrap_or_else(|| Err(late(deadline)))
}

/// Which of these the device will send by itself, by their places.
pub(super) async fn subscribe<S: Session>(
    session: &mut S,
    visitors: &[&S::Visitor],
    values: Subscription,
    env: &Env,
) -> Vec<usize> {
    let deadline = session.deadline();
    env.timeout(deadline, session.subscribe(visitors, values)).await.unwrap_or_default()
}

/// Takes leave of a device.
pub(super) async fn close<S: Session>(session: S, env: &Env) {
    if env.timeout(CLOSE_WITHIN, session.close()).await.is_none() {
        tracing::debug!("the device was left without its answer");
    }
}

/// A request that takes too long makes the connection useless: its answer may still come, to the next question.
fn late(deadline: Duration) -> Fault {
    Fault::Link(format!("no answer within {} s", deadline.as_secs()))
}
