//! Settings inside `Any`.

use prost::Name;
use prost_types::Any;
use thiserror::Error;

/// One setting of a protocol: the wrapper types that travel in `Any`.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// Text.
    Text(String),
    /// true or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
}

/// Why an `Any` is no setting.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotAScalar {
    /// It is something else.
    #[error(
        "type `{0}` is none of StringValue, BoolValue, Int64Value, Int32Value, FloatValue and DoubleValue"
    )]
    Type(String),
    /// Its bytes are not of its type.
    #[error("bytes are no `{0}`")]
    Bytes(String),
}

impl Scalar {
    /// As mappers read it. Numbers with a fraction become a FloatValue, because KubeEdge's SDKs know no DoubleValue;
    /// only what 32 bits cannot hold at all becomes one.
    pub fn to_any(&self) -> Any {
        match self {
            Scalar::Text(text) => wrap(text),
            Scalar::Bool(yes) => wrap(yes),
            Scalar::Int(number) => wrap(number),
            Scalar::Float(number) => {
                #[allow(clippy::cast_possible_truncation)]
                let narrow = *number as f32;
                if narrow.is_finite() { wrap(&narrow) } else { wrap(number) }
            }
        }
    }

    /// As mappers read it that know DoubleValue: every number exactly.
    pub fn to_exact_any(&self) -> Any {
        match self {
            #[allow(clippy::cast_possible_truncation)]
            Scalar::Float(number) if widen(*number as f32) != *number => wrap(number),
            Scalar::Float(_) | Scalar::Text(_) | Scalar::Bool(_) | Scalar::Int(_) => self.to_any(),
        }
    }

    /// Reads a setting.
    ///
    /// # Errors
    /// When it is of another type or broken.
    pub fn from_any(any: &Any) -> Result<Self, NotAScalar> {
        let name = any.type_url.rsplit('/').next().unwrap_or_default();
        let name = name.strip_prefix("google.protobuf.").unwrap_or_default();
        match name {
            "StringValue" => unwrap(any).map(Scalar::Text),
            "BoolValue" => unwrap(any).map(Scalar::Bool),
            "Int64Value" => unwrap(any).map(Scalar::Int),
            "Int32Value" => unwrap::<i32>(any).map(|number| Scalar::Int(number.into())),
            "UInt32Value" => unwrap::<u32>(any).map(|number| Scalar::Int(number.into())),
            "FloatValue" => unwrap::<f32>(any).map(|number| Scalar::Float(widen(number))),
            "DoubleValue" => unwrap(any).map(Scalar::Float),
            _ => Err(NotAScalar::Type(any.type_url.chars().take(128).collect())),
        }
    }
}

/// The number that a person wrote: 0.1 stays 0.1 on its way through 32 bits.
fn widen(number: f32) -> f64 {
    number.to_string().parse().unwrap_or_else(|_| f64::from(number))
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scalar::Text(text) => f.write_str(text),
            Scalar::Bool(yes) => yes.fmt(f),
            Scalar::Int(number) => number.fmt(f),
            Scalar::Float(number) => number.fmt(f),
        }
    }
}

fn wrap<T: Name>(value: &T) -> Any {
    Any { type_url: T::type_url(), value: value.encode_to_vec() }
}

fn unwrap<T: Name + Default>(any: &Any) -> Result<T, NotAScalar> {
    T::decode(any.value.as_slice()).map_err(|_| NotAScalar::Bytes(T::NAME.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_back() {
        for scalar in [
            Scalar::Text("a b".to_owned()),
            Scalar::Text(String::new()),
            Scalar::Bool(true),
            Scalar::Bool(false),
            Scalar::Int(i64::MAX),
            Scalar::Int(0),
            Scalar::Float(0.1),
            Scalar::Float(-1.5),
            Scalar::Float(1e300),
        ] {
            assert_eq!(Scalar::from_any(&scalar.to_any()), Ok(scalar));
        }
    }

    #[test]
    fn a_number_of_64_bits_is_exact_for_whoever_reads_them() {
        for number in [0.1, 21.123_456_789_012, 1.0 / 3.0, -1e300, f64::MIN_POSITIVE, 16_777_217.5] {
            let scalar = Scalar::Float(number);
            assert_eq!(Scalar::from_any(&scalar.to_exact_any()), Ok(scalar.clone()));
            let is_narrow = scalar.to_exact_any().type_url.ends_with("FloatValue");
            assert_eq!(is_narrow, number == 0.1, "{number}: what fits goes as KubeEdge sends it");
        }
        assert_eq!(Scalar::Int(1).to_exact_any(), Scalar::Int(1).to_any());
    }

    #[test]
    fn the_bytes_are_the_wrapper_types() {
        let any = Scalar::Text("x".to_owned()).to_any();
        assert_eq!(any.type_url, "type.googleapis.com/google.protobuf.StringValue");
        assert_eq!(any.value, [0x0a, 1, b'x']);
        let any = Scalar::Int(300).to_any();
        assert_eq!(
            (any.type_url.as_str(), any.value.as_slice()),
            ("type.googleapis.com/google.protobuf.Int64Value", &[8, 0xac, 2][..])
        );
        assert_eq!(Scalar::Float(0.5).to_any().type_url, "type.googleapis.com/google.protobuf.FloatValue");
    }

    #[test]
    fn strangers_are_refused() {
        let any =
            Any { type_url: "type.googleapis.com/google.protobuf.Struct".to_owned(), value: Vec::new() };
        assert!(matches!(Scalar::from_any(&any), Err(NotAScalar::Type(_))));
        let any = Any {
            type_url: "type.googleapis.com/google.protobuf.StringValue".to_owned(),
            value: vec![0x0a, 9, 1],
        };
        assert!(matches!(Scalar::from_any(&any), Err(NotAScalar::Bytes(_))));
        assert!(Scalar::from_any(&Any::default()).is_err());
    }
}
