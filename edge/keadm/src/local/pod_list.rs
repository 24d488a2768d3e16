//! The node's pods, as edgecore has them with the status that it reported last.

use std::collections::BTreeSet;
use std::io::Write as _;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::label_selector;
use crate::node_socket::{self, OfNode};

/// 64 MiB: a node has some hundred pods, and one has 1.5 MiB at the most.
const PODS_MAX: usize = 64 << 20;

/// Which objects are meant.
#[derive(Args)]
pub(crate) struct Which {
    /// Their names; all if left out
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Their namespace
    #[arg(short = 'n', long, default_value = "default")]
    pub(crate) namespace: String,
    /// Those of all namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Only those with such labels: `app=till,tier in (front,back)`
    #[arg(short = 'l', long)]
    pub(crate) selector: Option<String>,
    /// Where edgecore is asked.
    #[command(flatten)]
    pub(crate) node: OfNode,
}

impl Which {
    /// Of all objects those that are meant, by namespace and name.
    ///
    /// # Errors
    /// When what is asked makes no sense, or one that is named is not there.
    pub(crate) fn of(&self, kind: &str, mut all: Vec<Value>) -> Result<Vec<Value>> {
        if !self.names.is_empty() && (self.all_namespaces || self.selector.is_some()) {
            bail!("a name goes with neither --all-namespaces nor --selector");
        }
        all.sort_by_cached_key(|object| {
            (text(object, "/metadata/namespace"), text(object, "/metadata/name"))
        });
        all.retain(|object| self.all_namespaces || text(object, "/metadata/namespace") == self.namespace);
        if let Some(selector) = &self.selector {
            let selector = label_selector::parse(selector)?;
            all.retain(|object| selector.matches(object));
        }
        if self.names.is_empty() {
            return Ok(all);
        }
        let there: BTreeSet<String> = all.iter().map(|object| text(object, "/metadata/name")).collect();
        let missing: Vec<&str> =
            self.names.iter().filter(|name| !there.contains(*name)).map(String::as_str).collect();
        if !missing.is_empty() {
            let names = missing.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
            let are = if missing.len() > 1 { "are" } else { "is" };
            bail!("{kind} {names} of namespace {} {are} not on this node", self.namespace);
        }
        all.retain(|object| self.names.contains(&text(object, "/metadata/name")));
        Ok(all)
    }

    /// Says that there is none: beside the standard output, as kubectl does.
    pub(crate) fn say_nothing(&self) {
        let mut out = std::io::stderr();
        let _ = match self.all_namespaces {
            true => writeln!(out, "No resources found"),
            false => writeln!(out, "No resources found in {} namespace.", self.namespace),
        };
    }
}

/// A text of an object; empty: there is none.
pub(crate) fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The elements of a list of an object.
pub(crate) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// All pods of the node.
///
/// # Errors
/// When edgecore does not answer at its socket.
pub(crate) async fn pods(node: &OfNode) -> Result<Vec<Value>> {
    let (status, said) = node_socket::get(node, "/pods", PODS_MAX).await?;
    if status != 200 {
        return Err(node_socket::refusal(status, &said));
    }
    let mut list: Value = serde_json::from_str(&said).context("what edgecore says of its pods is no JSON")?;
    let mut pods = match list["items"].take() {
        Value::Array(pods) => pods,
        // A kubelet without pods says null.
        _ => Vec::new(),
    };
    for pod in &mut pods {
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
    }
    Ok(pods)
}

/// One pod of the node.
///
/// # Errors
/// When edgecore does not answer at its socket, or has no such pod.
pub(crate) async fn pod(node: &OfNode, namespace: &str, name: &str) -> Result<Value> {
    let found = pods(node)
        .await?
        .into_iter()
        .find(|pod| text(pod, "/metadata/namespace") == namespace && text(pod, "/metadata/name") == name);
    found.with_context(|| format!("pod {name:?} of namespace {namespace} is not on this node"))
}

/// The container of a pod that is meant, and a word for people where nobody has named one (kubectl's).
///
/// # Errors
/// When the pod has none of that name.
pub(crate) fn container(pod: &Value, named: Option<&str>) -> Result<(String, Option<String>)> {
    const LISTS: [&str; 3] = ["/spec/containers", "/spec/initContainers", "/spec/ephemeralContainers"];
    let all: Vec<String> =
        LISTS.iter().flat_map(|of| list(pod, of)).map(|container| text(container, "/name")).collect();
    if let Some(name) = named {
        if !all.iter().any(|own| own == name) {
            bail!(
                "container {name:?} is not one of pod {}: it has {}",
                text(pod, "/metadata/name"),
                all.join(", ")
            );
        }
        return Ok((name.to_owned(), None));
    }
    let annotated = text(pod, "/metadata/annotations/kubectl.kubernetes.io~1default-container");
    let chosen = all.iter().find(|name| **name == annotated).or(all.first()).cloned();
    let chosen = chosen.context("the pod has no containers")?;
    let word = (all.len() > 1).then(|| format!("Defaulted container {chosen:?} out of: {}", all.join(", ")));
    Ok((chosen, word))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        which: Which,
    }

    fn names(arguments: &[&str]) -> Result<Vec<String>, String> {
        let all = [("shop", "till", "a"), ("default", "web", "b"), ("default", "db", "a")];
        let all = all.map(|(namespace, name, app)| {
            json!({"metadata": {"namespace": namespace, "name": name, "labels": {"app": app}}})
        });
        let which = Cli::parse_from([&["x"], arguments].concat()).which;
        let found = which.of("pod", all.to_vec()).map_err(|error| error.to_string())?;
        Ok(found.iter().map(|pod| text(pod, "/metadata/name")).collect())
    }

    #[test]
    fn what_is_meant_is_found_in_order() {
        assert_eq!(names(&[]).unwrap(), ["db", "web"]);
        assert_eq!(names(&["-n", "shop"]).unwrap(), ["till"]);
        assert_eq!(names(&["-A"]).unwrap(), ["db", "web", "till"]);
        assert_eq!(names(&["-A", "-l", "app=a"]).unwrap(), ["db", "till"]);
        assert_eq!(names(&["web"]).unwrap(), ["web"]);
        assert_eq!(
            names(&["till", "web"]).unwrap_err(),
            "pod \"till\" of namespace default is not on this node"
        );
        assert!(names(&["web", "-A"]).unwrap_err().contains("goes with neither"));
    }

    #[test]
    fn the_container_is_the_one_that_kubectl_takes() {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}],
            "initContainers": [{"name": "i"}]}});
        let word = "Defaulted container \"a\" out of: a, b, i".to_owned();
        assert_eq!(container(&pod, None).unwrap(), ("a".to_owned(), Some(word)));
        assert_eq!(container(&pod, Some("i")).unwrap(), ("i".to_owned(), None));
        assert!(container(&pod, Some("x")).unwrap_err().to_string().ends_with("it has a, b, i"));
        pod["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/default-container": "b"});
        assert_eq!(container(&pod, None).unwrap().0, "b");
    }
}
