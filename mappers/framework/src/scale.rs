//! What a number in a device is multiplied with.

use crate::error::InvalidSetting;
use crate::fault::Fault;
use crate::settings::Settings;
use crate::value::{Kind, Value};

/// What a number in a device is multiplied with to be the value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    factor: f64,
    /// Its reciprocal, when that is whole: 235 divided by 10 is 23.5, and 235 times 0.1 is 23.500000000000004.
    divisor: Option<f64>,
}

impl Scale {
    /// No scale.
    pub const ONE: Scale = Scale { factor: 1.0, divisor: None };

    /// A factor other than zero.
    ///
    /// # Errors
    /// When it is zero or no number.
    pub fn new(factor: f64) -> Result<Self, InvalidSetting> {
        if !factor.is_normal() {
            return Err(InvalidSetting::new(format!(
                "setting `scale` is {factor}; write a number other than 0"
            )));
        }
        let reciprocal = (1.0 / factor).round();
        let whole = reciprocal.abs() > 1.0 && (reciprocal * factor - 1.0).abs() < 1e-9;
        Ok(Scale { factor, divisor: whole.then_some(reciprocal) })
    }

    /// From `scale`, which is 1 if it is left out.
    ///
    /// # Errors
    /// When it is zero or no number.
    pub fn read(settings: &Settings) -> Result<Self, InvalidSetting> {
        settings.number("scale")?.map_or(Ok(Scale::ONE), Scale::new)
    }

    /// The value of a number in the device.
    #[must_use]
    pub fn apply(self, raw: f64) -> f64 {
        self.divisor.map_or(raw * self.factor, |divisor| raw / divisor)
    }

    /// The number in the device of a value.
    #[must_use]
    pub fn undo(self, value: f64) -> f64 {
        self.divisor.map_or(value / self.factor, |divisor| value * divisor)
    }

    /// Whether it changes nothing.
    pub fn is_one(self) -> bool {
        self == Scale::ONE || self.factor.to_bits() == 1.0f64.to_bits()
    }

    /// The factor, when it is whole.
    #[allow(clippy::cast_possible_truncation)]
    pub fn whole(self) -> Option<i128> {
        (self.factor.fract() == 0.0 && self.factor.abs() <= 1e15).then_some(self.factor as i128)
    }

    /// The value of a whole number in the device.
    ///
    /// # Errors
    /// When the property's values are none of numbers.
    #[allow(clippy::cast_precision_loss)]
    pub fn value_of_whole(self, kind: Kind, number: i128) -> Result<Value, Fault> {
        match kind {
            Kind::Int => Ok(Value::Int(number)),
            Kind::Bool => Ok(Value::Bool(number != 0)),
            Kind::Float | Kind::Double | Kind::Text => self.value_of(kind, number as f64),
        }
    }

    /// The value of a number in the device.
    ///
    /// # Errors
    /// When there is none (NaN, infinity), or none of the property's kind.
    #[allow(clippy::cast_possible_truncation)]
    pub fn value_of(self, kind: Kind, number: f64) -> Result<Value, Fault> {
        if !number.is_finite() {
            return Err(Fault::NoValue(format!("it says {number}")));
        }
        let scaled = self.apply(number);
        match kind {
            Kind::Double if scaled.is_finite() => Ok(Value::Double(scaled)),
            Kind::Float if (scaled as f32).is_finite() => Ok(Value::Float(scaled as f32)),
            Kind::Float => {
                Err(Fault::Device(format!("{scaled} is no number of 32 bits; make the property a DOUBLE")))
            }
            _ => Err(Fault::Device(format!("{scaled} is none of the property's values"))),
        }
    }

    /// The number in the device of a value.
    ///
    /// # Errors
    /// A sentence, when the value is no number.
    pub fn number_of(self, value: &Value) -> Result<f64, String> {
        value.number().map(|number| self.undo(number)).ok_or_else(|| format!("`{value}` is no number"))
    }

    /// The same where the device has whole numbers: rounded to the nearest.
    ///
    /// # Errors
    /// As [`Scale::number_of`].
    #[allow(clippy::cast_possible_truncation)]
    pub fn whole_of(self, value: &Value) -> Result<i128, String> {
        match value {
            Value::Int(number) => Ok(*number),
            Value::Bool(yes) => Ok(i128::from(*yes)),
            other => Ok(self.number_of(other)?.round() as i128),
        }
    }
}

/// A number of 32 bits by way of its digits: 0.1 there is the 0.1 that somebody wrote.
pub fn widened(number: f32) -> f64 {
    if number.is_finite() {
        number.to_string().parse().unwrap_or_else(|_| f64::from(number))
    } else {
        f64::from(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_scaled_both_ways_and_rounded_to_the_nearest() {
        let tenths = Scale::new(0.1).unwrap();
        assert_eq!(tenths.value_of_whole(Kind::Double, 3), Ok(Value::Double(0.3)));
        assert_eq!(tenths.whole_of(&Value::Double(0.26)), Ok(3));
        assert_eq!(tenths.whole_of(&Value::Double(-0.1)), Ok(-1));
        assert_eq!(
            Scale::ONE.value_of_whole(Kind::Int, i128::from(u64::MAX)),
            Ok(Value::Int(u64::MAX.into()))
        );
        assert_eq!(Scale::ONE.value_of(Kind::Double, widened(0.1)), Ok(Value::Double(0.1)));
    }

    #[test]
    fn what_is_no_value_is_none() {
        let large = Scale::new(1e300).unwrap();
        assert!(matches!(large.value_of(Kind::Float, 1.0), Err(Fault::Device(_))));
        assert!(matches!(large.value_of(Kind::Double, 1e300), Err(Fault::Device(_))));
        assert!(matches!(Scale::ONE.value_of(Kind::Float, f64::NAN), Err(Fault::NoValue(_))));
        assert!(matches!(Scale::ONE.value_of(Kind::Text, 1.0), Err(Fault::Device(_))));
        Scale::ONE.whole_of(&Value::Text("7".to_owned())).unwrap_err();
    }
}
