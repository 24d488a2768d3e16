//! Moves of a camera: within the spaces that ONVIF gives every one (PTZ §5.7), or not sent. Pure.

use std::time::Duration;

use framework::Value;

use crate::ask::{Ask, Service};
use crate::xml::escape;

/// One of the ways in which a camera moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Axis {
    Pan,
    Tilt,
    Zoom,
}

/// A move, of one axis or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Motion {
    /// With a speed, for so long.
    Continuous(Option<Axis>, Duration),
    /// To a place.
    Absolute(Option<Axis>),
    /// By so much.
    Relative(Option<Axis>),
}

/// Where to, or how fast. None: that axis is left alone.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Vector {
    pan_tilt: Option<(f64, f64)>,
    zoom: Option<f64>,
}

impl Motion {
    fn axis(self) -> Option<Axis> {
        match self {
            Motion::Continuous(axis, _) | Motion::Absolute(axis) | Motion::Relative(axis) => axis,
        }
    }

    /// How long it goes on, if it does not end by itself.
    pub(crate) fn lasts(self) -> Option<Duration> {
        match self {
            Motion::Continuous(_, lasts) => Some(lasts),
            Motion::Absolute(_) | Motion::Relative(_) => None,
        }
    }

    /// Whether it names one of two axes that only move together: the other one's place has to be known.
    pub(crate) fn keeps(self) -> Option<Axis> {
        match self {
            Motion::Absolute(Some(Axis::Pan)) => Some(Axis::Tilt),
            Motion::Absolute(Some(Axis::Tilt)) => Some(Axis::Pan),
            _ => None,
        }
    }

    /// The request. `kept` is where the other axis is.
    ///
    /// # Errors
    /// When the value is no such move.
    pub(crate) fn ask(self, value: &Value, kept: f64, profile: &str) -> Result<Ask, String> {
        let vector = self.vector(value, kept)?;
        let mut inside = format!("<tptz:ProfileToken>{}</tptz:ProfileToken>", escape(profile));
        let (operation, name) = match self {
            Motion::Continuous(..) => ("ContinuousMove", "Velocity"),
            Motion::Absolute(_) => ("AbsoluteMove", "Position"),
            Motion::Relative(_) => ("RelativeMove", "Translation"),
        };
        inside.push_str(&format!("<tptz:{name}>"));
        if let Some((pan, tilt)) = vector.pan_tilt {
            inside.push_str(&format!("<tt:PanTilt x=\"{pan}\" y=\"{tilt}\"/>"));
        }
        if let Some(zoom) = vector.zoom {
            inside.push_str(&format!("<tt:Zoom x=\"{zoom}\"/>"));
        }
        inside.push_str(&format!("</tptz:{name}>"));
        if let Some(lasts) = self.lasts() {
            inside.push_str(&format!("<tptz:Timeout>PT{}S</tptz:Timeout>", lasts.as_secs_f64()));
        }
        Ok(Ask::with(Service::Ptz, operation, &inside))
    }

    fn vector(self, value: &Value, kept: f64) -> Result<Vector, String> {
        let zoom = |zoom: f64| {
            let least = if matches!(self, Motion::Absolute(_)) { 0.0 } else { -1.0 };
            within(zoom, least, "zoom")
        };
        let Some(axis) = self.axis() else {
            let Value::Text(text) = value else { return Err("it is no text".to_owned()) };
            let parts: Option<Vec<f64>> = text.split(',').map(|part| part.trim().parse().ok()).collect();
            return match parts.as_deref() {
                Some([pan, tilt]) => Ok(Vector {
                    pan_tilt: Some((within(*pan, -1.0, "pan")?, within(*tilt, -1.0, "tilt")?)),
                    zoom: None,
                }),
                Some([pan, tilt, far]) => Ok(Vector {
                    pan_tilt: Some((within(*pan, -1.0, "pan")?, within(*tilt, -1.0, "tilt")?)),
                    zoom: Some(zoom(*far)?),
                }),
                _ => {
                    Err("it is not pan,tilt or pan,tilt,zoom; write it as 0.5,-0.25 or 0.5,-0.25,1"
                        .to_owned())
                }
            };
        };
        let number = value.number().ok_or_else(|| "it is no number".to_owned())?;
        Ok(match axis {
            Axis::Pan => Vector { pan_tilt: Some((within(number, -1.0, "pan")?, kept)), zoom: None },
            Axis::Tilt => Vector { pan_tilt: Some((kept, within(number, -1.0, "tilt")?)), zoom: None },
            Axis::Zoom => Vector { pan_tilt: None, zoom: Some(zoom(number)?) },
        })
    }
}

fn within(number: f64, least: f64, name: &str) -> Result<f64, String> {
    if (least..=1.0).contains(&number) {
        return Ok(number);
    }
    Err(format!("{name} {number} is not between {least} and 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(motion: Motion, value: Value) -> Result<String, String> {
        motion.ask(&value, 0.0, "p<1").map(|ask| ask.body)
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn a_move_names_what_moves_and_nothing_else() {
        let half = Motion::Continuous(None, Duration::from_millis(1500));
        assert_eq!(
            body(half, text("0.5, -1")).unwrap(),
            "<tptz:ContinuousMove><tptz:ProfileToken>p&lt;1</tptz:ProfileToken><tptz:Velocity><tt:PanTilt x=\"0.5\" y=\"-1\"/></tptz:Velocity>\
             <tptz:Timeout>PT1.5S</tptz:Timeout></tptz:ContinuousMove>"
        );
        let to = body(Motion::Absolute(None), text("0.1,0.2,0.3")).unwrap();
        assert!(
            to.contains(
                "<tptz:Position><tt:PanTilt x=\"0.1\" y=\"0.2\"/><tt:Zoom x=\"0.3\"/></tptz:Position>"
            ),
            "{to}"
        );
        let by = body(Motion::Relative(Some(Axis::Zoom)), Value::Float(-0.1)).unwrap();
        assert!(by.contains("<tptz:Translation><tt:Zoom x=\"-0.1\"/></tptz:Translation>"), "{by}");
        let kept = Motion::Absolute(Some(Axis::Tilt));
        assert_eq!(kept.keeps(), Some(Axis::Pan));
        assert!(kept.ask(&Value::Double(0.5), -0.25, "p").unwrap().body.contains("x=\"-0.25\" y=\"0.5\""));
        assert_eq!(Motion::Relative(Some(Axis::Pan)).keeps(), None, "the other one moves by nothing");
    }

    #[test]
    fn what_is_out_of_range_or_no_move_is_not_sent() {
        for (motion, value) in [
            (Motion::Absolute(Some(Axis::Zoom)), Value::Float(-0.1)),
            (Motion::Absolute(Some(Axis::Pan)), Value::Int(2)),
            (Motion::Relative(None), text("0,0,1.01")),
            (Motion::Relative(None), text("0")),
            (Motion::Relative(None), text("0,0,0,0")),
            (Motion::Relative(None), text("left")),
            (Motion::Relative(None), text("NaN,0")),
            (Motion::Relative(None), text("inf,0")),
            (Motion::Relative(None), text("")),
            (Motion::Relative(Some(Axis::Pan)), text("1")),
        ] {
            assert!(body(motion, value.clone()).is_err(), "{motion:?} {value}");
        }
    }
}
