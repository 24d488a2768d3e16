//! The keys of KubeEdge's files that KubeHive has no use for: its users' files are taken as they are, and what has no effect is
//! named.

use serde_json::Value;

use crate::cures;
use crate::error::Defect;

/// Of `edgecore.yaml`.
pub(crate) const EDGECORE: &str = include_str!("../kubeedge/edgecore.yaml");
/// Of `cloudcore.yaml`.
pub(crate) const CLOUDCORE: &str = include_str!("../kubeedge/cloudcore.yaml");

/// 64 characters of a value are shown.
const SHOWN_MAX: usize = 64;

/// A key of a file that KubeHive does not have.
pub(crate) struct Foreign {
    /// The dotted key.
    pub(crate) key: String,
    pub(crate) value: Value,
    /// The key of the same section, not in the file, that somebody may have meant.
    pub(crate) meant: Option<String>,
}

/// Sorts keys that KubeHive does not have: a sentence for those of KubeEdge's, a defect for the others.
pub(crate) fn sort(of_kubeedge: &str, foreign: Vec<Foreign>) -> (Vec<String>, Vec<Defect>) {
    if foreign.is_empty() {
        return (Vec::new(), Vec::new());
    }
    // A file of our own, held by a test.
    let known: Value = serde_saphyr::from_str(of_kubeedge).unwrap_or_default();
    let mut sorted = KeyFindings::default();
    for Foreign { key, value, meant } in foreign {
        match key_in(&known, &key) {
            Some(default) => {
                sorted.without_effect.push(format!("`{key}`"));
                sorted.compare(&key, default, &value);
            }
            None => sorted.unknown(&key, meant.as_deref()),
        }
    }
    let mut warnings = sorted.demands;
    if !sorted.without_effect.is_empty() {
        let names = sorted.without_effect.join(", ");
        warnings.push(format!("settings of KubeEdge's that have no effect in KubeHive: {names}"));
    }
    (warnings, sorted.unknown)
}

/// The value at a dotted key; a part may hold dots itself (`nodefs.available`).
fn key_in<'a>(tree: &'a Value, key: &str) -> Option<&'a Value> {
    let parts = tree.as_object()?;
    if let Some(found) = parts.get(key) {
        return Some(found);
    }
    parts.iter().find_map(|(part, below)| key_in(below, key.strip_prefix(part.as_str())?.strip_prefix('.')?))
}

#[derive(Default)]
struct KeyFindings {
    without_effect: Vec<String>,
    /// Sentences about values that ask for something.
    demands: Vec<String>,
    unknown: Vec<Defect>,
}

impl KeyFindings {
    fn unknown(&mut self, key: &str, meant: Option<&str>) {
        self.unknown.push(Defect::new(key, cures::unknown(meant)));
    }

    fn compare(&mut self, key: &str, default: &Value, value: &Value) {
        match (default, value) {
            // Anything may stand there.
            (Value::Null, _) | (_, Value::Null) => {}
            (Value::Object(defaults), Value::Object(given)) if !defaults.is_empty() => {
                for (part, value) in given {
                    let key = format!("{key}.{part}");
                    match defaults.get(part) {
                        Some(default) => self.compare(&key, default, value),
                        None => self.unknown(&key, None),
                    }
                }
            }
            (default, value) if default == value => {}
            (_, value) => {
                let shown: String = value.to_string().chars().take(SHOWN_MAX).collect();
                self.demands.push(format!("`{key}` is {shown}, and has no effect in KubeHive"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::CloudCore;
    use crate::edge::EdgeCore;

    fn tree(text: &str) -> Value {
        serde_saphyr::from_str(text).unwrap()
    }

    /// Every key of `ours` that `kubeedges` has as well, unless both are sections.
    fn common(at: &str, ours: &Value, kubeedges: &Value, found: &mut Vec<String>) {
        let (Some(ours), Some(kubeedges)) = (ours.as_object(), kubeedges.as_object()) else { return };
        for (key, theirs) in kubeedges {
            let at = format!("{at}.{key}");
            match ours.get(key) {
                Some(own) if own.is_object() && theirs.is_object() => common(&at, own, theirs, found),
                Some(_) => found.push(at),
                None => {}
            }
        }
    }

    #[test]
    fn no_key_of_ours_is_said_to_have_no_effect() {
        let mut found = Vec::new();
        common("", &serde_json::to_value(EdgeCore::default()).unwrap(), &tree(EDGECORE), &mut found);
        common("", &serde_json::to_value(CloudCore::default()).unwrap(), &tree(CLOUDCORE), &mut found);
        assert_eq!(found, [] as [String; 0]);
    }

    #[test]
    fn what_asks_for_something_has_a_sentence_and_what_nobody_knows_is_a_defect() {
        let foreign = |text: &str| {
            let Value::Object(parts) = tree(text) else { panic!("no mapping") };
            let foreign = parts.into_iter().map(|(key, value)| Foreign { key, value, meant: None });
            foreign.collect::<Vec<_>>()
        };
        let given = "{modules.dbTest: {enable: true}, modules.edgeStream.server: a, \
                     modules.edgeHub.token: secret, edgecoreVersion: v1.23.0}";
        let (said, unknown) = sort(EDGECORE, foreign(given));
        assert_eq!(unknown, []);
        assert_eq!(said.len(), 2, "{said:?}");
        assert_eq!(said[0], "`modules.dbTest.enable` is true, and has no effect in KubeHive");
        for name in
            ["modules.dbTest", "modules.edgeStream.server", "modules.edgeHub.token", "edgecoreVersion"]
        {
            assert!(said[1].contains(&format!("`{name}`")), "{name}: {said:?}");
        }
        assert!(!said.concat().contains("secret"));
        let (said, unknown) = sort(EDGECORE, foreign("{modules.dbTest: {enabel: true}, modules.edgd: 1}"));
        let keys: Vec<&str> = unknown.iter().map(|defect| defect.key.as_str()).collect();
        assert_eq!((keys, said.len()), (vec!["modules.dbTest.enabel", "modules.edgd"], 1));
    }
}
