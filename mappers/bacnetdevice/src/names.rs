//! Types of objects and properties by the standard's names (21), and which values they have. Pure.

use crate::data_type::DataType;

/// The type of the object that each device has of itself.
pub(crate) const DEVICE: u16 = 8;
pub(crate) const PRESENT_VALUE: u32 = 85;
pub(crate) const STATUS_FLAGS: u32 = 111;
pub(crate) const PRIORITY_ARRAY: u32 = 87;
pub(crate) const OBJECT_IDENTIFIER: u32 = 75;
pub(crate) const MAX_APDU_LENGTH: u32 = 62;

/// Those of multi-states, whose states count from 1.
const MULTI_STATES: [u16; 3] = [13, 14, 19];
/// Those of binaries, whose states are inactive (0) and active (1).
const BINARIES: [u16; 3] = [3, 4, 5];

/// Types of objects by name and number, and what a present value of theirs is, if it is a single one.
const OBJECT_TYPES: [(&str, u16, Option<DataType>); 61] = [
    ("analog-input", 0, Some(DataType::Real)),
    ("analog-output", 1, Some(DataType::Real)),
    ("analog-value", 2, Some(DataType::Real)),
    ("binary-input", 3, Some(DataType::Enumerated)),
    ("binary-output", 4, Some(DataType::Enumerated)),
    ("binary-value", 5, Some(DataType::Enumerated)),
    ("calendar", 6, Some(DataType::Boolean)),
    ("command", 7, Some(DataType::Unsigned)),
    ("device", DEVICE, None),
    ("event-enrollment", 9, None),
    ("file", 10, None),
    ("group", 11, None),
    ("loop", 12, Some(DataType::Real)),
    ("multi-state-input", 13, Some(DataType::Unsigned)),
    ("multi-state-output", 14, Some(DataType::Unsigned)),
    ("notification-class", 15, None),
    ("program", 16, None),
    ("schedule", 17, None),
    ("averaging", 18, None),
    ("multi-state-value", 19, Some(DataType::Unsigned)),
    ("trend-log", 20, None),
    ("life-safety-point", 21, Some(DataType::Enumerated)),
    ("life-safety-zone", 22, Some(DataType::Enumerated)),
    ("accumulator", 23, Some(DataType::Unsigned)),
    ("pulse-converter", 24, Some(DataType::Real)),
    ("event-log", 25, None),
    ("global-group", 26, None),
    ("trend-log-multiple", 27, None),
    ("load-control", 28, Some(DataType::Enumerated)),
    ("structured-view", 29, None),
    ("access-door", 30, Some(DataType::Enumerated)),
    ("timer", 31, Some(DataType::Unsigned)),
    ("access-credential", 32, None),
    ("access-point", 33, None),
    ("access-rights", 34, None),
    ("access-user", 35, None),
    ("access-zone", 36, None),
    ("credential-data-input", 37, None),
    ("network-security", 38, None),
    ("bitstring-value", 39, None),
    ("characterstring-value", 40, Some(DataType::Text)),
    ("date-pattern-value", 41, None),
    ("date-value", 42, None),
    ("datetime-pattern-value", 43, None),
    ("datetime-value", 44, None),
    ("integer-value", 45, Some(DataType::Signed)),
    ("large-analog-value", 46, Some(DataType::Double)),
    ("octetstring-value", 47, Some(DataType::Octets)),
    ("positive-integer-value", 48, Some(DataType::Unsigned)),
    ("time-pattern-value", 49, None),
    ("time-value", 50, None),
    ("notification-forwarder", 51, None),
    ("alert-enrollment", 52, None),
    ("channel", 53, None),
    ("lighting-output", 54, Some(DataType::Real)),
    ("binary-lighting-output", 55, Some(DataType::Enumerated)),
    ("network-port", 56, None),
    ("elevator-group", 57, None),
    ("escalator", 58, None),
    ("lift", 59, None),
    ("staging", 60, Some(DataType::Real)),
];

/// As they are called on plans.
const SHORT: [(&str, u16); 9] =
    [("ai", 0), ("ao", 1), ("av", 2), ("bi", 3), ("bo", 4), ("bv", 5), ("msi", 13), ("mso", 14), ("msv", 19)];

/// The properties that a mapper is asked for, and what those are that are written; the others have numbers.
const PROPERTIES: [(&str, u32, Option<DataType>); 56] = [
    ("active-text", 4, Some(DataType::Text)),
    ("application-software-version", 12, Some(DataType::Text)),
    ("change-of-state-count", 15, Some(DataType::Unsigned)),
    ("controlled-variable-value", 21, None),
    ("cov-increment", 22, None),
    ("current-command-priority", 431, None),
    ("database-revision", 155, None),
    ("deadband", 25, None),
    ("default-fade-time", 374, Some(DataType::Unsigned)),
    ("default-ramp-rate", 375, Some(DataType::Real)),
    ("description", 28, Some(DataType::Text)),
    ("device-type", 31, Some(DataType::Text)),
    ("elapsed-active-time", 33, Some(DataType::Unsigned)),
    ("event-state", 36, None),
    ("feedback-value", 40, None),
    ("firmware-revision", 44, Some(DataType::Text)),
    ("high-limit", 45, None),
    ("in-process", 47, Some(DataType::Boolean)),
    ("inactive-text", 46, Some(DataType::Text)),
    ("integral-constant", 49, Some(DataType::Real)),
    ("local-date", 56, None),
    ("local-time", 57, None),
    ("location", 58, Some(DataType::Text)),
    ("log-interval", 134, Some(DataType::Unsigned)),
    ("low-limit", 59, None),
    ("max-apdu-length-accepted", MAX_APDU_LENGTH, None),
    ("max-pres-value", 65, None),
    ("min-pres-value", 69, None),
    ("minimum-off-time", 66, Some(DataType::Unsigned)),
    ("minimum-on-time", 67, Some(DataType::Unsigned)),
    ("model-name", 70, Some(DataType::Text)),
    ("notification-class", 17, Some(DataType::Unsigned)),
    ("number-of-states", 74, Some(DataType::Unsigned)),
    ("object-identifier", OBJECT_IDENTIFIER, None),
    ("object-list", 76, None),
    ("object-name", 77, Some(DataType::Text)),
    ("out-of-service", 81, Some(DataType::Boolean)),
    ("polarity", 84, Some(DataType::Enumerated)),
    ("present-value", PRESENT_VALUE, None),
    ("priority-array", PRIORITY_ARRAY, None),
    ("proportional-constant", 93, Some(DataType::Real)),
    ("protocol-revision", 139, None),
    ("protocol-version", 98, None),
    ("pulse-rate", 186, Some(DataType::Unsigned)),
    ("reliability", 103, Some(DataType::Enumerated)),
    ("relinquish-default", 104, None),
    ("resolution", 106, None),
    ("setpoint", 108, Some(DataType::Real)),
    ("state-text", 110, Some(DataType::Text)),
    ("status-flags", STATUS_FLAGS, None),
    ("system-status", 112, None),
    ("time-delay", 113, Some(DataType::Unsigned)),
    ("tracking-value", 164, None),
    ("units", 117, Some(DataType::Enumerated)),
    ("update-interval", 118, Some(DataType::Unsigned)),
    ("vendor-name", 121, Some(DataType::Text)),
];
/// Those that are what the present value is: COV increment, deadband, limits, relinquish default, resolution.
const LIKE_PRESENT_VALUE: [u32; 8] = [PRESENT_VALUE, 22, 25, 45, 59, 65, 69, 104];

/// A type of objects, by its name in any way of writing (`analog-value`, `analogValue`, `AV`), or by its number.
pub(crate) fn object_type(text: &str) -> Option<u16> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let asked = plain(text);
    let long = OBJECT_TYPES.iter().find(|(name, ..)| plain(name) == asked).map(|(_, number, _)| *number);
    long.or_else(|| SHORT.iter().find(|(name, _)| *name == asked).map(|(_, number)| *number))
}

/// A property, in the same ways.
pub(crate) fn property(text: &str) -> Option<u32> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let asked = plain(text);
    PROPERTIES.iter().find(|(name, ..)| plain(name) == asked).map(|(_, number, _)| *number)
}

fn plain(text: &str) -> String {
    text.chars().take(64).filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
}

pub(crate) fn of_object_type(number: u16) -> Option<&'static str> {
    OBJECT_TYPES.iter().find(|(_, of, _)| *of == number).map(|(name, ..)| *name)
}

/// What a property is, where the standard says it.
pub(crate) fn data_type(object_type: u16, property: u32) -> Option<DataType> {
    if LIKE_PRESENT_VALUE.contains(&property) {
        return OBJECT_TYPES.iter().find(|(_, of, _)| *of == object_type).and_then(|(.., of)| *of);
    }
    PROPERTIES.iter().find(|(_, of, _)| *of == property).and_then(|(.., of)| *of)
}

/// Whether objects of this type have status flags beside their present values.
pub(crate) fn has_status_flags(object_type: u16) -> bool {
    matches!(object_type, 0..=5 | 12..=14 | 19 | 21..=24 | 39..=50 | 54 | 55)
}

/// Whether objects of this type may have priorities.
pub(crate) fn may_have_priorities(object_type: u16) -> bool {
    matches!(object_type, 1 | 2 | 4 | 5 | 14 | 19 | 30 | 39..=50 | 54 | 55)
}

pub(crate) fn is_multi_state(object_type: u16) -> bool {
    MULTI_STATES.contains(&object_type)
}

pub(crate) fn is_binary(object_type: u16) -> bool {
    BINARIES.contains(&object_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_however_they_are_written() {
        for (text, number) in [
            ("analog-value", 2),
            ("analogValue", 2),
            ("ANALOG_VALUE", 2),
            ("AV", 2),
            ("msv", 19),
            ("130", 130),
        ] {
            assert_eq!(object_type(text), Some(number), "{text}");
        }
        assert_eq!(property("presentValue"), Some(85));
        assert_eq!(property("512"), Some(512));
        assert_eq!((object_type("valve"), property("value")), (None, None));
    }

    #[test]
    fn no_number_stands_twice() {
        for (at, (name, number, _)) in OBJECT_TYPES.iter().enumerate() {
            assert_eq!(usize::from(*number), at, "{name}");
        }
        for (name, number, _) in PROPERTIES {
            assert_eq!(PROPERTIES.iter().filter(|(_, of, _)| *of == number).count(), 1, "{name}");
        }
    }
}
