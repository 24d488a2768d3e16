//! What a property has of an anomaly detection: its detector, and what follows from what that says.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use dmi::v1beta1::{AnomalyDetection, DeviceProperty};
use prost_types::Any;

use crate::anomaly::{AnomalyDetector, Verdict};
use crate::error::InvalidSetting;
use crate::protocol::{Property, Protocol};
use crate::settings::Settings;
use crate::value::{Kind, Value};

/// What follows from an anomaly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// The reading is told and pushed as every other one, and told with the reason.
    Annotate,
    /// The same, and no other reading is pushed.
    PushAlone,
    /// The reading is neither told nor pushed; that there was one, and why it was held back, is.
    Block,
}

/// What becomes of a reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judged {
    /// Why it is an anomaly, if it is one.
    pub(crate) anomaly: Option<String>,
    /// The one before it was none.
    pub(crate) is_new: bool,
    /// Its value is told.
    pub(crate) is_told: bool,
    /// It goes where the property's readings are pushed.
    pub(crate) is_pushed: bool,
}

impl Judged {
    /// Nobody looked at it.
    pub(crate) const UNWATCHED: Judged =
        Judged { anomaly: None, is_new: false, is_told: true, is_pushed: true };
}

/// The detector of a property, and what it was made of.
pub(crate) struct AnomalyWatch {
    data: BTreeMap<String, Any>,
    kind: Kind,
    action: Action,
    was_anomaly: bool,
    detector: Box<dyn AnomalyDetector>,
}

impl fmt::Debug for AnomalyWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnomalyWatch").field("action", &self.action).finish_non_exhaustive()
    }
}

fn settings_of(property: &DeviceProperty) -> Option<&AnomalyDetection> {
    let found = property.push_method.as_ref()?.anomaly_detection.as_ref()?;
    (!found.data.is_empty()).then_some(found)
}

/// Whether readings of a property are looked at, for which they have to be read.
pub(crate) fn is_watched(property: &DeviceProperty) -> bool {
    settings_of(property).is_some_and(|found| is_enabled(&Settings::from_wire(&found.data)) == Ok(true))
}

fn is_enabled(settings: &Settings) -> Result<bool, InvalidSetting> {
    if settings.text("enabled")?.is_some() { settings.flag("enabled") } else { Ok(true) }
}

impl AnomalyWatch {
    /// Understands what a Device asks for. None: nothing.
    pub(crate) fn read<P: Protocol>(
        protocol: &P,
        property: &Property,
        described: &DeviceProperty,
    ) -> Result<Option<Self>, InvalidSetting> {
        let Some(found) = settings_of(described) else { return Ok(None) };
        let settings = Settings::from_wire(&found.data);
        if !is_enabled(&settings)? {
            return Ok(None);
        }
        let action = match settings.text("action")?.unwrap_or_default().to_ascii_lowercase().as_str() {
            "" | "mark" => Action::Annotate,
            "push" => Action::PushAlone,
            "block" => Action::Block,
            other => {
                let sentence = format!("setting `action` is `{other}`; write mark, push or block");
                return Err(InvalidSetting::new(sentence));
            }
        };
        let detector = protocol.detector(property, &settings)?;
        settings.check_unread()?;
        let (data, kind) = (found.data.clone(), property.kind);
        Ok(Some(AnomalyWatch { data, kind, action, was_anomaly: false, detector }))
    }

    /// Whether it is described as the other one, which may know more of the readings before.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        self.kind == other.kind && self.data == other.data
    }

    /// Judges a reading.
    pub(crate) fn judge(&mut self, value: &Value, at: SystemTime) -> Judged {
        let anomaly = match self.detector.judge(value, at) {
            Verdict::Normal => None,
            Verdict::Anomaly(reason) => Some(format!("anomaly: {reason}")),
        };
        let was_anomaly = std::mem::replace(&mut self.was_anomaly, anomaly.is_some());
        Judged {
            is_new: anomaly.is_some() && !was_anomaly,
            is_told: anomaly.is_none() || self.action != Action::Block,
            is_pushed: match self.action {
                Action::Annotate => true,
                Action::PushAlone => anomaly.is_some(),
                Action::Block => anomaly.is_none(),
            },
            anomaly,
        }
    }
}
