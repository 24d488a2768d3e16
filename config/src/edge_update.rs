//! `edgecore.yaml` with other values: what `keadm config-update` and ConfigUpdateJobs make of it.

use std::path::Path;

use serde_json::Value;
use thiserror::Error;

use crate::capacity::{self, Capacity};
use crate::edge::EdgeCore;
use crate::error::{ConfigError, Defect, FILE_MAX};
use crate::values::{self, Edit};
use crate::{edge_text, kubeedge, load, remote};

/// Who wants other values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangedBy {
    /// Whoever has the machine: any.
    Administrator,
    /// A job of the cloud: those that decide how often, how much and how long.
    Job,
}

/// A file with other values.
#[derive(Debug, Clone, PartialEq)]
pub struct EdgeUpdate {
    /// What the file says then.
    pub text: String,
    /// The settings of it, as edgecore takes them.
    pub settings: EdgeCore,
    /// Whether what a person has written beside the values is still there.
    pub keeps_comments: bool,
}

/// Why a file gets no other values. Nothing is written in any case.
#[derive(Debug, Error)]
pub enum UpdateError {
    /// Keys that are none, or may not be changed, and values of another type.
    #[error("{}", told(.0))]
    Values(Vec<Defect>),
    /// The file as it is cannot be read, or is wrong.
    #[error("as it is, {0}")]
    Before(#[source] ConfigError),
    /// It would be wrong.
    #[error("with these values, {0}")]
    After(#[source] ConfigError),
    /// It would be longer than a file may be.
    #[error("with these values, it would have {0} bytes; at most {FILE_MAX} are read")]
    TooLarge(usize),
    /// It is written in a way that leaves no place for them.
    #[error("the values find no place in the file: write them there by hand")]
    NoPlace,
}

fn told(defects: &[Defect]) -> String {
    let lines: Vec<String> = defects.iter().map(|one| format!("`{}` {}", one.key, one.what)).collect();
    lines.join("; ")
}

impl EdgeUpdate {
    /// The file at `path` with `values` by their keys. `None`: it says so already. Blocks.
    ///
    /// # Errors
    /// See [`UpdateError`].
    pub fn of_file<'a>(
        path: &Path,
        values: impl IntoIterator<Item = (&'a str, &'a str)>,
        by: ChangedBy,
    ) -> Result<Option<EdgeUpdate>, UpdateError> {
        EdgeUpdate::of_text(path, &load::read(path).map_err(UpdateError::Before)?, values, by)
    }

    /// The same for what was read at `path`.
    ///
    /// # Errors
    /// See [`UpdateError`].
    pub fn of_text<'a>(
        path: &Path,
        text: &str,
        values: impl IntoIterator<Item = (&'a str, &'a str)>,
        by: ChangedBy,
    ) -> Result<Option<EdgeUpdate>, UpdateError> {
        let one = |defect| UpdateError::Values(vec![defect]);
        EdgeCore::of_text(path, text).map_err(UpdateError::Before)?;
        let before = as_written(path, text).map_err(UpdateError::Before)?;
        let mut tree = values::tree_of(&before).map_err(one)?;
        let edits = edits(&mut tree, values, by)?;
        let wanted = values::typed(tree).map_err(one)?;
        if wanted == before {
            return Ok(None);
        }
        let (text, keeps_comments) = rewritten(text, &edits).ok_or(UpdateError::NoPlace)?;
        if text.len() as u64 > FILE_MAX {
            return Err(UpdateError::TooLarge(text.len()));
        }
        // Whatever a value has in it: nothing but the values is another one by it.
        if as_written(path, &text).ok() != Some(wanted) {
            return Err(UpdateError::NoPlace);
        }
        let (settings, _) = EdgeCore::of_text(path, &text).map_err(UpdateError::After)?;
        if by == ChangedBy::Job && edits.iter().any(|edit| remote::is_reserving(&edit.path)) {
            let edged = &settings.modules.edged;
            let defects = capacity::beyond_half(edged, Capacity::of_machine(&edged.root_directory));
            if !defects.is_empty() {
                return Err(UpdateError::Values(defects));
            }
        }
        Ok(Some(EdgeUpdate { text, settings, keeps_comments }))
    }
}

/// The settings of a text, as they are written there.
fn as_written(path: &Path, text: &str) -> Result<EdgeCore, ConfigError> {
    Ok(load::parse::<EdgeCore>(path, text, kubeedge::EDGECORE)?.config)
}

fn edits<'a>(
    tree: &mut Value,
    values: impl IntoIterator<Item = (&'a str, &'a str)>,
    by: ChangedBy,
) -> Result<Vec<Edit>, UpdateError> {
    let defaults =
        values::tree_of(&EdgeCore::default()).map_err(|defect| UpdateError::Values(vec![defect]))?;
    let (mut edits, mut defects) = (Vec::new(), Vec::new());
    for (key, value) in values {
        match values::set(tree, &defaults, key, value) {
            Ok(set) => edits.extend(set),
            Err(defect) => defects.push(defect),
        }
    }
    if by == ChangedBy::Job {
        for edit in &edits {
            if let Some(why) = remote::refusal(&edit.path, &edit.value) {
                let what = format!("{why}; `keadm config-update` on the node does it");
                defects.push(Defect::new(&edit.path.join("."), what));
            }
        }
    }
    if defects.is_empty() { Ok(edits) } else { Err(UpdateError::Values(defects)) }
}

/// The text with the edits, and whether what stands beside the values is still there; `None`: it has no place for one.
fn rewritten(text: &str, edits: &[Edit]) -> Option<(String, bool)> {
    let mut wanted = match load::yaml_document(text).ok()? {
        Value::Null => Value::Object(serde_json::Map::new()),
        tree => tree,
    };
    for edit in edits {
        put(&mut wanted, &edit.path, &edit.value)?;
    }
    let edited = edge_text::edited(text, edits);
    if let Some(edited) = edited.filter(|edited| load::yaml_document(edited).is_ok_and(|tree| tree == wanted))
    {
        return Some((edited, true));
    }
    Some((serde_saphyr::to_string(&wanted).ok()?, false))
}

fn put(tree: &mut Value, path: &[String], value: &Value) -> Option<()> {
    let Some((first, below)) = path.split_first() else {
        tree.clone_from(value);
        return Some(());
    };
    if tree.is_null() {
        *tree = Value::Object(serde_json::Map::new());
    }
    put(tree.as_object_mut()?.entry(first.clone()).or_insert(Value::Null), below, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::DEFAULT_FILE;

    const PATH: &str = "/etc/kubehive/edgecore.yaml";

    fn update(text: &str, values: &[(&str, &str)], by: ChangedBy) -> Result<Option<EdgeUpdate>, String> {
        let updated = EdgeUpdate::of_text(Path::new(PATH), text, values.iter().copied(), by);
        updated.map_err(|error| error.to_string())
    }

    fn by_job(text: &str, values: &[(&str, &str)]) -> Result<Option<EdgeUpdate>, String> {
        update(text, values, ChangedBy::Job)
    }

    #[test]
    fn one_line_of_the_annotated_file_is_another_one_and_no_other() {
        let values = [
            ("modules.edgeHub.heartbeat", "20"),
            (r"modules.edged.tailoredKubeletConfig.evictionHard.memory\.available", "5%"),
        ];
        let updated = by_job(DEFAULT_FILE, &values).unwrap().unwrap();
        assert!(updated.keeps_comments);
        let (before, after): (Vec<&str>, Vec<&str>) =
            (DEFAULT_FILE.lines().collect(), updated.text.lines().collect());
        assert_eq!(before.len(), after.len());
        let changed: Vec<&str> = after
            .iter()
            .zip(&before)
            .filter(|(after, before)| after != before)
            .map(|(after, _)| *after)
            .collect();
        assert_eq!(changed, ["        memory.available: \"5%\"", "    heartbeat: 20"]);
        assert_eq!(updated.settings.modules.edge_hub.heartbeat, 20);
        assert_eq!(by_job(&updated.text, &values).unwrap(), None, "it says so already");
        // However it is written, and though it stands nowhere: what counts is what it means.
        assert_eq!(by_job("", &[("modules.edgeHub.heartbeat", "10")]).unwrap(), None);
        assert_eq!(by_job(DEFAULT_FILE, &[("modules.edged.minimumGCAge", "0m")]).unwrap(), None);
    }

    #[test]
    fn a_file_that_is_written_otherwise_says_the_same_afterwards() {
        for (text, keeps) in [
            ("", true),
            ("# nothing yet\n", true),
            ("modules:\n  edgeHub:\n", true),
            ("modules:\n  edgeHub: {quic: {server: 'a:1'}}\n", false),
            ("modules: {edgeHub: {quic: {server: 'a:1'}}}\n", false),
            ("modules:\n  eventBus: &e\n    mqttQOS: 0\n  edgeHub:\n    quic: {server: 'a:1'}\n", true),
            ("---\nmodules:\n  edgeHub:\n    \"heartbeat\": 9 # nine\n", true),
            ("modules:\r\n  edgeHub:\r\n    heartbeat: 9\r\n", true),
        ] {
            let before = as_written(Path::new(PATH), text).unwrap();
            let updated = by_job(text, &[("modules.edgeHub.heartbeat", "20")]).unwrap().unwrap();
            let mut wanted = before;
            wanted.modules.edge_hub.heartbeat = 20;
            assert_eq!(as_written(Path::new(PATH), &updated.text).unwrap(), wanted, "{text}");
            assert_eq!(updated.keeps_comments, keeps, "{text}: {}", updated.text);
        }
    }

    #[test]
    fn no_value_says_anything_else_in_the_file() {
        for value in [
            "x\n  edgeHub:\n    heartbeat: 1",
            "\"\nkind: CloudCore\n\"",
            "&a x",
            "*a",
            "!!binary aGk=",
            "|",
            "> ",
            "# none",
            "a: b",
            "{a: b}",
            "- x",
            "'",
            "\"",
            "\\",
            "null",
            "~",
            "true",
            "1e3",
            "0x10",
            "é\u{85}\u{2028}\u{feff}😀",
            "\u{7f}\u{1b}[31m",
        ] {
            // A text of which nothing is asked.
            let values = [("modules.edged.tailoredKubeletConfig.clusterDomain", value)];
            let updated = update(DEFAULT_FILE, &values, ChangedBy::Administrator).unwrap().unwrap();
            let mut wanted = EdgeCore::default();
            wanted.modules.edged.tailored_kubelet_config.cluster_domain = value.to_owned();
            assert_eq!(updated.settings, wanted, "{value:?}");
        }
        // The same as a key.
        for key in ["a: b", "\n", "#", "- ", "&a", "\"", "", "<<", "~"] {
            let values = [(format!("modules.edged.nodeLabels.{key}"), "x".to_owned())];
            let values: Vec<(&str, &str)> =
                values.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            // Most are no labels.
            if let Ok(updated) = update(DEFAULT_FILE, &values, ChangedBy::Administrator) {
                let labels = updated.unwrap().settings.modules.edged.node_labels;
                assert_eq!(labels, [(key.to_owned(), "x".to_owned())].into(), "{key:?}");
            }
        }
    }

    #[test]
    fn what_a_job_may_not_change_is_named_with_the_reason_and_all_faults_at_once() {
        let values = [
            ("modules.edgeHub.heartbeat", "often"),
            ("modules.edgeHub", r#"{"quic": {"server": "evil.example:1"}, "tlsCaFile": "/tmp/ca.crt"}"#),
            ("modules.edgeHub.heartbeet", "20"),
            ("modules.edged.tailoredKubeletConfig.staticPodPath", "/tmp"),
        ];
        let error = by_job(DEFAULT_FILE, &values).unwrap_err();
        for said in [
            "`modules.edgeHub.heartbeat` is to be `often`",
            "`modules.edgeHub.heartbeet` is no setting",
            "`modules.edgeHub.quic.server` may be changed by no job: it decides to which cloud the node belongs",
            "`modules.edgeHub.tlsCaFile` may be changed by no job",
            "`modules.edged.tailoredKubeletConfig.staticPodPath` may be changed by no job: it would have the machine run programs",
        ] {
            assert!(error.contains(said), "{said}: {error}");
        }
        assert!(update(DEFAULT_FILE, &values[3..], ChangedBy::Administrator).unwrap().is_some());
        // Also what would change nothing: nobody learns by it what stands there.
        assert!(by_job(DEFAULT_FILE, &[("modules.eventBus.mqttUsername", "")]).is_err());
    }

    #[test]
    fn a_job_leaves_pods_a_half_of_the_machine() {
        let memory = Capacity::of_machine(Path::new("/")).memory.unwrap();
        let key = "modules.edged.tailoredKubeletConfig.kubeReserved.memory";
        let reserved = |percent: u64, by| {
            let amount = (memory / 100 * percent).to_string();
            update(DEFAULT_FILE, &[(key, &amount)], by).map(|updated| updated.is_some())
        };
        assert_eq!(reserved(25, ChangedBy::Job), Ok(true));
        let why = reserved(60, ChangedBy::Job).unwrap_err();
        assert!(why.contains("kubeReserved.memory` is too much") && why.contains("a job may keep"), "{why}");
        assert_eq!(reserved(60, ChangedBy::Administrator), Ok(true));
        let left = r"modules.edged.tailoredKubeletConfig.evictionHard.memory\.available";
        assert!(by_job(DEFAULT_FILE, &[(left, "99%")]).unwrap_err().contains("no more than 50%"));
        let quarter = (memory / 4).to_string();
        let both = by_job(DEFAULT_FILE, &[(left, "45%"), (key, &quarter)]).unwrap_err();
        assert!(both.contains("is too much") && both.contains("evictionHard.memory.available"), "{both}");
    }

    #[test]
    fn what_would_not_load_is_refused() {
        let never = [("modules.edgeHub.heartbeat", "0")];
        assert!(by_job(DEFAULT_FILE, &never).unwrap_err().contains("may be 1 to 60 by a job"));
        let error = update(DEFAULT_FILE, &never, ChangedBy::Administrator).unwrap_err();
        assert!(
            error.starts_with("with these values, ") && error.contains("`modules.edgeHub.heartbeat` is 0"),
            "{error}"
        );
        let error =
            by_job(DEFAULT_FILE, &[("modules.edged.tailoredKubeletConfig.topologyManagerPolicy", "any")])
                .unwrap_err();
        assert!(
            error.contains("`modules.edged.tailoredKubeletConfig.topologyManagerPolicy` is not understood"),
            "{error}"
        );
        let error =
            by_job("modules: {edgeHub: {heartbeet: 1}}", &[("modules.edgeHub.heartbeat", "20")]).unwrap_err();
        assert!(error.starts_with("as it is, ") && error.contains("heartbeet"), "{error}");
        let long = "x".repeat(1 << 20);
        let error =
            update("", &[("modules.edged.nodeLabels.a", &long)], ChangedBy::Administrator).unwrap_err();
        assert!(error.contains("at most 1048576 are read"), "{error}");
    }
}
