//! The settings of a protocol: what `configData` holds.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use dmi::Scalar;
use prost_types::Any;

use crate::error::InvalidSetting;
use crate::quoting::shown;

/// 32 keys are told.
const TOLD: usize = 32;

/// What `configData` holds. Keys are found in any case, as KubeEdge's mappers find them, and numbers may be written as
/// text.
#[derive(Debug, Default)]
pub struct Settings {
    /// By the key in lower case: the key as written, and its value.
    found: BTreeMap<String, (String, Result<Scalar, InvalidSetting>)>,
    /// By the key in lower case, the keys that the protocol has read, to know which ones nobody understands.
    read: RefCell<BTreeMap<String, String>>,
}

impl Settings {
    /// From the wire. A value that is none is a defect of its key only.
    pub fn from_wire(data: &BTreeMap<String, Any>) -> Self {
        let found = data.iter().map(|(key, any)| {
            let value = Scalar::from_any(any)
                .map_err(|error| InvalidSetting::new(format!("setting `{key}` is not understood: {error}")));
            (key.to_ascii_lowercase(), (key.clone(), value))
        });
        Settings { found: found.collect(), read: RefCell::default() }
    }

    /// From plain values, for tests of a protocol.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, Scalar)>) -> Self {
        let found =
            pairs.into_iter().map(|(key, value)| (key.to_ascii_lowercase(), (key.to_owned(), Ok(value))));
        Settings { found: found.collect(), read: RefCell::default() }
    }

    /// A text. Numbers and booleans are texts, too.
    ///
    /// # Errors
    /// When the value is none.
    pub fn text(&self, key: &str) -> Result<Option<String>, InvalidSetting> {
        Ok(self.value(key)?.map(|value| value.to_string()).filter(|text| !text.is_empty()))
    }

    /// A whole number.
    ///
    /// # Errors
    /// When it is something else.
    pub fn whole(&self, key: &str) -> Result<Option<i64>, InvalidSetting> {
        let Some(value) = self.value(key)? else {
            return Ok(None);
        };
        let number = match value {
            Scalar::Int(number) => Some(*number),
            // KubeEdge sends every number as one with a fraction. 2^53 is where those stop to tell whole ones apart.
            #[allow(clippy::cast_possible_truncation)]
            Scalar::Float(number) => {
                (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0).then_some(*number as i64)
            }
            Scalar::Text(text) if text.is_empty() => return Ok(None),
            Scalar::Text(text) => text.trim().parse().ok(),
            Scalar::Bool(_) => None,
        };
        number.map(Some).ok_or_else(|| wrong(key, value, "a whole number"))
    }

    /// A whole number within bounds; `default` when it is not there.
    ///
    /// # Errors
    /// When it is something else, or beyond them.
    pub fn whole_within<T: TryFrom<i64>>(
        &self,
        key: &str,
        default: i64,
        bounds: RangeInclusive<i64>,
    ) -> Result<T, InvalidSetting> {
        let number = self.whole(key)?.unwrap_or(default);
        let inside = bounds.contains(&number).then(|| T::try_from(number).ok()).flatten();
        inside.ok_or_else(|| {
            let (least, most) = bounds.into_inner();
            InvalidSetting::new(format!(
                "setting `{key}` is {number}, which is not between {least} and {most}"
            ))
        })
    }

    /// A number.
    ///
    /// # Errors
    /// When it is something else.
    #[allow(clippy::cast_precision_loss)]
    pub fn number(&self, key: &str) -> Result<Option<f64>, InvalidSetting> {
        let Some(value) = self.value(key)? else {
            return Ok(None);
        };
        let number = match value {
            Scalar::Int(number) => Some(*number as f64),
            Scalar::Float(number) => Some(*number),
            Scalar::Text(text) if text.is_empty() => return Ok(None),
            Scalar::Text(text) => text.trim().parse().ok(),
            Scalar::Bool(_) => None,
        };
        number.filter(|number| number.is_finite()).map(Some).ok_or_else(|| wrong(key, value, "a number"))
    }

    /// true or false; false when it is not there.
    ///
    /// # Errors
    /// When it is something else.
    pub fn flag(&self, key: &str) -> Result<bool, InvalidSetting> {
        match self.value(key)? {
            None => Ok(false),
            Some(Scalar::Bool(yes)) => Ok(*yes),
            Some(Scalar::Text(text)) if text.is_empty() || text.eq_ignore_ascii_case("false") => Ok(false),
            Some(Scalar::Text(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(value) => Err(wrong(key, value, "true or false")),
        }
    }

    /// An object, which travels as the text of its JSON. Empty when it is not there.
    ///
    /// # Errors
    /// When it is something else.
    pub fn object(&self, key: &str) -> Result<serde_json::Map<String, serde_json::Value>, InvalidSetting> {
        let Some(text) = self.text(key)? else { return Ok(serde_json::Map::new()) };
        match serde_json::from_str(&text) {
            Ok(serde_json::Value::Object(object)) => Ok(object),
            _ => Err(InvalidSetting::new(format!("setting `{key}` is no object"))),
        }
    }

    /// Keys, as written, that the protocol has not read.
    pub fn unread_keys(&self) -> Vec<String> {
        let read = self.read.borrow();
        self.found
            .iter()
            .filter(|(key, _)| !read.contains_key(*key))
            .map(|(_, (written, _))| written.clone())
            .collect()
    }

    /// Keys that are understood and have no effect here: those of another kind of connection, or of KubeEdge's mapper.
    pub fn without_effect(&self, keys: &[&str]) {
        let mut read = self.read.borrow_mut();
        read.extend(keys.iter().map(|key| (key.to_ascii_lowercase(), (*key).to_owned())));
    }

    /// Refuses keys that the protocol has not read: who mistypes one means something, and gets something else.
    ///
    /// # Errors
    /// With the keys, and those that there are.
    pub(crate) fn check_unread(&self) -> Result<(), InvalidSetting> {
        self.unread().map_or(Ok(()), |said| Err(InvalidSetting::new(said)))
    }

    /// Says which keys the protocol has not read, where they may be somebody's own words, as KubeEdge's Devices have them.
    ///
    /// # Errors
    /// When one of them is nearly a known key that is not there: that is a slip, and the default in its place is somebody else's
    /// unit, or another device.
    pub(crate) fn note_unread(&self) -> Result<Option<String>, InvalidSetting> {
        for key in self.unread_keys() {
            if let Some(meant) = self.nearly(&key) {
                let key = shown(&key);
                return Err(InvalidSetting::new(format!("setting `{key}` is not known; write `{meant}`")));
            }
        }
        Ok(self.unread().map(|said| format!("{said}; it has no effect")))
    }

    /// The known key, not among those that are there, that somebody may have meant.
    fn nearly(&self, key: &str) -> Option<String> {
        let read = self.read.borrow();
        let absent = read.iter().filter(|(known, _)| !self.found.contains_key(*known));
        slips::meant(key, absent.map(|(_, shown)| shown.as_str())).map(str::to_owned)
    }

    fn unread(&self) -> Option<String> {
        let unread = self.unread_keys();
        let list = |keys: &mut dyn Iterator<Item = &String>| {
            let told: Vec<String> = keys.take(TOLD).map(|key| format!("`{}`", shown(key))).collect();
            told.join(", ")
        };
        if unread.is_empty() {
            return None;
        }
        let (unread, read) = (list(&mut unread.iter()), list(&mut self.read.borrow().values()));
        Some(format!("setting {unread} is not known; there are {read}"))
    }

    fn value(&self, asked: &str) -> Result<Option<&Scalar>, InvalidSetting> {
        let key = asked.to_ascii_lowercase();
        let found = match self.found.get(&key) {
            None => Ok(None),
            Some((_, Ok(value))) => Ok(Some(value)),
            Some((_, Err(refusal))) => Err(refusal.clone()),
        };
        self.read.borrow_mut().insert(key, asked.to_owned());
        found
    }
}

fn wrong(key: &str, value: &Scalar, wanted: &str) -> InvalidSetting {
    let shown = shown(&value.to_string());
    InvalidSetting::new(format!("setting `{key}` is `{shown}`, which is not {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::from_pairs([
            ("slaveID", Scalar::Float(7.0)),
            ("port", Scalar::Text("1502".to_owned())),
            ("scale", Scalar::Float(0.1)),
            ("isSwap", Scalar::Bool(true)),
            ("isRegisterSwap", Scalar::Text("False".to_owned())),
            ("half", Scalar::Float(0.5)),
            ("none", Scalar::Text(String::new())),
        ])
    }

    #[test]
    fn values_are_found_in_any_case_and_form() {
        let settings = settings();
        assert_eq!(settings.whole("slaveid"), Ok(Some(7)));
        assert_eq!(settings.whole("Port"), Ok(Some(1502)));
        assert_eq!(settings.text("port"), Ok(Some("1502".to_owned())));
        assert_eq!(settings.number("scale"), Ok(Some(0.1)));
        assert_eq!(settings.flag("isSwap"), Ok(true));
        assert_eq!(settings.flag("isRegisterSwap"), Ok(false));
        assert_eq!(settings.flag("absent"), Ok(false));
        assert_eq!(settings.whole("absent"), Ok(None));
        assert_eq!(settings.whole("none"), Ok(None));
        assert_eq!(settings.text("none"), Ok(None));
        assert_eq!(settings.unread_keys(), ["half"]);
    }

    #[test]
    fn what_is_wrong_says_which_and_why() {
        let settings = settings();
        let said = settings.whole("half").unwrap_err().to_string();
        assert_eq!(said, "setting `half` is `0.5`, which is not a whole number");
        assert!(settings.flag("port").is_err());
        assert!(settings.number("isSwap").is_err());
    }

    #[test]
    fn a_slip_is_refused_with_what_was_meant_and_a_word_of_somebodys_own_is_named() {
        let noted = |pairs: &[&'static str]| {
            let settings = Settings::from_pairs(pairs.iter().map(|key| (*key, Scalar::Int(5))));
            for key in ["ip", "port", "slaveID", "timeoutMs"] {
                settings.text(key).unwrap();
            }
            settings.without_effect(&["timeout"]);
            settings.note_unread().map_err(|refusal| refusal.to_string())
        };
        assert_eq!(noted(&["IP", "port", "SLAVEID", "timeout"]), Ok(None));
        for (slip, meant) in
            [("slavId", "slaveID"), ("slaveIDs", "slaveID"), ("prot", "port"), ("timeuotMs", "timeoutMs")]
        {
            assert_eq!(noted(&["ip", slip]), Err(format!("setting `{slip}` is not known; write `{meant}`")));
        }
        assert!(noted(&["id"]).unwrap().unwrap().contains("`id` is not known"), "too short for a slip");
        let said = noted(&["ip", "vendor", "unit"]).unwrap().unwrap();
        assert_eq!(
            said,
            "setting `unit`, `vendor` is not known; there are `ip`, `port`, `slaveID`, `timeout`, `timeoutMs`; it has no effect"
        );
        // What is meant is there already.
        assert!(noted(&["port", "prot"]).unwrap().unwrap().contains("`prot` is not known"));
        assert!(noted(&["x".repeat(100_000).leak()]).unwrap().unwrap().len() < 1000);
    }

    #[test]
    fn a_value_of_a_strange_type_spoils_only_its_key() {
        let data = BTreeMap::from([
            ("good".to_owned(), Scalar::Int(1).to_any()),
            ("bad".to_owned(), Any { type_url: "type.googleapis.com/x.Y".to_owned(), value: Vec::new() }),
        ]);
        let settings = Settings::from_wire(&data);
        assert_eq!(settings.whole("good"), Ok(Some(1)));
        assert!(settings.whole("bad").unwrap_err().to_string().contains("`bad`"));
    }
}
