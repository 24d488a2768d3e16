//! `keadm ctl restart pod`: the containers of a pod end in order, with their hooks and their grace, and begin again by its policy.

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::node_socket::{self, OfNode};

/// Which pods begin again.
#[derive(Args)]
pub struct RestartPods {
    /// Their names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Their namespace
    #[arg(short = 'n', long, default_value = "default")]
    namespace: String,
    #[command(flatten)]
    node: OfNode,
}

pub(crate) async fn restart(order: &RestartPods, say: &mut dyn FnMut(String)) -> Result<()> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    if !is_name(&order.namespace) {
        bail!("`{}` is no namespace", order.namespace.escape_debug());
    }
    let path = format!("/api/v1/namespaces/{}/pods/restart", order.namespace);
    let (status, said) = node_socket::post(&order.node, &path, json!(order.names).to_string()).await?;
    if status != 200 {
        return Err(node_socket::refusal(status, &said));
    }
    let said: Vec<Value> = serde_json::from_str(&said).context("what edgecore says is no JSON")?;
    outcome(&said, say)
}

/// Says of each pod what became of it.
fn outcome(said: &[Value], say: &mut dyn FnMut(String)) -> Result<()> {
    let mut refused = Vec::new();
    for own in said {
        let name = own["name"].as_str().unwrap_or_default();
        match own["error"].as_str() {
            None => say(format!("pod/{name} restarts: its containers end, and begin again")),
            Some(why) => refused.push(format!("pod/{name} cannot restart: {why}")),
        }
    }
    if refused.is_empty() {
        return Ok(());
    }
    bail!("{}", refused.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pod_is_told_of_and_one_that_is_refused_is_a_failure() {
        let mut lines = Vec::new();
        let said = [json!({"name": "a", "error": null}), json!({"name": "b", "error": "nothing of it runs"})];
        let error = outcome(&said, &mut |line| lines.push(line)).unwrap_err();
        assert_eq!(lines, ["pod/a restarts: its containers end, and begin again"]);
        assert_eq!(error.to_string(), "pod/b cannot restart: nothing of it runs");
        assert!(outcome(&said[..1], &mut |_| {}).is_ok());
    }
}
