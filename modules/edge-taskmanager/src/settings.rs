//! Whether the node's settings can have the values that a job wants.

use std::collections::BTreeMap;

use config::edge::EdgeCore;
use config::{ChangedBy, EdgeUpdate, UpdateError};
use contract::node_task;

use crate::upgrade::NodePrograms;

/// Holds `edgecore.yaml` against these values by their keys, and answers whether it is to have others. Blocks.
///
/// # Errors
/// A sentence, which names the keys that are none or no job's to change, what is wrong with a value, or what is wrong with the file.
pub(crate) fn examine(programs: &NodePrograms, fields: &BTreeMap<String, String>) -> Result<bool, String> {
    let shown = programs.config.display();
    // What stands there is no business of whoever makes jobs: a line of it may be a password.
    let wrong =
        || format!("{shown} is wrong as it is: `edgecore --config {shown}` on this machine says what");
    let values = fields.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let updated = EdgeUpdate::of_file(&programs.config, values, ChangedBy::Job);
    let updated = updated.map_err(|error| match error {
        UpdateError::Before(_) => wrong(),
        error => node_task::sentence(&error.to_string()),
    })?;
    if let Some(update) = &updated {
        let fits = (programs.fits)(&update.settings);
        fits.map_err(|why| {
            node_task::sentence(&format!("with these values, edgecore would not start: {why}"))
        })?;
    }
    let now = EdgeCore::load(&programs.config).map_err(|_| wrong())?;
    if now != *programs.settings {
        // A restart would try what somebody has not finished, and the way back would lead there, too.
        return Err(format!(
            "{shown} was changed on this machine since edgecore started: restart edgecore there, or take the change back"
        ));
    }
    Ok(updated.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::sync::Arc;

    #[test]
    fn what_a_job_wants_is_held_against_the_file_and_what_edgecore_was_started_with() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("edgecore.yaml");
        let store = folder.path().join("edgecore.db");
        let text = |heartbeat: u32| {
            format!(
                "database: {{dataSource: {}}}\nmodules:\n  edgeHub:\n    heartbeat: {heartbeat}\n",
                store.display()
            )
        };
        fs::write(&config, text(15)).unwrap();
        let settings = Arc::new(EdgeCore::load(&config).unwrap());
        let (keadm, runtime_endpoint) = ("/nowhere".into(), String::new());
        let too_many = |wanted: &EdgeCore| match wanted.modules.edge_hub.heartbeat {
            50 => Err("the machine has no 50".to_owned()),
            _ => Ok(()),
        };
        let programs = NodePrograms {
            keadm,
            config: config.clone(),
            store: store.clone(),
            runtime_endpoint,
            settings,
            fits: too_many,
        };
        let examined =
            |key: &str, value: &str| examine(&programs, &[(key.to_owned(), value.to_owned())].into());
        assert_eq!(examined("modules.edgeHub.heartbeat", "20"), Ok(true));
        assert_eq!(examined("modules.edgeHub.heartbeat", "15"), Ok(false));
        for (key, value, said) in [
            ("modules.edgeHub.heartbeet", "20", "`modules.edgeHub.heartbeet` is no setting"),
            ("modules.edgeHub.heartbeat", "soon", "`modules.edgeHub.heartbeat` is to be `soon`"),
            ("modules.edgeHub.heartbeat", "0", "may be 1 to 60 by a job"),
            ("modules.edgeHub.heartbeat", "50", "edgecore would not start: the machine has no 50"),
            ("modules.edged.tailoredKubeletConfig.imageGCLowThresholdPercent", "90", "with these values, "),
            (
                "modules.edgeHub.quic.server",
                "evil.example:1",
                "may be changed by no job: it decides to which cloud",
            ),
            ("modules.taskManager.enable", "false", "may be changed by no job"),
        ] {
            let why = examined(key, value).unwrap_err();
            assert!(why.contains(said), "{key}: {why}");
        }
        fs::write(&config, format!("# a comment is no change\n{}", text(15))).unwrap();
        assert_eq!(examined("modules.edgeHub.heartbeat", "20"), Ok(true));
        fs::write(&config, text(16)).unwrap();
        for heartbeat in ["20", "16"] {
            let why = examined("modules.edgeHub.heartbeat", heartbeat).unwrap_err();
            assert!(why.contains("since edgecore started"), "{why}");
        }
        fs::remove_file(&config).unwrap();
        assert!(examined("modules.edgeHub.heartbeat", "20").unwrap_err().contains("is wrong as it is"));
        fs::write(&config, "modules:\n  eventBus:\n    mqttPassword: hush\n   x: [\n").unwrap();
        let why = examined("modules.edgeHub.heartbeat", "20").unwrap_err();
        assert!(why.contains("is wrong as it is") && !why.contains("hush"), "{why}");
    }
}
