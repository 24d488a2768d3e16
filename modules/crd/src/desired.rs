//! What a property may be set to, by its model. The rules are those of KubeEdge's mappers: the type, `accessMode`, `minimum` and
//! `maximum`. They read a value with Go's strconv, which takes no spaces and of truths a few words, and go on without a property whose
//! desired value they cannot read: what it would not take goes to nobody.

use std::cmp::Ordering;

use crate::{AccessMode, ModelProperty, PropertyType};

/// 64 characters of a value in a sentence.
const SHOWN: usize = 64;

/// The whole number that a text is, of 64 bits with a sign or without one: a device counts as it likes.
fn whole(text: &str) -> Option<i128> {
    let bounds = i128::from(i64::MIN)..=i128::from(u64::MAX);
    text.parse().ok().filter(|whole| bounds.contains(whole))
}

/// Whether a text is a value of type INT: a whole number from -2^63 to 2^64-1, without spaces.
pub fn is_whole_number(text: &str) -> bool {
    whole(text).is_some()
}

/// A number as it was written: whole ones stay exact beyond 2^53.
#[derive(Debug, Clone, Copy)]
enum Number {
    Whole(i128),
    Real(f64),
}

impl Number {
    fn parse(text: &str) -> Option<Number> {
        let text = text.trim();
        if let Ok(whole) = text.parse::<i128>() {
            return Some(Number::Whole(whole));
        }
        text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Number::Real)
    }

    #[allow(clippy::cast_precision_loss)]
    fn real(self) -> f64 {
        match self {
            Number::Whole(whole) => whole as f64,
            Number::Real(real) => real,
        }
    }

    /// Whether 32 bits do not reach it.
    #[allow(clippy::cast_possible_truncation)]
    fn is_beyond_float(self) -> bool {
        !(self.real() as f32).is_finite()
    }

    fn compare(self, other: Number) -> Option<Ordering> {
        match (self, other) {
            (Number::Whole(one), Number::Whole(another)) => Some(one.cmp(&another)),
            _ => self.real().partial_cmp(&other.real()),
        }
    }
}

impl ModelProperty {
    /// Whether `minimum` and `maximum` are limits of what the property can be.
    ///
    /// # Errors
    /// Which is not, in words that follow the property's name.
    pub fn check_limits(&self) -> Result<(), String> {
        let has_limits =
            matches!(self.value_type, Some(PropertyType::Int | PropertyType::Float | PropertyType::Double));
        for (limit, what) in [(&self.minimum, "minimum"), (&self.maximum, "maximum")] {
            let written = limit.as_deref().filter(|text| has_limits && !text.trim().is_empty());
            let Some(text) = written else { continue };
            let shown: String = text.chars().take(SHOWN).collect();
            let Some(number) = Number::parse(text) else {
                return Err(format!("has the {what} `{shown}` in its model, which is no number"));
            };
            if self.value_type == Some(PropertyType::Float) && number.is_beyond_float() {
                return Err(format!(
                    "has the {what} `{shown}` in its model, which is beyond FLOAT, of 32 bits: correct it, or let the model say DOUBLE"
                ));
            }
        }
        Ok(())
    }

    /// Whether the property may be set to `value`.
    ///
    /// # Errors
    /// Why not, in words that follow the property's name.
    pub fn check_desired(&self, value: &str) -> Result<(), String> {
        if self.access_mode == Some(AccessMode::ReadOnly) {
            return Err("is ReadOnly and takes no desired value".to_owned());
        }
        let shown: String = value.chars().take(SHOWN).collect();
        let is_text = matches!(
            self.value_type,
            Some(PropertyType::String | PropertyType::Bytes | PropertyType::Stream) | None
        );
        if !is_text && value.trim() != value {
            return Err(format!("cannot be `{shown}`: write it without spaces before and after it"));
        }
        let number = match self.value_type {
            Some(PropertyType::Int) => {
                let whole = whole(value);
                let refusal = || format!("is INT, and `{shown}` is no whole number of 64 bits");
                Some(whole.map(Number::Whole).ok_or_else(refusal)?)
            }
            Some(PropertyType::Float | PropertyType::Double) => {
                let number =
                    Number::parse(value).ok_or_else(|| format!("is a number, and `{shown}` is none"))?;
                if number.is_beyond_float() && self.value_type == Some(PropertyType::Float) {
                    return Err(format!(
                        "is FLOAT, of 32 bits, and `{shown}` is beyond that: let its model say DOUBLE"
                    ));
                }
                Some(number)
            }
            Some(PropertyType::Boolean) => match value {
                "true" | "True" | "TRUE" | "false" | "False" | "FALSE" | "0" | "1" => None,
                _ => return Err(format!("is BOOLEAN, and `{shown}` is none of true and false")),
            },
            Some(PropertyType::String | PropertyType::Bytes | PropertyType::Stream) | None => None,
        };
        let Some(number) = number else { return Ok(()) };
        self.check_limits()?;
        for (limit, what, wrong) in
            [(&self.minimum, "minimum", Ordering::Less), (&self.maximum, "maximum", Ordering::Greater)]
        {
            let Some(text) = limit.as_deref().filter(|text| !text.trim().is_empty()) else { continue };
            let Some(limit) = Number::parse(text) else { continue };
            if number.compare(limit) == Some(wrong) {
                let side = if wrong == Ordering::Less { "below" } else { "above" };
                return Err(format!("cannot be `{shown}`: that is {side} the {what}, {}", text.trim()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn property(value_type: PropertyType, minimum: &str, maximum: &str) -> ModelProperty {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        ModelProperty {
            name: "p".into(),
            value_type: Some(value_type),
            minimum: text(minimum),
            maximum: text(maximum),
            ..ModelProperty::default()
        }
    }

    #[test]
    fn limits_are_exact_beyond_what_a_double_holds() {
        // 2^53 and the number after it are the same double.
        let property = property(PropertyType::Int, "", "9007199254740992");
        assert_eq!(property.check_desired("9007199254740992"), Ok(()));
        let refused = property.check_desired("9007199254740993").unwrap_err();
        assert!(refused.contains("above the maximum, 9007199254740992"), "{refused}");
        assert!(property.check_desired("18446744073709551615").unwrap_err().contains("above the maximum"));
    }

    #[test]
    fn a_whole_number_is_of_64_bits_with_a_sign_or_without_one() {
        let counter = property(PropertyType::Int, "", "");
        for whole in ["-9223372036854775808", "9223372036854775808", "18446744073709551615"] {
            assert_eq!(counter.check_desired(whole), Ok(()), "{whole}");
        }
        for beyond in ["-9223372036854775809", "18446744073709551616"] {
            assert!(counter.check_desired(beyond).unwrap_err().contains("64 bits"), "{beyond}");
        }
    }

    #[test]
    fn a_value_is_of_its_type_within_its_limits_and_of_a_property_that_can_be_written() {
        let valve = property(PropertyType::Int, "1", "100");
        for (value, word) in
            [("0", "below"), ("101", "above"), ("ON", "whole number"), ("20.5", "whole number")]
        {
            assert!(valve.check_desired(value).unwrap_err().contains(word), "{value}");
        }
        assert_eq!(valve.check_desired("20"), Ok(()));
        let relay = property(PropertyType::Boolean, "", "");
        assert!(relay.check_desired("ON").unwrap_err().contains("true and false"));
        assert_eq!((relay.check_desired("True"), relay.check_desired("0")), (Ok(()), Ok(())));
        let degrees = property(PropertyType::Float, "0", "100.0");
        assert_eq!(degrees.check_desired("99.5"), Ok(()));
        assert!(degrees.check_desired("NaN").is_err() && degrees.check_desired("100.5").is_err());
        assert!(
            property(PropertyType::Double, "low", "").check_desired("1").unwrap_err().contains("no number")
        );
        let read = ModelProperty { access_mode: Some(AccessMode::ReadOnly), ..valve };
        assert!(read.check_desired("20").unwrap_err().contains("ReadOnly"));
        assert_eq!(property(PropertyType::String, "1", "2").check_desired(" anything "), Ok(()));
    }

    #[test]
    fn a_limit_that_a_float_cannot_reach_is_named() {
        for (minimum, maximum, what) in
            [("1e39", "", "minimum"), ("", "1e39", "maximum"), ("", "-1e39", "maximum")]
        {
            let refused = property(PropertyType::Float, minimum, maximum).check_desired("1").unwrap_err();
            assert!(
                refused.contains(&format!("the {what} `")) && refused.contains("beyond FLOAT"),
                "{refused}"
            );
            assert_eq!(property(PropertyType::Double, minimum, maximum).check_limits(), Ok(()));
        }
        assert_eq!(property(PropertyType::Float, "-3.4e38", "3.4e38").check_limits(), Ok(()));
        assert_eq!(property(PropertyType::String, "low", "high").check_limits(), Ok(()), "texts have none");
        assert!(property(PropertyType::Int, "", "high").check_limits().unwrap_err().contains("no number"));
    }

    #[test]
    fn what_strconv_does_not_take_goes_to_no_mapper() {
        for (value_type, value, word) in [
            (PropertyType::Int, " 5", "without spaces"),
            (PropertyType::Int, "5 ", "without spaces"),
            (PropertyType::Float, " 2.5", "without spaces"),
            (PropertyType::Float, "1e39", "DOUBLE"),
            (PropertyType::Boolean, " true", "without spaces"),
            (PropertyType::Boolean, "tRUE", "true and false"),
            (PropertyType::Boolean, "fALSE", "true and false"),
        ] {
            let refused = property(value_type, "", "").check_desired(value).unwrap_err();
            assert!(refused.contains(word), "{value}: {refused}");
        }
        for (value_type, value) in [
            (PropertyType::Double, "1e39"),
            (PropertyType::Float, "-3.4e38"),
            (PropertyType::Int, "-9223372036854775808"),
            (PropertyType::Boolean, "TRUE"),
        ] {
            assert_eq!(property(value_type, "", "").check_desired(value), Ok(()), "{value}");
        }
    }
}
