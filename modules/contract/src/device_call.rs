//! A call of a device's method (KubeEdge's `spec.methods`) on its way to the node that has the device, and what became of it.
//!
//! A method writes properties, so a call says which of them gets which value. It is the same JSON wherever somebody asks for it:
//! on MQTT, at the node's own socket, and in the annotation [`METHOD_CALL_ANNOTATION`] of the Device, out of which CloudCore makes
//! a typed message to the node ([`crate::downlink::DeviceDown`]). Its `id` makes one call of it, however often it arrives.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::DeviceName;

/// On a Device: the call that somebody in the cloud makes, as JSON. CloudCore sends it once, to the node that is linked when it sees
/// it, and never later; whoever may patch the Device may call.
pub const METHOD_CALL_ANNOTATION: &str = "kubehive.io/method-call";
/// The first segment of the path at the node's own socket: `POST /devicemethod/<namespace>/<name>`.
pub const SEGMENT: &str = "devicemethod";
/// 16 KiB of JSON.
pub const JSON_MAX: usize = 16 << 10;
/// 128 bytes of an id: room for a UUID with a word before it.
pub const ID_MAX: usize = 128;
/// 128 bytes of a method's name.
pub const METHOD_MAX: usize = 128;
/// 16 properties are written by one call.
pub const VALUES_MAX: usize = 16;
/// 1 KiB: names and values of all of them. The calls of a device stand in its DeviceStatus.
pub const VALUE_BYTES_MAX: usize = 1 << 10;
/// 15 s for the mapper where nothing else is asked for: an exchange with a slow device, and the one before it.
pub const WITHIN: Duration = Duration::from_secs(15);
/// 20 s at the most: the way from the API server to a node has 30.
pub const WITHIN_MAX: Duration = Duration::from_secs(20);
/// 16 calls of a device are remembered, and stand in its DeviceStatus.
pub const CALLS_MAX: usize = 16;
/// 512 bytes of a sentence on what became of a call.
pub const MESSAGE_MAX: usize = 512;

/// Why something is no call.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MethodCallError {
    /// It is no such JSON.
    #[error(
        "not a call of a method, {{\"id\": \"…\", \"method\": \"…\", \"values\": {{\"PROPERTY\": \"VALUE\"}}}}: {0}"
    )]
    Json(String),
    /// It is too long.
    #[error("a call of a method has {0} bytes; it has 16384 at the most")]
    Length(usize),
    /// The id is none.
    #[error("the id of a call is not 1 to 128 printable ASCII characters")]
    Id,
    /// The method has no name.
    #[error("the method of a call has no name, one of more than 128 bytes, or one with control characters")]
    Method,
    /// It writes nothing, or too much.
    #[error("a call writes {0} properties; it writes 1 to 16")]
    Values(usize),
    /// A value is none.
    #[error("the value of `{0}` is empty or has control characters")]
    Value(String),
    /// All of them are too long.
    #[error("names and values of a call have {0} bytes; they have 1024 at the most")]
    ValueBytes(usize),
    /// The time is none.
    #[error("the time for a call is not 1 to 20000 ms")]
    Within,
}

/// One call, within its bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodCall {
    id: String,
    method: String,
    values: BTreeMap<String, String>,
    within: Duration,
}

/// As it is written.
#[derive(Deserialize)]
struct Written {
    #[serde(default, alias = "event_id")]
    id: String,
    method: String,
    values: BTreeMap<String, String>,
    within_ms: Option<u64>,
}

impl MethodCall {
    /// A call. `within` is what the mapper has for all of it.
    ///
    /// # Errors
    /// See [`MethodCallError`].
    pub fn new(
        id: &str,
        method: &str,
        values: BTreeMap<String, String>,
        within: Duration,
    ) -> Result<Self, MethodCallError> {
        if id.is_empty() || id.len() > ID_MAX || !id.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(MethodCallError::Id);
        }
        if method.is_empty() || method.len() > METHOD_MAX || method.chars().any(char::is_control) {
            return Err(MethodCallError::Method);
        }
        if values.is_empty() || values.len() > VALUES_MAX {
            return Err(MethodCallError::Values(values.len()));
        }
        let bytes = values.iter().map(|(property, value)| property.len() + value.len()).sum();
        if bytes > VALUE_BYTES_MAX {
            return Err(MethodCallError::ValueBytes(bytes));
        }
        for (property, value) in &values {
            if value.is_empty() || value.chars().any(char::is_control) {
                return Err(MethodCallError::Value(property.chars().take(64).collect()));
            }
        }
        if within.as_millis() == 0 || within > WITHIN_MAX {
            return Err(MethodCallError::Within);
        }
        Ok(MethodCall { id: id.to_owned(), method: method.to_owned(), values, within })
    }

    /// Reads one. `fresh` makes the id of one that has none, or an empty one.
    ///
    /// # Errors
    /// See [`MethodCallError`].
    pub fn read(json: &[u8], fresh: impl FnOnce() -> String) -> Result<Self, MethodCallError> {
        if json.len() > JSON_MAX {
            return Err(MethodCallError::Length(json.len()));
        }
        let Written { id, method, values, within_ms } =
            serde_json::from_slice(json).map_err(|error| MethodCallError::Json(error.to_string()))?;
        let id = if id.is_empty() { fresh() } else { id };
        MethodCall::new(&id, &method, values, within_ms.map_or(WITHIN, Duration::from_millis))
    }

    /// As it is written, and read again.
    pub fn json(&self) -> String {
        let MethodCall { id, method, values, within } = self;
        let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        serde_json::json!({ "id": id, "method": method, "values": values, "within_ms": within }).to_string()
    }

    /// Tells it from every other call of the device.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The method.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// What is written, by property.
    pub fn values(&self) -> &BTreeMap<String, String> {
        &self.values
    }

    /// How long the mapper has.
    pub fn within(&self) -> Duration {
        self.within
    }
}

/// The path of a device's calls at the node's own socket.
pub fn target(device: &DeviceName) -> String {
    format!("/{SEGMENT}/{device}")
}

/// The device of such a path; `None`: it is another path.
pub fn device_of(path: &str) -> Option<DeviceName> {
    path.strip_prefix('/')?.strip_prefix(SEGMENT)?.strip_prefix('/')?.parse().ok()
}

/// Where a call came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CallOrigin {
    /// From the cloud: by the Device's annotation.
    Cloud,
    /// From somebody on the node: at its socket.
    Node,
    /// From an MQTT client of the node.
    Mqtt,
}

impl CallOrigin {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            CallOrigin::Cloud => "cloud",
            CallOrigin::Node => "node",
            CallOrigin::Mqtt => "mqtt",
        }
    }

    /// The origin that a word is for.
    pub fn of_word(word: &str) -> Option<Self> {
        [CallOrigin::Cloud, CallOrigin::Node, CallOrigin::Mqtt]
            .into_iter()
            .find(|origin| origin.word() == word)
    }
}

/// How far a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallState {
    /// The mapper is doing it.
    Running,
    /// The mapper says that all of it is written.
    Done,
    /// Nothing of it went to the mapper.
    Refused,
    /// The mapper says that it is not, or not all of it, written.
    Failed,
    /// Nobody knows: the mapper gave no answer, or the node was restarted meanwhile. It is not repeated.
    Unknown,
}

impl CallState {
    const ALL: [CallState; 5] =
        [CallState::Running, CallState::Done, CallState::Refused, CallState::Failed, CallState::Unknown];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            CallState::Running => "Running",
            CallState::Done => "Done",
            CallState::Refused => "Refused",
            CallState::Failed => "Failed",
            CallState::Unknown => "Unknown",
        }
    }

    /// The state that a word is for.
    pub fn of_word(word: &str) -> Option<Self> {
        CallState::ALL.into_iter().find(|state| state.word() == word)
    }
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallOutcome {
    /// How far it is.
    pub state: CallState,
    /// KubeEdge's and HTTP's number of it: 200, or why not.
    pub code: u16,
    /// A sentence, at most [`MESSAGE_MAX`]; empty: there is nothing to say.
    pub message: String,
}

/// A sentence on a call within its bound, without what a terminal would obey.
pub fn sentence(text: &str) -> String {
    let mut text: String = text.chars().filter(|c| !c.is_control()).take(MESSAGE_MAX).collect();
    while text.len() > MESSAGE_MAX {
        text.pop();
    }
    text
}

/// A call of a device's method, as it stands in the DeviceStatus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRecord {
    /// The call's id.
    pub id: String,
    /// The method.
    pub method: String,
    /// What was to be written, by property.
    pub values: BTreeMap<String, String>,
    /// A word of [`CallOrigin`].
    pub by: String,
    /// A word of [`CallState`].
    pub state: String,
    /// A sentence on it.
    pub message: String,
    /// RFC 3339, when it came to this state, by the node's clock.
    pub time: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<MethodCall, MethodCallError> {
        MethodCall::read(json.as_bytes(), || "fresh".to_owned())
    }

    #[test]
    fn a_call_is_read_as_it_is_written_wherever_it_comes_from() {
        let call = read(r#"{"id":"7","method":"SetLevel","values":{"level":"5"}}"#).unwrap();
        assert_eq!((call.id(), call.method(), call.within()), ("7", "SetLevel", WITHIN));
        assert_eq!(read(&call.json()), Ok(call));
        let of_mqtt = r#"{"event_id":"e","timestamp":1,"method":"m","values":{"a":"1"},"within_ms":500}"#;
        let call = read(of_mqtt).unwrap();
        assert_eq!((call.id(), call.within()), ("e", Duration::from_millis(500)));
        assert_eq!(read(r#"{"method":"m","values":{"a":"1"}}"#).unwrap().id(), "fresh");
        let device = DeviceName::parse("default", "pump").unwrap();
        assert_eq!(device_of(&target(&device)), Some(device));
        for path in [
            "/devicemethod",
            "/devicemethod/d",
            "/devicemethod/d/p/x",
            "/devicemethod/d/../x",
            "/devicemethods/d/p",
        ] {
            assert_eq!(device_of(path), None, "{path}");
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_no_call_and_says_which_bound() {
        let call = |id: &str, method: &str, values: &[(&str, &str)], within| {
            let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            MethodCall::new(id, method, values.collect(), Duration::from_millis(within)).unwrap_err()
        };
        let one = [("a", "1")];
        assert_eq!(call("", "m", &one, 1), MethodCallError::Id);
        assert_eq!(call("ü", "m", &one, 1), MethodCallError::Id);
        assert_eq!(call(&"i".repeat(129), "m", &one, 1), MethodCallError::Id);
        assert_eq!(call("i", "", &one, 1), MethodCallError::Method);
        assert_eq!(call("i", "m\n", &one, 1), MethodCallError::Method);
        assert_eq!(call("i", "m", &[], 1), MethodCallError::Values(0));
        assert_eq!(call("i", "m", &[("a", "")], 1), MethodCallError::Value("a".to_owned()));
        assert_eq!(call("i", "m", &[("a", "1\r\n")], 1), MethodCallError::Value("a".to_owned()));
        assert_eq!(call("i", "m", &[("a", &"1".repeat(1024))], 1), MethodCallError::ValueBytes(1025));
        assert_eq!(
            (call("i", "m", &one, 0), call("i", "m", &one, 20_001)),
            (MethodCallError::Within, MethodCallError::Within)
        );
        let many: BTreeMap<_, _> = (0..17).map(|n| (n.to_string(), "1".to_owned())).collect();
        assert_eq!(MethodCall::new("i", "m", many, WITHIN), Err(MethodCallError::Values(17)));
        assert!(matches!(read(&" ".repeat(JSON_MAX + 1)), Err(MethodCallError::Length(_))));
        for json in ["", "null", "{}", r#"{"method":"m","values":{"a":1}}"#, &"[".repeat(10_000)] {
            assert!(matches!(read(json), Err(MethodCallError::Json(_))), "{json:.20}");
        }
    }

    #[test]
    fn words_are_read_back() {
        for state in CallState::ALL {
            assert_eq!(CallState::of_word(state.word()), Some(state));
        }
        assert_eq!((CallState::of_word("done"), CallOrigin::of_word("x")), (None, None));
        assert_eq!(CallOrigin::of_word("mqtt"), Some(CallOrigin::Mqtt));
    }
}
