//! A Rule with its two RuleEndpoints, as one thing that can be done. Pure.

use contract::ids::RULE_ENDPOINTS;
use contract::{NodeName, ObjectKey, rule_source, rule_stream};
use http::Uri;
use serde_json::Value;

use crate::rest_path::RestPath;

/// 2 KiB: the longest URL.
const URL_MAX: usize = 2 << 10;

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleAction {
    /// rest to eventbus: what is posted to the path is published on a node.
    Publish {
        /// The path below `/<node>/<namespace>`.
        path: RestPath,
        /// The topic, as the rule has it.
        topic: String,
    },
    /// rest to servicebus: what is asked at the path is asked of a service on a node.
    Call {
        /// The path below `/<node>/<namespace>`.
        path: RestPath,
        /// The service's port.
        port: u16,
        /// The path there.
        target: String,
    },
    /// eventbus to rest: what is published on a topic of the node is posted.
    PostPublished {
        /// The node.
        node: NodeName,
        /// `<namespace>/<topic>`.
        topic: String,
        /// Where to.
        url: Uri,
    },
    /// servicebus to rest: what an application on the node asks for by this URL is posted.
    PostCalled {
        /// The node.
        node: NodeName,
        /// The URL that the application names.
        target_url: String,
        /// Where to.
        url: Uri,
    },
}

/// What is said of a rule that does nothing, because of `why`.
pub(crate) fn does_nothing(why: &str) -> String {
    format!("the rule does nothing: {why}")
}

fn text<'a>(rule: &'a Value, pointer: &str) -> Result<&'a str, String> {
    let found = rule.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
    found.ok_or_else(|| format!("{} is missing", pointer.trim_start_matches('/').replace('/', ".")))
}

/// The node on which messages of a rule begin, whatever else is wrong with it.
pub fn node_of(rule: &Value) -> Option<NodeName> {
    NodeName::parse(rule.pointer("/spec/sourceResource/node_name")?.as_str()?).ok()
}

/// The two RuleEndpoints that a rule names.
pub fn endpoints_of(namespace: &str, rule: &Value) -> [Option<ObjectKey>; 2] {
    ["/spec/source", "/spec/target"].map(|pointer| {
        let name = rule.pointer(pointer)?.as_str()?;
        Some(ObjectKey::new(RULE_ENDPOINTS, namespace, name))
    })
}

/// Reads a rule.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn action(
    key: &ObjectKey,
    rule: &Value,
    endpoint: impl Fn(&ObjectKey) -> Option<Value>,
) -> Result<RuleAction, String> {
    let kind_of = |role: &str| {
        let name = text(rule, &format!("/spec/{role}"))?;
        let found = endpoint(&ObjectKey::new(RULE_ENDPOINTS, &key.namespace, name));
        let found = found.ok_or_else(|| {
            format!("there is no RuleEndpoint `{name}` in namespace `{}`, which is its {role}", key.namespace)
        })?;
        Ok::<_, String>((text(&found, "/spec/ruleEndpointType")?.to_owned(), found))
    };
    let ((source, _), (target, target_endpoint)) = (kind_of("source")?, kind_of("target")?);
    match (source.as_str(), target.as_str()) {
        ("rest", "eventbus") => {
            let topic = text(rule, "/spec/targetResource/topic")?;
            if !rule_stream::may_publish(topic) {
                return Err(format!(
                    "spec.targetResource.topic `{topic}`: {}",
                    rule_stream::RuleStreamError::Topic
                ));
            }
            Ok(RuleAction::Publish { path: path(rule)?, topic: topic.to_owned() })
        }
        ("rest", "servicebus") => {
            let port = text(&target_endpoint, "/spec/properties/service_port");
            let port = port.ok().and_then(|port| port.parse::<u16>().ok()).filter(|port| *port != 0);
            let port = port.ok_or(
                "properties.service_port of its target RuleEndpoint is not a port, \"1\" to \"65535\"",
            )?;
            let target = text(rule, "/spec/targetResource/path")?;
            let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
            if target.contains(['?', '#']) || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(format!(
                    "spec.targetResource.path `{target}` is not a path of printable characters without ? and #"
                ));
            }
            Ok(RuleAction::Call { path: path(rule)?, port, target })
        }
        ("eventbus", "rest") => {
            let topic = text(rule, "/spec/sourceResource/topic")?;
            let full = rule_source::topic(&key.namespace, topic);
            let topic = full.ok_or_else(|| {
                format!("spec.sourceResource.topic `{topic}` is not one topic, without + and #")
            })?;
            Ok(RuleAction::PostPublished { node: node(rule)?, topic, url: url(rule)? })
        }
        ("servicebus", "rest") => {
            let target_url = text(rule, "/spec/sourceResource/target_url")?.to_owned();
            Ok(RuleAction::PostCalled { node: node(rule)?, target_url, url: url(rule)? })
        }
        (source, target) => Err(format!(
            "from {source} no rule leads to {target}: from rest to eventbus or servicebus, and from those to rest"
        )),
    }
}

fn node(rule: &Value) -> Result<NodeName, String> {
    let name = text(rule, "/spec/sourceResource/node_name")?;
    NodeName::parse(name).map_err(|error| format!("spec.sourceResource.node_name: {error}"))
}

fn path(rule: &Value) -> Result<RestPath, String> {
    let path = text(rule, "/spec/sourceResource/path")?;
    RestPath::parse(path)
        .ok_or_else(|| format!("spec.sourceResource.path `{path}` is no path of names and {{names}}"))
}

/// The URL of a rule's target.
fn url(rule: &Value) -> Result<Uri, String> {
    let text = text(rule, "/spec/targetResource/resource")?;
    let wrong = |what: &str| format!("spec.targetResource.resource `{text}` {what}");
    if text.len() > URL_MAX {
        return Err("spec.targetResource.resource has more than 2048 characters".to_owned());
    }
    let url: Uri = text.parse().map_err(|_| wrong("is no URL"))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(wrong("is no URL of http or https"));
    }
    let authority = url.authority().ok_or_else(|| wrong("names no host"))?;
    if authority.host().is_empty() {
        return Err(wrong("names no host"));
    }
    if authority.as_str().contains('@') {
        return Err(wrong("has a user and a password in it, which everyone would read who may read rules"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::ids::RULES;
    use serde_json::json;

    fn read(
        source: &str,
        source_resource: Value,
        target: &str,
        target_resource: Value,
    ) -> Result<RuleAction, String> {
        let rule = json!({"spec": {
            "source": source, "sourceResource": source_resource, "target": target, "targetResource": target_resource,
        }});
        action(&ObjectKey::new(RULES, "d", "r"), &rule, |key| {
            assert_eq!((key.resource.as_str(), key.namespace.as_str()), (RULE_ENDPOINTS, "d"));
            let properties =
                if key.name == "servicebus" { json!({"service_port": "8080"}) } else { json!({}) };
            (key.name != "none")
                .then(|| json!({"spec": {"ruleEndpointType": key.name, "properties": properties}}))
        })
    }

    #[test]
    fn each_pair_of_ends_is_an_action() {
        let rest = || json!({"resource": "http://a.example:8/b?c"});
        let node = NodeName::parse("n").unwrap();
        let url: Uri = "http://a.example:8/b?c".parse().unwrap();
        let published = read("eventbus", json!({"topic": "/t", "node_name": "n"}), "rest", rest());
        let (expected, topic) = (url.clone(), "d/t".to_owned());
        assert_eq!(published, Ok(RuleAction::PostPublished { node: node.clone(), topic, url: expected }));
        let called =
            read("servicebus", json!({"target_url": "http://x/y", "node_name": "n"}), "rest", rest());
        assert_eq!(called, Ok(RuleAction::PostCalled { node, target_url: "http://x/y".into(), url }));
        let path = RestPath::parse("/a").unwrap();
        let publish = read("rest", json!({"path": "/a"}), "eventbus", json!({"topic": "t"}));
        assert_eq!(publish, Ok(RuleAction::Publish { path: path.clone(), topic: "t".into() }));
        let call = read("rest", json!({"path": "/a"}), "servicebus", json!({"path": "b"}));
        assert_eq!(call, Ok(RuleAction::Call { path, port: 8080, target: "/b".into() }));
    }

    #[test]
    fn what_is_wrong_has_a_sentence_with_the_field_in_it() {
        let topic = || json!({"topic": "t", "node_name": "n"});
        for (wrong, said) in [
            (
                read("none", topic(), "rest", json!({})),
                "no RuleEndpoint `none` in namespace `d`, which is its source",
            ),
            (read("eventbus", topic(), "none", json!({})), "which is its target"),
            (read("eventbus", topic(), "eventbus", json!({})), "from eventbus no rule leads to eventbus"),
            (read("eventbus", topic(), "rest", json!({})), "spec.targetResource.resource is missing"),
            (
                read("eventbus", json!({"topic": "t"}), "rest", json!({"resource": "http://a"})),
                "node_name is missing",
            ),
            (
                read(
                    "eventbus",
                    json!({"topic": "t", "node_name": "A_"}),
                    "rest",
                    json!({"resource": "http://a"}),
                ),
                "node_name: ",
            ),
            (
                read(
                    "eventbus",
                    json!({"topic": "a/#", "node_name": "n"}),
                    "rest",
                    json!({"resource": "http://a"}),
                ),
                "`a/#` is not one topic",
            ),
            (read("eventbus", topic(), "rest", json!({"resource": "ftp://a"})), "no URL of http"),
            (read("eventbus", topic(), "rest", json!({"resource": "/a"})), "no URL of http"),
            (
                read("eventbus", topic(), "rest", json!({"resource": "http://u:p@a/"})),
                "a user and a password",
            ),
            (read("rest", json!({"path": "/a"}), "eventbus", json!({"topic": "$hw/x"})), "`$hw/x`"),
            (
                read("rest", json!({"path": ""}), "eventbus", json!({"topic": "t"})),
                "sourceResource.path is missing",
            ),
            (read("rest", json!({"path": "/a"}), "servicebus", json!({"path": "/a?b"})), "without ? and #"),
        ] {
            let told = wrong.unwrap_err();
            assert!(told.contains(said), "{told} has not: {said}");
        }
    }
}
