//! Values that move by themselves. Pure: the time and the chance come in.

use std::time::Duration;

use framework::{Kind, Value};

/// How a value moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Anywhere between the limits, as KubeEdge's virtual device has it.
    Random,
    /// Upwards, one a second, and from the minimum again.
    Counter,
    /// Up and down between the limits, once in a period.
    Sine,
}

/// What makes a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Generator {
    /// How it moves.
    pub shape: Shape,
    /// What it is.
    pub kind: Kind,
    /// How long one swing takes.
    pub period: Duration,
    /// The smallest number.
    pub minimum: f64,
    /// The largest number.
    pub maximum: f64,
}

impl Generator {
    /// The value at that time, with this chance between 0 and 1.
    pub fn value(&self, elapsed: Duration, chance: f64) -> Value {
        let span = (self.maximum - self.minimum).max(0.0);
        let number = match self.shape {
            Shape::Random => self.minimum + span * chance,
            #[allow(clippy::cast_precision_loss)]
            Shape::Counter => self.minimum + (elapsed.as_secs() as f64) % (span + 1.0),
            Shape::Sine => {
                let turn = elapsed.as_secs_f64() / self.period.as_secs_f64();
                self.minimum + span * (0.5 + 0.5 * (turn * std::f64::consts::TAU).sin())
            }
        };
        // Whole numbers beyond those of a float are not generated; what is cut is cut to the limits.
        #[allow(clippy::cast_possible_truncation)]
        match self.kind {
            Kind::Int => Value::Int(number.round() as i128),
            Kind::Float => Value::Float(number as f32),
            Kind::Double => Value::Double(number),
            Kind::Text => Value::Text(format!("{number:.0}")),
            Kind::Bool => Value::Bool(number >= self.minimum + span / 2.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generator(shape: Shape, kind: Kind) -> Generator {
        Generator { shape, kind, period: Duration::from_secs(60), minimum: 10.0, maximum: 20.0 }
    }

    #[test]
    fn values_stay_within_the_limits_and_move() {
        let at =
            |shape, seconds, chance| generator(shape, Kind::Int).value(Duration::from_secs(seconds), chance);
        assert_eq!((at(Shape::Random, 0, 0.0), at(Shape::Random, 0, 0.99)), (Value::Int(10), Value::Int(20)));
        assert_eq!(
            (at(Shape::Counter, 3, 0.0), at(Shape::Counter, 11, 0.0)),
            (Value::Int(13), Value::Int(10))
        );
        assert_eq!((at(Shape::Sine, 0, 0.0), at(Shape::Sine, 15, 0.0)), (Value::Int(15), Value::Int(20)));
        let half = |kind| generator(Shape::Sine, kind).value(Duration::from_secs(45), 0.0);
        assert_eq!(half(Kind::Bool), Value::Bool(false));
        assert_eq!(half(Kind::Text), Value::Text("10".to_owned()));
    }
}
