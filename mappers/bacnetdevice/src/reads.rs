//! Reading: several properties at once (ReadPropertyMultiple) as far as the device can, else one after the other.

use framework::{Fault, Value};

use crate::apdu::{READ_PROPERTY, READ_PROPERTY_MULTIPLE, Refusal, UNRECOGNIZED_SERVICE};
use crate::code;
use crate::device::{Device, NotDone};
use crate::encoding::doubt;
use crate::link::Timing;
use crate::names::{self, STATUS_FLAGS};
use crate::primitive::Primitive;
use crate::service;
use crate::target::{ANY_INSTANCE, ObjectId, Target};
use crate::visitor::Visitor;

/// Error code: the service is denied (21).
const SERVICE_REQUEST_DENIED: u32 = 29;
const OPTIONAL_FUNCTIONALITY: u32 = 45;

/// One value, as it travels.
pub(crate) async fn primitive(
    device: &Device,
    target: &Target,
    timing: Timing,
) -> Result<Primitive, NotDone> {
    let body = device.ask(READ_PROPERTY, &service::read(target), timing).await?;
    service::value(&body, target).map_err(NotDone::Wrong)
}

/// Why something was not read. One that is silent to this may answer something else: a device that does not is gone.
pub(crate) async fn fault(device: &Device, why: NotDone, timing: Timing) -> Fault {
    let NotDone::Silent(reason) = why else { return why.into() };
    let own = ObjectId { object_type: names::DEVICE, instance: ANY_INSTANCE };
    let once = Timing { tries: 1, ..timing };
    match primitive(device, &Target::of(own, names::MAX_APDU_LENGTH), once).await {
        Err(NotDone::Silent(_)) => Fault::Link(reason),
        _ => Fault::Silent(reason),
    }
}

/// The value of a property, with what its object says of it.
pub(crate) async fn one(device: &Device, visitor: &Visitor, timing: Timing) -> Result<Value, Fault> {
    match many(device, &[visitor], timing).await.pop() {
        Some((_, outcome)) => outcome,
        None => Err(Fault::Device("nothing was read".to_owned())),
    }
}

/// The first of these, and as many others as come along with it, by their places.
pub(crate) async fn many(
    device: &Device,
    visitors: &[&Visitor],
    timing: Timing,
) -> Vec<(usize, Result<Value, Fault>)> {
    let Some(first) = visitors.first() else { return Vec::new() };
    loop {
        let (asked, targets) = fitting(device, visitors);
        if targets.len() < 2 {
            return vec![(0, single(device, first, timing).await)];
        }
        let answer = device.ask(READ_PROPERTY_MULTIPLE, &service::read_many(&targets), timing).await;
        match answer {
            Ok(body) => match service::values(&body) {
                Ok(elements) => {
                    device.known().has_multiple = Some(true);
                    let of = |(at, visitor): (usize, &&Visitor)| (at, found(device, visitor, &elements));
                    return visitors.iter().take(asked).enumerate().map(of).collect();
                }
                Err(_) => return vec![(0, single(device, first, timing).await)],
            },
            Err(NotDone::Refused(refusal)) if is_without(refusal) => {
                tracing::debug!(peer = %device.peer(), "no ReadPropertyMultiple there: one property at a time");
                device.known().has_multiple = Some(false);
            }
            Err(NotDone::Refused(refusal)) if refusal.is_too_long() => {
                let fewer = (targets.len() / 2).max(1);
                tracing::debug!(peer = %device.peer(), fewer, "the answer was too long");
                device.known().at_once = fewer;
            }
            // One of them may be what it does not understand.
            Err(NotDone::Refused(_) | NotDone::Wrong(_)) => {
                return vec![(0, single(device, first, timing).await)];
            }
            // Some say nothing to a service that they do not have.
            Err(NotDone::Silent(_)) if device.known().has_multiple.is_none() => {
                let alone = single(device, first, timing).await;
                if !alone.as_ref().is_err_and(Fault::is_unanswered) {
                    device.known().has_multiple = Some(false);
                }
                return vec![(0, alone)];
            }
            Err(why) => {
                let fault = fault(device, why, timing).await;
                return (0..asked).map(|at| (at, Err(fault.clone()))).collect();
            }
        }
    }
}

/// How many of these are asked for at once, and what that is.
fn fitting(device: &Device, visitors: &[&Visitor]) -> (usize, Vec<Target>) {
    let known = device.known();
    let (mut asked, mut targets) = (0, Vec::new());
    if known.has_multiple == Some(false) {
        return (asked, targets);
    }
    for visitor in visitors {
        let object = visitor.target.object;
        let flags = (visitor.flags && !known.without_flags.contains(&object))
            .then_some(Target::of(object, STATUS_FLAGS));
        if targets.len() + 1 + usize::from(flags.is_some()) > known.at_once {
            break;
        }
        targets.push(visitor.target);
        targets.extend(flags);
        asked += 1;
    }
    (asked, targets)
}

fn is_without(refusal: Refusal) -> bool {
    match refusal {
        Refusal::Reject(reason) => reason == UNRECOGNIZED_SERVICE,
        Refusal::Error(class, code) => {
            class == u32::from(code::SERVICES)
                && matches!(code, SERVICE_REQUEST_DENIED | OPTIONAL_FUNCTIONALITY)
        }
        Refusal::Abort(_) | Refusal::Segments => false,
    }
}

/// A property's value among those that came.
fn found(device: &Device, visitor: &Visitor, elements: &[service::Element<'_>]) -> Result<Value, Fault> {
    let of = |target: Target| elements.iter().find(|(of, _)| *of == target).map(|(_, outcome)| *outcome);
    let bytes = match of(visitor.target) {
        Some(Ok(bytes)) => bytes,
        Some(Err((class, code))) => return Err(Fault::Device(code::of_error(class, code))),
        None => return Err(Fault::Device("the answer has no word on it".to_owned())),
    };
    let flags = match of(Target::of(visitor.target.object, STATUS_FLAGS)) {
        Some(Ok(bytes)) if visitor.flags => Primitive::only(bytes).ok(),
        Some(Err((_, code::UNKNOWN_PROPERTY))) => {
            device.known().without_flags.insert(visitor.target.object);
            None
        }
        _ => None,
    };
    value(visitor, &Primitive::only(bytes).map_err(Fault::Device)?, flags.as_ref())
}

async fn single(device: &Device, visitor: &Visitor, timing: Timing) -> Result<Value, Fault> {
    let read = match primitive(device, &visitor.target, timing).await {
        Ok(read) => read,
        Err(why) => return Err(fault(device, why, timing).await),
    };
    let object = visitor.target.object;
    let has_flags = visitor.flags && !device.known().without_flags.contains(&object);
    let flags = match has_flags {
        false => None,
        true => match primitive(device, &Target::of(object, STATUS_FLAGS), timing).await {
            Ok(flags) => Some(flags),
            Err(NotDone::Refused(_) | NotDone::Wrong(_)) => {
                device.known().without_flags.insert(object);
                None
            }
            Err(why) => return Err(fault(device, why, timing).await),
        },
    };
    value(visitor, &read, flags.as_ref())
}

/// A property's value, with what its object says of it.
pub(crate) fn value(visitor: &Visitor, read: &Primitive, flags: Option<&Primitive>) -> Result<Value, Fault> {
    let value = visitor.encoding.decode(read)?;
    match flags.filter(|_| visitor.flags).and_then(doubt) {
        Some(reason) => Err(Fault::Doubtful(value, reason)),
        None => Ok(value),
    }
}
