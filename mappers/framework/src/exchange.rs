//! Single exchanges with a device, each within its deadline.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::backoff::Backoff;
use crate::edgecore::wall_clock;
use crate::plan::Planned;
use crate::protocol::{Fault, Session};
use crate::table::Key;
use crate::track::Track;
use crate::value::Value;

/// For one request to a device.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

/// Gives the device what is desired, unless it has it.
pub(crate) async fn write<S: Session>(
    device: &Key,
    session: &mut S,
    planned: &Planned<S::Visitor>,
    track: &mut Track,
    rewrite: &mut Backoff,
) -> Result<(), Fault> {
    let Some(desired) = track.to_write(Instant::now()).cloned() else {
        return Ok(());
    };
    let property = &planned.name;
    // Not every register can be read: a refused read does not keep it from being written.
    let there = within(session.read(&planned.visitor)).await;
    if matches!(&there, Ok(value) if *value == desired.value) {
        track.written(Instant::now());
        return Ok(());
    }
    if let Err(Fault::Link(reason)) = there {
        return Err(Fault::Link(reason));
    }
    match within(session.write(&planned.visitor, &desired.value)).await {
        Ok(()) => {
            tracing::info!(%device, property, value = desired.text, "desired value written");
            track.well();
            track.written(Instant::now());
            Ok(())
        }
        Err(Fault::Device(reason)) => {
            if track.faulty(&reason) {
                tracing::warn!(%device, property, value = desired.text, reason, "desired value not written; trying on");
            }
            track.not_written(Instant::now() + rewrite.delay());
            Ok(())
        }
        Err(Fault::Link(reason)) => Err(Fault::Link(reason)),
    }
}

/// Reads a property, well or not.
pub(crate) async fn read<S: Session>(
    device: &Key,
    session: &mut S,
    planned: &Planned<S::Visitor>,
    track: &mut Track,
) -> Result<(), Fault> {
    let property = &planned.name;
    let value: Result<Value, Fault> = within(session.read(&planned.visitor)).await;
    track.tried(planned.collect.unwrap_or(REQUEST_DEADLINE), Instant::now());
    match value {
        Ok(value) => {
            if track.well() {
                tracing::info!(%device, property, "the property can be read again");
            }
            track.read(value.to_string(), wall_clock());
            Ok(())
        }
        Err(Fault::Device(reason)) => {
            if track.faulty(&reason) {
                tracing::warn!(%device, property, reason, "the property cannot be read; trying on");
            }
            Ok(())
        }
        Err(Fault::Link(reason)) => Err(Fault::Link(reason)),
    }
}

/// A request that takes too long makes the connection useless: its answer may still come, to the next question.
async fn within<T>(request: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    match timeout(REQUEST_DEADLINE, request).await {
        Ok(answer) => answer,
        Err(_) => Err(Fault::Link(format!("no answer within {} s", REQUEST_DEADLINE.as_secs()))),
    }
}
