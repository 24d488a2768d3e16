//! What stands in requests and answers: ReadProperty (15.5), ReadPropertyMultiple (15.7), WriteProperty (15.9), SubscribeCOV and its
//! notifications (13.14, 13.1), Who-Is and I-Am (16.10). Pure.

use crate::apdu;
use crate::names;
use crate::primitive::Primitive;
use crate::tag::{self, Malformed, Reader, Tag};
use crate::target::{ANY_INSTANCE, ObjectId, Target};

/// The property, to be read.
pub(crate) fn read(target: &Target) -> Vec<u8> {
    let mut body = Vec::new();
    tag::context(&mut body, 0, &target.object.bytes());
    target.put(&mut body, 1);
    body
}

/// Several, to be read at once.
pub(crate) fn read_many(targets: &[Target]) -> Vec<u8> {
    let mut body = Vec::new();
    for of_one in targets.chunk_by(|one, next| one.object == next.object) {
        let Some(first) = of_one.first() else { continue };
        tag::context(&mut body, 0, &first.object.bytes());
        tag::opening(&mut body, 1);
        of_one.iter().for_each(|target| target.put(&mut body, 0));
        tag::closing(&mut body, 1);
    }
    body
}

/// The property, to be written.
pub(crate) fn write(target: &Target, value: &Primitive, priority: Option<u8>) -> Vec<u8> {
    let mut body = read(target);
    tag::opening(&mut body, 3);
    value.put(&mut body);
    tag::closing(&mut body, 3);
    if let Some(priority) = priority {
        tag::context(&mut body, 4, &[priority]);
    }
    body
}

/// The device is to tell of changes of the object for so many seconds, and to wait for our word on each. None: no more.
pub(crate) fn subscribe(process: u32, object: ObjectId, seconds: Option<u32>) -> Vec<u8> {
    let mut body = Vec::new();
    tag::context(&mut body, 0, &tag::unsigned_bytes(process.into()));
    tag::context(&mut body, 1, &object.bytes());
    if let Some(seconds) = seconds {
        tag::context(&mut body, 2, &[1]);
        tag::context(&mut body, 3, &tag::unsigned_bytes(seconds.into()));
    }
    body
}

/// Asks for the device of this instance.
pub(crate) fn who_is(instance: u32) -> Vec<u8> {
    let (mut body, number) = (Vec::new(), tag::unsigned_bytes(instance.into()));
    tag::context(&mut body, 0, &number);
    tag::context(&mut body, 1, &number);
    apdu::unconfirmed(apdu::WHO_IS, &body)
}

/// What a device says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IAm {
    pub(crate) instance: u32,
    /// The longest APDU that it takes.
    pub(crate) apdu: u32,
}

/// From an I-Am.
pub(crate) fn i_am(body: &[u8]) -> Option<IAm> {
    let mut reader = Reader::new(body);
    let device = ObjectId::from_bits(u32::from_be_bytes(reader.application(12).ok()?.try_into().ok()?));
    let apdu = tag::unsigned32(reader.application(2).ok()?).ok()?;
    let is_device = device.object_type == names::DEVICE && device.instance != ANY_INSTANCE;
    is_device.then_some(IAm { instance: device.instance, apdu })
}

/// What a ReadProperty was answered.
///
/// # Errors
/// A sentence, when that is no answer to it, or no single value.
pub(crate) fn value(body: &[u8], asked: &Target) -> Result<Primitive, String> {
    let mut reader = Reader::new(body);
    let object = object(reader.context(0)?)?;
    let answered = target(&mut reader, object, 1)?;
    // Who asks for any device is answered by one.
    let is_any = asked.object.instance == ANY_INSTANCE && object.object_type == asked.object.object_type;
    let is_asked = answered.property == asked.property && answered.index == asked.index;
    if !is_asked || (object != asked.object && !is_any) {
        return Err("the answer is about something else".to_owned());
    }
    Primitive::only(reader.enclosed(3)?)
}

/// A value of several, or why there is none: class and code.
pub(crate) type Element<'a> = (Target, Result<&'a [u8], (u32, u32)>);

/// What a ReadPropertyMultiple was answered. As long as the answer is, at most.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn values(body: &[u8]) -> Result<Vec<Element<'_>>, Malformed> {
    let (mut reader, mut found) = (Reader::new(body), Vec::new());
    while !reader.is_empty() {
        let object = object(reader.context(0)?)?;
        let mut inside = Reader::new(reader.enclosed(1)?);
        while !inside.is_empty() {
            let target = target(&mut inside, object, 2)?;
            let outcome = if inside.is_next(Tag::Opening(4)) {
                Ok(inside.enclosed(4)?)
            } else {
                let error = apdu::class_and_code(inside.enclosed(5)?);
                Err(error.ok_or("it has an error without class and code")?)
            };
            found.push((target, outcome));
        }
    }
    Ok(found)
}

/// What a device tells of a change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Notification {
    /// Whose subscription it is.
    pub(crate) process: u32,
    pub(crate) object: ObjectId,
    pub(crate) value: Option<Result<Primitive, String>>,
    pub(crate) flags: Option<Primitive>,
}

/// From a notification, confirmed or not.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn notification(body: &[u8]) -> Result<Notification, Malformed> {
    let mut reader = Reader::new(body);
    let process = tag::unsigned32(reader.context(0)?)?;
    let _device = object(reader.context(1)?)?;
    let object = object(reader.context(2)?)?;
    let _seconds_left = tag::unsigned32(reader.context(3)?)?;
    let mut told = Notification { process, object, value: None, flags: None };
    let mut inside = Reader::new(reader.enclosed(4)?);
    while !inside.is_empty() {
        let target = target(&mut inside, object, 0)?;
        let value = Primitive::only(inside.enclosed(2)?);
        let _priority = inside.optional(3)?;
        match (target.property, target.index) {
            (names::PRESENT_VALUE, None) => told.value = Some(value),
            (names::STATUS_FLAGS, None) => told.flags = value.ok(),
            _ => {}
        }
    }
    Ok(told)
}

fn object(content: &[u8]) -> Result<ObjectId, Malformed> {
    let four = content.try_into().map_err(|_| "an object identifier has not four bytes")?;
    Ok(ObjectId::from_bits(u32::from_be_bytes(four)))
}

/// A property and its element, as parameters of the numbers from `first` on.
fn target(reader: &mut Reader<'_>, object: ObjectId, first: u8) -> Result<Target, Malformed> {
    let property = tag::unsigned32(reader.context(first)?)?;
    let index = reader.optional(first + 1)?.map(tag::unsigned32).transpose()?;
    Ok(Target { object, property, index })
}

#[cfg(test)]
mod tests;
