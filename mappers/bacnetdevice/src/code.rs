//! What a device's refusals mean, and what to do about them. Pure.

use crate::apdu::Refusal;

/// Error codes (21, BACnetErrorCode) that lead somewhere.
pub(crate) const UNKNOWN_OBJECT: u32 = 31;
pub(crate) const UNKNOWN_PROPERTY: u32 = 32;
pub(crate) const PROPERTY_IS_NOT_AN_ARRAY: u32 = 50;
pub(crate) const UNKNOWN_SUBSCRIPTION: u8 = 79;
/// Error class.
pub(crate) const SERVICES: u8 = 5;

/// Why a request was refused.
pub(crate) fn of(refusal: Refusal) -> String {
    match refusal {
        Refusal::Error(class, code) => of_error(class, code),
        Refusal::Reject(reason) => of_reject(reason),
        Refusal::Abort(reason) => of_abort(reason),
        Refusal::Segments => {
            "the answer comes in segments, which are not taken; read one element of it with `index`"
                .to_owned()
        }
    }
}

/// Why one value was not read or written.
pub(crate) fn of_error(class: u32, code: u32) -> String {
    let words = match code {
        0 => "for another reason",
        2 => "it is being configured",
        3 => "it is busy",
        9 => "it has another type there; set `dataType`",
        16 => "a parameter is missing",
        20 => "it has no room for this value",
        25 => "it has an operational problem",
        27 => "it may not be read",
        29 => "it denies this service",
        30 => "what is behind it has not answered in time",
        UNKNOWN_OBJECT => "there is no such object; check `objectType` and `objectInstance`",
        UNKNOWN_PROPERTY => "the object has no such property; check `property`",
        36 => "it has no objects of this type",
        37 => "the value is out of its range",
        40 => {
            "it may not be written; an input only while it is out of service, another may want another `priority`"
        }
        41 => "it does not know the text's character set",
        42 => "there is no such element; check `index`",
        43 => "it has no room for another subscription",
        44 => "it does not tell of changes there",
        45 => "it does not have this function",
        47 => "it cannot show this type",
        PROPERTY_IS_NOT_AN_ARRAY => "the property is no array; leave out `index`",
        58 => "the network behind its router is down",
        70 => "the device behind it is not known",
        71 => "there is no way to the device behind it",
        72 => "there is no value yet",
        79 => "it does not know the subscription",
        80 => "a parameter is out of range",
        82 => "it is busy",
        83 => "its communication was disabled (DeviceCommunicationControl)",
        85 => "access is denied",
        _ => "for a reason that is not known",
    };
    let class_words = match class {
        0 => "device",
        1 => "object",
        2 => "property",
        3 => "resources",
        4 => "security",
        5 => "services",
        6 => "vt",
        7 => "communication",
        _ => "other",
    };
    format!("{words} (error {class_words} {code})")
}

/// Why a request was not understood.
fn of_reject(reason: u8) -> String {
    let words = match reason {
        1 => "the request is longer than it can take",
        2 => "the request's parameters do not go together",
        3 => "a parameter has another type; set `dataType`",
        4 => "it does not understand the request's tags; of what is written, set `dataType`",
        5 => "it misses a parameter",
        6 => "a parameter is out of range",
        7 => "the request has more parameters than it knows",
        8 => "it does not know this enumerated value",
        9 => "it does not have this service",
        _ => "for a reason that is not known",
    };
    format!("{words} (reject {reason})")
}

/// Why a request was given up.
fn of_abort(reason: u8) -> String {
    let words = match reason {
        1 => "the answer is longer than it can send; read one element of it with `index`",
        2 => "it did not expect this now",
        3 => "it has more urgent things to do",
        4 => "the answer needs segments, which are not taken; read one element of it with `index`",
        5 | 6 => "it wants secured messages",
        8 => "it did not find the answer in time",
        9 => "it has no memory left",
        10 => "it waited for something in vain",
        11 => "the answer is too long; read one element of it with `index`",
        _ => "for a reason that is not known",
    };
    format!("{words} (abort {reason})")
}

/// Why a router does not lead to a network (6.4.4).
pub(crate) fn of_unreachable(network: u16, reason: u8) -> String {
    let words = match reason {
        1 => "the router has no way there; check `network`",
        2 => "the router is busy",
        3 => "the router does not know the message",
        4 => "the message is too long for that network",
        5 => "that network wants secured messages",
        6 => "the address has a wrong length; check `mac`",
        _ => "for a reason that is not known",
    };
    format!("network {network} is not reached: {words} (reject-message-to-network {reason})")
}

/// What a BBMD answers (J.2.1).
pub(crate) fn of_result(result: u16) -> String {
    match result {
        0x0030 => "it does not take foreign devices; allow them there, or check `bbmd`".to_owned(),
        0x0060 => "it does not distribute what we broadcast".to_owned(),
        other => format!("it answers 0x{other:04X}"),
    }
}
