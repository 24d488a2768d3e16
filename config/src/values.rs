//! Values of `edgecore.yaml` by their dotted keys, as `--set` and ConfigUpdateJobs name them: strict, and typed by what stands there.

use serde_json::Value;

use crate::cures::{self, Written};
use crate::edge::EdgeCore;
use crate::error::Defect;

/// 64 characters of a value are shown.
const SHOWN_MAX: usize = 64;

/// A value at its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Edit {
    /// The keys of the sections on the way, and its own.
    pub(crate) path: Vec<String>,
    pub(crate) value: Value,
}

impl EdgeCore {
    /// These settings with other values by their keys: as in a file, a section that is given in part keeps the rest, and the keys of one
    /// that is empty by default, as labels, are the user's own. Nothing is validated beyond its type.
    ///
    /// # Errors
    /// The first key that is none, or whose value is not of its type.
    pub fn with<'a>(&self, values: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<EdgeCore, Defect> {
        let mut tree = tree_of(self)?;
        let defaults = tree_of(&EdgeCore::default())?;
        for (key, value) in values {
            set(&mut tree, &defaults, key, value)?;
        }
        typed(tree)
    }
}

pub(crate) fn tree_of(settings: &EdgeCore) -> Result<Value, Defect> {
    serde_json::to_value(settings).map_err(|error| Defect::new("", error.to_string()))
}

/// The settings that a tree says.
pub(crate) fn typed(tree: Value) -> Result<EdgeCore, Defect> {
    serde_path_to_error::deserialize(tree).map_err(|error| {
        let key = error.path().to_string();
        Defect::new(&key, format!("is not understood: {}", error.into_inner()))
    })
}

/// Sets one value, and answers what changes by it, value by value.
pub(crate) fn set(tree: &mut Value, defaults: &Value, key: &str, value: &str) -> Result<Vec<Edit>, Defect> {
    let path = key_parts(key);
    let mut edits = Vec::new();
    if let Some(location) = at_mut(tree, &path) {
        let given = match location {
            Value::String(_) => Value::from(value),
            _ => serde_json::from_str(value).map_err(|_| of_another_type(key, value, at(defaults, &path)))?,
        };
        lay(location, at(defaults, &path), given, &path, &mut edits)?;
        return Ok(edits);
    }
    let (name, section) =
        path.split_last().map_or(("", [].as_slice()), |(name, section)| (name.as_str(), section));
    match at_mut(tree, section) {
        Some(Value::Object(own)) if !section.is_empty() && is_users(at(defaults, section)) => {
            own.insert(name.to_owned(), Value::from(value));
            Ok(vec![Edit { path, value: Value::from(value) }])
        }
        _ => Err(unknown(defaults, &path)),
    }
}

/// Names the first key on the way that is none. What is meant is looked for among all that there are, and never among what the file has
/// of the user's own.
fn unknown(defaults: &Value, path: &[String]) -> Defect {
    let mut section = defaults;
    for (depth, part) in path.iter().enumerate() {
        match section.as_object().map(|own| (own, own.get(part))) {
            Some((_, Some(below))) => section = below,
            Some((own, None)) => {
                let key = path.get(..=depth).unwrap_or_default().join(".");
                return Defect::new(&key, cures::of_unknown(part, own.keys().map(String::as_str)));
            }
            None => break,
        }
    }
    Defect::new(&path.join("."), cures::unknown(None))
}

/// The kind of its default stands in it, and never what is there now: whoever asks may not read that.
fn of_another_type(key: &str, value: &str, default: Option<&Value>) -> Defect {
    let shown: String = value.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    let wanted = default.and_then(|default| cures::wanted(default, value, Written::Json));
    let cure = wanted.map_or_else(String::new, |wanted| format!("; {wanted}"));
    Defect::new(key, format!("is to be `{shown}`, which is not of its type{cure}"))
}

/// A mapping whose keys are the user's own.
fn is_users(default: Option<&Value>) -> bool {
    default.and_then(Value::as_object).is_some_and(serde_json::Map::is_empty)
}

fn lay(
    location: &mut Value,
    default: Option<&Value>,
    given: Value,
    path: &[String],
    edits: &mut Vec<Edit>,
) -> Result<(), Defect> {
    match (location, given) {
        (Value::Object(own), Value::Object(given)) if !is_users(default) => {
            for (name, value) in given {
                let below: Vec<String> = path.iter().cloned().chain([name.clone()]).collect();
                let Some(location) = own.get_mut(&name) else {
                    let known = default.and_then(Value::as_object).into_iter().flatten();
                    let known = known.map(|(known, _)| known.as_str());
                    return Err(Defect::new(&below.join("."), cures::of_unknown(&name, known)));
                };
                lay(location, default.and_then(|own| own.get(&name)), value, &below, edits)?;
            }
        }
        (location, given) => {
            location.clone_from(&given);
            edits.push(Edit { path: path.to_owned(), value: given });
        }
    }
    Ok(())
}

/// What stands at a path.
pub(crate) fn at<'a>(tree: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(tree, |section, part| section.as_object()?.get(part))
}

fn at_mut<'a>(tree: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter().try_fold(tree, |section, part| section.as_object_mut()?.get_mut(part))
}

/// The parts of a key as Helm writes it: dots between them, `\.` for a dot inside of one.
pub fn key_parts(key: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut letters = key.chars();
    while let Some(letter) = letters.next() {
        match (letter, parts.last_mut()) {
            ('.', _) => parts.push(String::new()),
            ('\\', Some(part)) => part.extend(letters.next()),
            (other, Some(part)) => part.push(other),
            (_, None) => {}
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_hold_dots() {
        assert_eq!(key_parts("modules.edged.nodeIP"), ["modules", "edged", "nodeIP"]);
        assert_eq!(key_parts("a.evictionHard.nodefs\\.available"), ["a", "evictionHard", "nodefs.available"]);
        assert_eq!(key_parts("labels.x/y~z\\"), ["labels", "x/y~z"]);
    }

    #[test]
    fn a_section_that_is_given_in_part_keeps_the_rest_and_each_value_is_told_apart() {
        let defaults = tree_of(&EdgeCore::default()).unwrap();
        let mut tree = defaults.clone();
        let edits = set(
            &mut tree,
            &defaults,
            "modules",
            r#"{"edgeHub": {"heartbeat": 20, "quic": {"server": "a:1"}}}"#,
        );
        let paths: Vec<String> = edits.unwrap().iter().map(|edit| edit.path.join(".")).collect();
        assert_eq!(paths, ["modules.edgeHub.heartbeat", "modules.edgeHub.quic.server"]);
        let settings = typed(tree).unwrap();
        let mut wanted = EdgeCore::default();
        wanted.modules.edge_hub.heartbeat = 20;
        wanted.modules.edge_hub.quic.server = "a:1".to_owned();
        assert_eq!(settings, wanted);
        let labels = [("modules.edged.nodeLabels.a/b", "1"), ("modules.edged.nodeLabels.c\\.d", "true")];
        let labels = EdgeCore::default().with(labels).unwrap().modules.edged.node_labels;
        assert_eq!(
            labels,
            [("a/b".to_owned(), "1".to_owned()), ("c.d".to_owned(), "true".to_owned())].into()
        );
    }

    #[test]
    fn what_is_no_key_or_of_another_type_is_named() {
        for (key, value, said) in [
            (
                "modules.edgeHub.heartbeet",
                "20",
                "`modules.edgeHub.heartbeet` is no setting: write `heartbeat`",
            ),
            (
                "modules.edgHub.heartbeat",
                "20",
                "`modules.edgHub` is no setting: write `edgeHub`, or remove it",
            ),
            ("modules.edged.tailoredKubeletConfig.clusterDns", "x", "is no setting: write `clusterDNS`"),
            ("modules.nothing.at.all", "20", "`modules.nothing` is no setting: correct its name"),
            ("", "20", "`` is no setting"),
            ("modules.edgeHub.heartbeat.x", "20", "is no setting"),
            ("modules.edgeHub.heartbeat", "often", "`often`, which is not of its type; write a whole number"),
            ("modules.edgeHub.heartbeat", "20, \"quic\": {}", "not of its type"),
            ("modules.edgeHub.heartbeat", "-1", "`modules.edgeHub.heartbeat` is not understood"),
            ("modules.edgeHub.heartbeat", "null", "is not understood"),
            ("modules.edgeHub", r#"{"quik": 1}"#, "`modules.edgeHub.quik` is no setting: write `quic`"),
            ("modules.edgeHub", "null", "`modules.edgeHub` is not understood"),
            (
                "modules.edged.tailoredKubeletConfig.clusterDNS",
                "10.0.0.1",
                r#"not of its type; write a list, ["10.0.0.1"]"#,
            ),
        ] {
            let Defect { key, what } = EdgeCore::default().with([(key, value)]).unwrap_err();
            assert!(format!("`{key}` {what}").contains(said), "{key}: {what}");
        }
        let secret = EdgeCore::default().with([("modules.eventBus.mqttPassword", "hush")]).unwrap();
        for value in ["x", "1", "[]", "null", "{}, {}", r#"{"mqttPassword": 1}"#, r#"{"x": 1}"#] {
            if let Err(Defect { what, .. }) = secret.with([("modules.eventBus", value)]) {
                assert!(!what.contains("hush"), "{value}: {what}");
            }
        }
    }
}
