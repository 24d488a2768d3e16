//! What a property is of its camera.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use framework::payload::plain;
use framework::{InvalidSetting, Kind, Payload, Property, Settings};

use crate::ask::{Ask, Path, Service, Template};
use crate::motion::{Axis, Motion};
use crate::topic::Topic;

/// 1 s that a move goes on, unless `moveMs` says otherwise.
const MOVE_MILLIS: i64 = 1000;
/// A minute of a move at most.
const MOVE_MAX: i64 = 60_000;

/// What a property is.
#[derive(Debug, Clone, PartialEq)]
pub struct Visitor {
    pub(crate) what: What,
    /// The media profile, by its token or name, where it is of one. None: the device's.
    pub(crate) profile: Option<String>,
    /// What its words mean.
    pub(crate) payload: Arc<Payload>,
    /// How often its value is told when it does not change.
    pub(crate) told_every: Option<Duration>,
}

/// What a property is of its camera.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    /// Something in the answer of a request, and the request that writes it.
    Asked {
        ask: Ask,
        at: Path,
        write: Option<Template>,
    },
    /// The camera's clock.
    Clock,
    /// Where its stream is, or its pictures are.
    StreamUri,
    SnapshotUri,
    /// The pictures themselves.
    Pictures,
    /// What the camera says by itself.
    Event(Topic),
    /// A move, when something is desired.
    Move(Motion),
    Stop,
    Preset,
    Reboot,
}

impl What {
    /// Done once for each desired value.
    pub(crate) fn is_command(&self) -> bool {
        matches!(self, What::Move(_) | What::Stop | What::Preset | What::Reboot)
    }
}

/// What `method` may be, of which some are KubeEdge's.
const METHODS: [&str; 12] = [
    "GetStreamUri",
    "GetSnapshotUri",
    "GetSystemDateAndTime",
    "GetDeviceInformation",
    "GetStatus",
    "ContinuousMove",
    "AbsoluteMove",
    "RelativeMove",
    "Stop",
    "GotoPreset",
    "SystemReboot",
    "SaveFrame",
];

impl Visitor {
    /// From `visitors.configData`.
    ///
    /// # Errors
    /// With the key and the cure.
    pub fn read(property: &Property, settings: &Settings) -> Result<Self, InvalidSetting> {
        let profile = settings.text("profile")?;
        let told_every = property.told_every;
        let map = settings.object("map")?.iter().map(|(key, value)| (key.clone(), plain(value))).collect();
        let payload = Arc::new(Payload { kind: property.kind, pointer: None, map });
        let made =
            |what| Ok(Visitor { what, profile: profile.clone(), payload: Arc::clone(&payload), told_every });
        let method = settings.text("method")?;
        if property.is_stream {
            let is_other =
                |method: &String| !["saveframe", "savevideo"].contains(&method.to_ascii_lowercase().as_str());
            if let Some(method) = method.filter(is_other) {
                return Err(InvalidSetting::new(format!(
                    "setting `method` is `{method}`, and a STREAM is the camera's pictures; leave it out"
                )));
            }
            let no_map = BTreeMap::new();
            let payload = Arc::new(Payload { kind: Kind::Text, pointer: None, map: no_map });
            return Ok(Visitor { what: What::Pictures, profile, payload, told_every });
        }
        let (topic, request) = (settings.text("topic")?, settings.text("request")?);
        // In KubeEdge the property's name says what it is.
        let by_name = || property.name.eq_ignore_ascii_case("getURI").then(|| "GetStreamUri".to_owned());
        match (method, topic, request) {
            (Some(method), None, None) => made(named(&method, property, settings)?),
            (None, Some(topic), None) => made(What::Event(event(&topic, settings)?)),
            (None, None, Some(request)) => made(asked(&request, property, settings)?),
            (None, None, None) => match by_name() {
                Some(method) => made(named(&method, property, settings)?),
                None if settings.text("write")?.is_some() => Err(InvalidSetting::new(
                    "setting `write` is there without `request`; write the request that reads it, too",
                )),
                None => Err(InvalidSetting::new(
                    "settings `method`, `topic` and `request` are missing; write one of them: what the property is of the camera",
                )),
            },
            _ => Err(InvalidSetting::new(
                "of the settings `method`, `topic` and `request` more than one is there; leave one",
            )),
        }
    }
}

fn named(method: &str, property: &Property, settings: &Settings) -> Result<What, InvalidSetting> {
    let known = METHODS.iter().find(|known| known.eq_ignore_ascii_case(method));
    let what = match known.copied() {
        Some("GetStreamUri") => What::StreamUri,
        Some("GetSnapshotUri") => What::SnapshotUri,
        Some("GetSystemDateAndTime") => What::Clock,
        Some("GetDeviceInformation") => {
            let items = ["Manufacturer", "Model", "FirmwareVersion", "SerialNumber", "HardwareId"];
            let item = one_of(settings, &items.map(|item| (item, item)))?;
            What::Asked {
                ask: Ask::of(Service::Device, "GetDeviceInformation"),
                at: Path::of(item),
                write: None,
            }
        }
        Some("GetStatus") => {
            let items = [
                ("pan", "PTZStatus/Position/PanTilt/@x"),
                ("tilt", "PTZStatus/Position/PanTilt/@y"),
                ("zoom", "PTZStatus/Position/Zoom/@x"),
                ("moveStatus", "PTZStatus/MoveStatus/PanTilt"),
                ("zoomStatus", "PTZStatus/MoveStatus/Zoom"),
                ("error", "PTZStatus/Error"),
            ];
            let ask = Ask::of_profile(Service::Ptz, "GetStatus");
            What::Asked { ask, at: Path::of(one_of(settings, &items)?), write: None }
        }
        Some(name @ ("ContinuousMove" | "AbsoluteMove" | "RelativeMove")) => {
            What::Move(motion(name, property, settings)?)
        }
        Some("Stop") => What::Stop,
        Some("GotoPreset") => What::Preset,
        Some("SystemReboot") => What::Reboot,
        Some("SaveFrame") => {
            return Err(InvalidSetting::new(
                "setting `method` is SaveFrame, which is for a property of type STREAM",
            ));
        }
        _ => {
            return Err(InvalidSetting::new(format!(
                "setting `method` is `{method}`; there are {}; for anything else write `request`",
                METHODS.join(", ")
            )));
        }
    };
    if what.is_command() && !property.writable {
        return Err(InvalidSetting::new(
            "what `method` says is done when something is desired; make the property ReadWrite",
        ));
    }
    Ok(what)
}

fn one_of<'a>(settings: &Settings, items: &[(&str, &'a str)]) -> Result<&'a str, InvalidSetting> {
    let text = settings.text("item")?.unwrap_or_default();
    let found = items.iter().find(|(name, _)| name.eq_ignore_ascii_case(&text)).map(|(_, path)| *path);
    found.ok_or_else(|| {
        let names: Vec<&str> = items.iter().map(|(name, _)| *name).collect();
        InvalidSetting::new(format!("setting `item` is `{text}`; write {}", names.join(", ")))
    })
}

fn motion(name: &str, property: &Property, settings: &Settings) -> Result<Motion, InvalidSetting> {
    let axis = match settings.text("axis")?.unwrap_or_default().to_ascii_lowercase().as_str() {
        "" => None,
        "pan" => Some(Axis::Pan),
        "tilt" => Some(Axis::Tilt),
        "zoom" => Some(Axis::Zoom),
        other => {
            return Err(InvalidSetting::new(format!("setting `axis` is `{other}`; write pan, tilt or zoom")));
        }
    };
    match (axis, property.kind) {
        (Some(_), Kind::Int | Kind::Float | Kind::Double) | (None, Kind::Text) => {}
        (Some(_), _) => {
            return Err(InvalidSetting::new(
                "setting `axis` is of a number; make the property a FLOAT, or remove it",
            ));
        }
        (None, _) => {
            return Err(InvalidSetting::new(
                "setting `axis` is missing; write pan, tilt or zoom, or make the property a STRING of all: 0.5,0 or 0.5,0,1",
            ));
        }
    }
    if name != "ContinuousMove" {
        return Ok(if name == "AbsoluteMove" { Motion::Absolute(axis) } else { Motion::Relative(axis) });
    }
    let millis: u64 = settings.whole_within("moveMs", MOVE_MILLIS, 10..=MOVE_MAX)?;
    Ok(Motion::Continuous(axis, Duration::from_millis(millis)))
}

fn event(topic: &str, settings: &Settings) -> Result<Topic, InvalidSetting> {
    let source = settings.object("source")?.iter().map(|(key, value)| (key.clone(), plain(value))).collect();
    Topic::new(topic, settings.text("item")?, source).ok_or_else(|| {
        InvalidSetting::new(
            "setting `topic` is none; write it as the camera says it, as tns1:VideoSource/MotionAlarm",
        )
    })
}

fn asked(request: &str, property: &Property, settings: &Settings) -> Result<What, InvalidSetting> {
    let service = settings.text("service")?.unwrap_or_else(|| "device".to_owned());
    let service = Service::named(&service).ok_or_else(|| {
        InvalidSetting::new(format!("setting `service` is `{service}`; write {}", Service::names()))
    })?;
    let ask =
        Ask::read(service, request).map_err(|why| InvalidSetting::new(format!("setting `request` {why}")))?;
    let at = settings.text("element")?.unwrap_or_default();
    let at = Path::read(&at).ok_or_else(|| {
        InvalidSetting::new(
            "setting `element` is missing or none; write where the value is in the answer, as A/B, A/B/@c or A[@token=1]/B",
        )
    })?;
    let write = settings.text("write")?;
    if property.writable && write.is_none() {
        return Err(InvalidSetting::new(
            "setting `write` is missing; write the request with {{value}} in it, or make the property ReadOnly",
        ));
    }
    let write = write.map(|write| Template::read(service, &write)).transpose();
    let write = write.map_err(|why| InvalidSetting::new(format!("setting `write` {why}")))?;
    Ok(What::Asked { ask, at, write })
}

#[cfg(test)]
mod tests {
    use framework::Scalar;

    use super::*;

    fn read(property: &Property, pairs: &[(&str, &str)]) -> Result<Visitor, String> {
        let pairs = pairs.iter().map(|(key, value)| (*key, Scalar::Text((*value).to_owned())));
        Visitor::read(property, &Settings::from_pairs(pairs)).map_err(|refusal| refusal.to_string())
    }

    fn of(kind: Kind) -> Property {
        Property { writable: true, ..Property::new("p", kind) }
    }

    #[test]
    fn a_property_is_what_kubeedge_has_by_its_name_and_more_by_its_settings() {
        let what = |property: &Property, pairs: &[(&str, &str)]| read(property, pairs).unwrap().what;
        assert_eq!(what(&Property::new("getURI", Kind::Text), &[]), What::StreamUri);
        let stream = Property { is_stream: true, ..Property::new("saveFrame", Kind::Text) };
        assert_eq!(what(&stream, &[("profile", "sub")]), What::Pictures);
        assert_eq!(what(&of(Kind::Text), &[("method", "getsystemdateandtime")]), What::Clock);
        assert_eq!(what(&of(Kind::Bool), &[("method", "SystemReboot")]), What::Reboot);
        let motion =
            what(&of(Kind::Float), &[("method", "ContinuousMove"), ("axis", "Pan"), ("moveMs", "500")]);
        assert_eq!(motion, What::Move(Motion::Continuous(Some(Axis::Pan), Duration::from_millis(500))));
        assert!(motion.is_command());
        let What::Asked { at, write, .. } =
            what(&of(Kind::Text), &[("method", "GetDeviceInformation"), ("item", "model")])
        else {
            panic!()
        };
        assert_eq!((at, write), (Path::of("Model"), None));
    }

    #[test]
    fn what_is_wrong_says_what_to_write() {
        let stream = Property { is_stream: true, ..of(Kind::Text) };
        let read_only = Property::new("p", Kind::Text);
        for (property, pairs, said) in [
            (&of(Kind::Int), vec![], "write one of them"),
            (&of(Kind::Int), vec![("method", "Stop"), ("topic", "a")], "leave one"),
            (&of(Kind::Int), vec![("method", "GetUsers")], "`GetUsers`; there are GetStreamUri"),
            (&of(Kind::Int), vec![("method", "SaveFrame")], "STREAM"),
            (&stream, vec![("method", "GetStreamUri")], "leave it out"),
            (&read_only, vec![("method", "Stop")], "ReadWrite"),
            (&of(Kind::Text), vec![("method", "GetDeviceInformation")], "Manufacturer"),
            (&of(Kind::Text), vec![("method", "GetStatus"), ("item", "x")], "moveStatus"),
            (&of(Kind::Float), vec![("method", "AbsoluteMove")], "`axis` is missing"),
            (&of(Kind::Float), vec![("method", "AbsoluteMove"), ("axis", "roll")], "`roll`"),
            (&of(Kind::Text), vec![("method", "AbsoluteMove"), ("axis", "pan")], "of a number"),
            (&of(Kind::Text), vec![("method", "ContinuousMove"), ("moveMs", "0")], "`moveMs`"),
            (&of(Kind::Text), vec![("topic", "//")], "`topic`"),
            (&of(Kind::Text), vec![("write", "x")], "without `request`"),
            (&of(Kind::Text), vec![("request", "GetHostname")], "`element`"),
            (&of(Kind::Text), vec![("request", "GetHostname"), ("element", "A")], "`write` is missing"),
            (&of(Kind::Text), vec![("request", "<a"), ("element", "A")], "`request`"),
            (&of(Kind::Text), vec![("request", "Get"), ("service", "x"), ("element", "A")], "`service`"),
            (
                &of(Kind::Text),
                vec![("request", "Get"), ("element", "A"), ("write", "<tds:Set/>")],
                "{{value}}",
            ),
        ] {
            let refusal = read(property, &pairs).unwrap_err();
            assert!(refusal.contains(said), "{pairs:?}: {refusal}");
        }
    }
}
