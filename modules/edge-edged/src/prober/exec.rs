//! A command in a container.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cri::Runtime;
use cri::v1::ExecSyncResponse;
use k8s_openapi::api::core::v1::Container;

use crate::prober::{Answer, Tried, cut};
use crate::runtime::expansion::{ArgumentSpace, TooLong};

/// The command of a probe: `$(VAR)` stands for variables that the container's spec gives literally.
///
/// # Errors
/// No process takes so much.
pub(crate) fn static_command(
    command: Option<&[String]>,
    container: &Container,
) -> Result<Vec<String>, TooLong> {
    let own = container.env.iter().flatten();
    let known: BTreeMap<&str, &str> =
        own.filter_map(|variable| Some((variable.name.as_str(), variable.value.as_deref()?))).collect();
    let mut space = ArgumentSpace::new();
    let parts = command.iter().copied().flatten();
    parts.map(|part| space.expand(part, |name| known.get(name).copied())).collect()
}

/// Runs it. No success: it ended with another code than 0, or not in time.
pub(super) async fn probe(
    runtime: &Arc<dyn Runtime>,
    container: &str,
    command: &[String],
    limit: Duration,
) -> Tried {
    match runtime.exec_sync(container, command.to_vec(), limit).await {
        Ok(done) if done.exit_code == 0 => Ok(Answer::Success),
        Ok(done) => Ok(Answer::Failure(cut(&output(&done)))),
        Err(cri::Error::Deadline { .. }) => {
            let (command, limit) = (command.join(" "), limit.as_secs());
            Ok(Answer::Failure(format!("command timed out: {command:?} timed out after {limit}s")))
        }
        Err(error) => Err(error.grpc_text().into()),
    }
}

/// What a command printed, what it said to stderr last.
fn output(done: &ExecSyncResponse) -> Vec<u8> {
    [done.stdout.as_slice(), done.stderr.as_slice()].concat()
}

/// That a hook's command ended with an error: what is said of it, and what it printed.
pub(crate) fn command_failed(command: &[String], done: &ExecSyncResponse) -> (String, String) {
    let text = cut(&done.stderr);
    let error = format!("command '{}' exited with {}: {text}", command.join(" "), done.exit_code);
    (error, cut(&output(done)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_literal_variables_are_expanded() {
        let container: Container = serde_json::from_value(json!({"name": "c", "env": [
            {"name": "A", "value": "one"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}))
        .unwrap();
        let command = ["sh".to_owned(), "$(A) $(B) $$(A)".to_owned()];
        assert_eq!(static_command(Some(&command), &container).unwrap(), ["sh", "one $(B) $(A)"]);
    }
}
