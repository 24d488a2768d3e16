//! Which property of which object is meant (20.2.14). Pure.

use std::fmt;

use crate::names;
use crate::tag;

/// 22 bits: the largest instance, which means any.
pub(crate) const ANY_INSTANCE: u32 = 0x3F_FFFF;
/// 10 bits: the largest type of an object.
const TYPE_MAX: u16 = 0x3FF;

/// An object of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectId {
    /// What it is, by the standard's number (21, BACnetObjectType).
    pub object_type: u16,
    /// Which one, at most 4194303.
    pub instance: u32,
}

/// A property of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Whose.
    pub object: ObjectId,
    /// By the standard's number (21, BACnetPropertyIdentifier).
    pub property: u32,
    /// Which element of an array; 0 is how many there are.
    pub index: Option<u32>,
}

impl ObjectId {
    /// None where one of them is too large.
    pub fn new(object_type: u16, instance: u32) -> Option<Self> {
        (object_type <= TYPE_MAX && instance <= ANY_INSTANCE).then_some(ObjectId { object_type, instance })
    }

    pub(crate) fn from_bits(bits: u32) -> Self {
        let object_type = u16::try_from(bits >> 22).unwrap_or(TYPE_MAX);
        ObjectId { object_type, instance: bits & ANY_INSTANCE }
    }

    pub(crate) fn bits(self) -> u32 {
        (u32::from(self.object_type) << 22) | (self.instance & ANY_INSTANCE)
    }

    pub(crate) fn bytes(self) -> [u8; 4] {
        self.bits().to_be_bytes()
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match names::of_object_type(self.object_type) {
            Some(name) => write!(f, "{name},{}", self.instance),
            None => write!(f, "{},{}", self.object_type, self.instance),
        }
    }
}

impl Target {
    /// A property that is no array.
    pub(crate) fn of(object: ObjectId, property: u32) -> Self {
        Target { object, property, index: None }
    }

    /// Appends the property and its element, as parameters of the numbers from `first` on.
    pub(crate) fn put(&self, out: &mut Vec<u8>, first: u8) {
        tag::context(out, first, &tag::unsigned_bytes(self.property.into()));
        if let Some(index) = self.index {
            tag::context(out, first + 1, &tag::unsigned_bytes(index.into()));
        }
    }
}
