//! As what a value is written. Pure.

/// As what a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataType {
    /// true or false.
    Boolean,
    /// A whole number without a sign.
    Unsigned,
    /// One with a sign.
    Signed,
    /// 32 bits with a fraction.
    Real,
    /// 64 bits with a fraction.
    Double,
    /// A text, in UTF-8.
    Text,
    /// Bytes, in hexadecimal.
    Octets,
    /// One of several states, by its number.
    Enumerated,
}

impl DataType {
    /// From `dataType`, in any case.
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "boolean" | "bool" => Some(DataType::Boolean),
            "unsigned" => Some(DataType::Unsigned),
            "signed" | "integer" => Some(DataType::Signed),
            "real" | "float" => Some(DataType::Real),
            "double" => Some(DataType::Double),
            "string" | "characterstring" => Some(DataType::Text),
            "octetstring" => Some(DataType::Octets),
            "enumerated" => Some(DataType::Enumerated),
            _ => None,
        }
    }
}
