//! Values of properties: text in twins, typed towards devices.

use std::fmt;

use thiserror::Error;

use crate::quoting::shown;

/// What 64 bits can hold, with a sign or without one.
const WHOLE_NUMBERS: std::ops::RangeInclusive<i128> = i64::MIN as i128..=u64::MAX as i128;

/// What the values of a property are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Whole numbers.
    Int,
    /// Numbers of 32 bits.
    Float,
    /// Numbers of 64 bits.
    Double,
    /// Text.
    Text,
    /// true or false.
    Bool,
}

/// A value of a property.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A whole number: of 64 bits, with a sign or without one.
    Int(i128),
    /// A number of 32 bits.
    Float(f32),
    /// A number of 64 bits.
    Double(f64),
    /// Text.
    Text(String),
    /// true or false.
    Bool(bool),
}

/// Why a text is no value of a property.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ValueError {
    /// It does not say such a value.
    #[error("`{text}` is not {wanted}")]
    Kind {
        /// What was written, shortened.
        text: String,
        /// What would be right.
        wanted: &'static str,
    },
    /// It is below the model's minimum.
    #[error("{value} is below the model's minimum {minimum}")]
    TooLow {
        /// The value.
        value: String,
        /// The limit.
        minimum: String,
    },
    /// It is above the model's maximum.
    #[error("{value} is above the model's maximum {maximum}")]
    TooHigh {
        /// The value.
        value: String,
        /// The limit.
        maximum: String,
    },
    /// The model's limit is no number.
    #[error("the model's limit `{0}` is not a number")]
    Limit(String),
    /// It is a number that the 32 bits of a FLOAT do not reach.
    #[error(
        "{what} `{text}` is beyond FLOAT, of 32 bits, which ends at 3.4e38; let the model say DOUBLE, or correct it"
    )]
    BeyondFloat {
        /// What it is: the value, or a limit.
        what: &'static str,
        /// What was written, shortened.
        text: String,
    },
}

/// The numbers between which a property may be written.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    minimum: Option<Limit>,
    maximum: Option<Limit>,
}

/// A limit. Whole ones are compared as such: 2^53 + 1 and 2^53 are one number in 64 bits of a float.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Limit {
    Whole(i128),
    Number(f64),
}

impl Kind {
    /// From the `type` of a model's property, in any case.
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "int" | "integer" => Some(Kind::Int),
            "float" => Some(Kind::Float),
            "double" => Some(Kind::Double),
            "string" => Some(Kind::Text),
            "boolean" | "bool" => Some(Kind::Bool),
            _ => None,
        }
    }

    /// As a twin's metadata calls it. A twin knows one word for both sizes of numbers.
    pub fn twin_type(self) -> &'static str {
        match self {
            Kind::Int => "int",
            Kind::Float | Kind::Double => "float",
            Kind::Text => "string",
            Kind::Bool => "boolean",
        }
    }

    fn wanted(self) -> &'static str {
        match self {
            Kind::Int => "a whole number of 64 bits",
            Kind::Float => "a number of 32 bits",
            Kind::Double => "a number",
            Kind::Text => "text",
            Kind::Bool => "true or false",
        }
    }
}

impl Value {
    /// Reads what a user wrote into a twin.
    ///
    /// # Errors
    /// When it says no value of that kind.
    pub fn parse(kind: Kind, text: &str) -> Result<Self, ValueError> {
        let trimmed = text.trim();
        let value = match kind {
            Kind::Int => trimmed.parse().ok().filter(|number| WHOLE_NUMBERS.contains(number)).map(Value::Int),
            Kind::Float => trimmed.parse::<f32>().ok().filter(|number| number.is_finite()).map(Value::Float),
            Kind::Double => {
                trimmed.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::Double)
            }
            Kind::Text => Some(Value::Text(text.to_owned())),
            Kind::Bool => match trimmed.to_ascii_lowercase().as_str() {
                "true" | "1" => Some(Value::Bool(true)),
                "false" | "0" => Some(Value::Bool(false)),
                _ => None,
            },
        };
        let is_beyond =
            || kind == Kind::Float && trimmed.parse::<f64>().is_ok_and(|number| number.is_finite());
        value.ok_or_else(|| match is_beyond() {
            true => ValueError::BeyondFloat { what: "the value", text: shown(text) },
            false => ValueError::Kind { text: shown(text), wanted: kind.wanted() },
        })
    }

    /// What kind of value it is.
    pub fn kind(&self) -> Kind {
        match self {
            Value::Int(_) => Kind::Int,
            Value::Float(_) => Kind::Float,
            Value::Double(_) => Kind::Double,
            Value::Text(_) => Kind::Text,
            Value::Bool(_) => Kind::Bool,
        }
    }

    /// As a number, if it is one.
    #[allow(clippy::cast_precision_loss)]
    pub fn number(&self) -> Option<f64> {
        match self {
            Value::Int(number) => Some(*number as f64),
            // By way of its digits: 0.1 of 32 bits is the 0.1 that a person wrote.
            Value::Float(number) => number.to_string().parse().ok(),
            Value::Double(number) => Some(*number),
            Value::Text(_) | Value::Bool(_) => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Int(number) => number.fmt(f),
            Value::Float(number) => number.fmt(f),
            Value::Double(number) => number.fmt(f),
            Value::Text(text) => f.write_str(text),
            Value::Bool(yes) => yes.fmt(f),
        }
    }
}

impl Limits {
    /// From a model's texts; an empty one sets no limit.
    ///
    /// # Errors
    /// When one is not a number.
    pub fn parse(minimum: &str, maximum: &str) -> Result<Self, ValueError> {
        Ok(Limits { minimum: limit(minimum)?, maximum: limit(maximum)? })
    }

    /// The smallest value.
    pub fn minimum(&self) -> Option<f64> {
        self.minimum.map(Limit::number)
    }

    /// The largest value.
    pub fn maximum(&self) -> Option<f64> {
        self.maximum.map(Limit::number)
    }

    /// What is within both.
    #[must_use]
    pub fn within(self, other: Limits) -> Self {
        let pick = |one: Option<Limit>, two: Option<Limit>, is_higher: bool| match (one, two) {
            (Some(one), Some(two)) if (one.number() > two.number()) == is_higher => Some(one),
            (Some(_), Some(two)) => Some(two),
            (one, two) => one.or(two),
        };
        Limits {
            minimum: pick(self.minimum, other.minimum, true),
            maximum: pick(self.maximum, other.maximum, false),
        }
    }

    /// Whether a property of that kind may have such limits: one that its values cannot reach is none, or leaves nothing.
    ///
    /// # Errors
    /// With the limit.
    #[allow(clippy::cast_possible_truncation)]
    pub fn check_kind(&self, kind: Kind) -> Result<(), ValueError> {
        for (what, limit) in [("the minimum", self.minimum), ("the maximum", self.maximum)] {
            let Some(limit) = limit.filter(|limit| !(limit.number() as f32).is_finite()) else { continue };
            if kind == Kind::Float {
                let text = format!("{:e}", limit.number());
                return Err(ValueError::BeyondFloat { what, text });
            }
        }
        Ok(())
    }

    /// Whether a value is within the limits. Text and booleans always are.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&self, value: &Value) -> Result<(), ValueError> {
        if let Some(minimum) = self.minimum.filter(|minimum| minimum.is_above(value)) {
            return Err(ValueError::TooLow { value: value.to_string(), minimum: minimum.to_string() });
        }
        if let Some(maximum) = self.maximum.filter(|maximum| maximum.is_below(value)) {
            return Err(ValueError::TooHigh { value: value.to_string(), maximum: maximum.to_string() });
        }
        Ok(())
    }
}

impl Limit {
    #[allow(clippy::cast_precision_loss)]
    fn number(self) -> f64 {
        match self {
            Limit::Whole(number) => number as f64,
            Limit::Number(number) => number,
        }
    }

    fn is_above(self, value: &Value) -> bool {
        match (self, value) {
            (Limit::Whole(limit), Value::Int(number)) => limit > *number,
            _ => value.number().is_some_and(|number| self.number() > number),
        }
    }

    fn is_below(self, value: &Value) -> bool {
        match (self, value) {
            (Limit::Whole(limit), Value::Int(number)) => limit < *number,
            _ => value.number().is_some_and(|number| self.number() < number),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Whole(number) => number.fmt(f),
            Limit::Number(number) => number.fmt(f),
        }
    }
}

fn limit(text: &str) -> Result<Option<Limit>, ValueError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(number) = text.parse() {
        return Ok(Some(Limit::Whole(number)));
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(Some(Limit::Number(number))),
        Ok(_) | Err(_) => Err(ValueError::Limit(shown(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_write_is_read_by_kind() {
        assert_eq!(Value::parse(Kind::Int, " -42 "), Ok(Value::Int(-42)));
        assert_eq!(Value::parse(Kind::Float, "23.5"), Ok(Value::Float(23.5)));
        assert_eq!(Value::parse(Kind::Double, "1e3"), Ok(Value::Double(1000.0)));
        assert_eq!(Value::parse(Kind::Bool, "True"), Ok(Value::Bool(true)));
        assert_eq!(Value::parse(Kind::Bool, "0"), Ok(Value::Bool(false)));
        assert_eq!(Value::parse(Kind::Text, " as is "), Ok(Value::Text(" as is ".to_owned())));
        for (kind, text) in [
            (Kind::Int, "4.5"),
            (Kind::Int, ""),
            (Kind::Int, "18446744073709551616"),
            (Kind::Int, "-9223372036854775809"),
            (Kind::Float, "NaN"),
            (Kind::Float, "1e39"),
            (Kind::Double, "inf"),
            (Kind::Bool, "on"),
        ] {
            assert!(Value::parse(kind, text).is_err(), "{kind:?} {text}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for value in [
            Value::Int(i64::MIN.into()),
            Value::Int(u64::MAX.into()),
            Value::Int(9_007_199_254_740_993),
            Value::Float(0.1),
            Value::Float(f32::MAX),
            Value::Double(1.0 / 3.0),
            Value::Double(-1e-300),
            Value::Bool(true),
            Value::Text("a".to_owned()),
        ] {
            assert_eq!(Value::parse(value.kind(), &value.to_string()), Ok(value));
        }
    }

    #[test]
    fn limits_hold_numbers_and_only_those() {
        let limits = Limits::parse("-40", "0.1").unwrap();
        assert_eq!(limits.check(&Value::Int(-40)), Ok(()));
        assert_eq!(limits.check(&Value::Float(0.1)), Ok(()), "the limit itself is allowed");
        assert!(matches!(limits.check(&Value::Int(-41)), Err(ValueError::TooLow { .. })));
        assert!(matches!(limits.check(&Value::Double(0.2)), Err(ValueError::TooHigh { .. })));
        assert_eq!(limits.check(&Value::Text("1000".to_owned())), Ok(()));
        let exact = Limits::parse("", "9007199254740992").unwrap();
        assert!(exact.check(&Value::Int(9_007_199_254_740_993)).is_err(), "2^53 + 1 is more than 2^53");
        assert_eq!(Limits::parse("", " "), Ok(Limits::default()));
        assert_eq!(Limits::parse("low", ""), Err(ValueError::Limit("low".to_owned())));
    }

    #[test]
    fn what_a_float_cannot_reach_is_refused_by_name() {
        for text in ["1e39", "-1e39", "340282356779733661637539395458142568448"] {
            let said = Value::parse(Kind::Float, text).unwrap_err().to_string();
            assert!(said.starts_with(&format!("the value `{text}` is beyond FLOAT, of 32 bits")), "{said}");
        }
        assert!(matches!(Value::parse(Kind::Float, "inf"), Err(ValueError::Kind { .. })));
        assert!(matches!(Value::parse(Kind::Float, "1e400"), Err(ValueError::Kind { .. })));
        for (minimum, maximum, what) in [("1e39", "", "the minimum"), ("0", "1e39", "the maximum")] {
            let limits = Limits::parse(minimum, maximum).unwrap();
            let said = limits.check_kind(Kind::Float).unwrap_err().to_string();
            assert!(said.starts_with(what) && said.contains("beyond FLOAT"), "{said}");
            assert_eq!(limits.check_kind(Kind::Double), Ok(()));
        }
        assert_eq!(Limits::parse("-3.4e38", "3.4e38").unwrap().check_kind(Kind::Float), Ok(()));
    }

    #[test]
    fn of_two_limits_the_narrower_counts() {
        let both = Limits::parse("0", "100").unwrap().within(Limits::parse("1.0", "").unwrap());
        assert_eq!((both.minimum(), both.maximum()), (Some(1.0), Some(100.0)));
        let both = Limits::parse("5", "50").unwrap().within(Limits::parse("1", "60").unwrap());
        assert_eq!((both.minimum(), both.maximum()), (Some(5.0), Some(50.0)));
    }

    #[test]
    fn kinds_have_the_models_names() {
        assert_eq!(Kind::named("INT"), Some(Kind::Int));
        assert_eq!(Kind::named("Boolean"), Some(Kind::Bool));
        assert_eq!(Kind::named("STREAM"), None);
        assert_eq!(Kind::named(""), None);
    }
}
