//! Where a rule's messages come from on a node, as both ends of the link read a `Rule`.

use serde_json::Value;

use crate::rule_stream::TOPIC_MAX;

/// The topic on which an application publishes for a rule: `<namespace>/<topic>`, without empty levels, as KubeEdge joins it. `None`
/// where it is none.
pub fn topic(namespace: &str, topic: &str) -> Option<String> {
    let levels: Vec<&str> = topic.split('/').filter(|level| !level.is_empty()).collect();
    let is_level = |level: &&str| !matches!(*level, "." | "..") && !level.contains(['+', '#', '\0']);
    if namespace.is_empty() || levels.is_empty() || !levels.iter().all(is_level) {
        return None;
    }
    let joined = format!("{namespace}/{}", levels.join("/"));
    (joined.len() <= TOPIC_MAX).then_some(joined)
}

/// What of a node brings messages to a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeSource {
    /// Publishes on this topic.
    Topic(String),
    /// Calls that name this URL.
    TargetUrl(String),
}

/// The source of a `Rule` on a node, from its JSON; `None` where it has none there, or none that holds.
pub fn on_node(namespace: &str, rule: &Value) -> Option<NodeSource> {
    let of = |key| rule.pointer("/spec/sourceResource")?.get(key)?.as_str();
    match (of("topic"), of("target_url")) {
        (Some(name), None) => topic(namespace, name).map(NodeSource::Topic),
        (None, Some(url)) if !url.is_empty() => Some(NodeSource::TargetUrl(url.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_topic_is_joined_as_kubeedge_joins_it() {
        for (given, joined) in [("t", "d/t"), ("/a/b", "d/a/b"), ("a//b/", "d/a/b"), ("user/x", "d/user/x")] {
            assert_eq!(topic("d", given).as_deref(), Some(joined));
        }
        let long = "x".repeat(TOPIC_MAX);
        for none in ["", "/", "a/../b", ".", "a/+", "#", "a\0b", &long] {
            assert_eq!(topic("d", none), None, "{none}");
        }
        assert_eq!(topic("", "t"), None);
    }

    #[test]
    fn a_source_is_a_topic_or_a_url_and_not_both() {
        let source = |resource: Value| on_node("d", &json!({"spec": {"sourceResource": resource}}));
        assert_eq!(source(json!({"topic": "t", "node_name": "n"})), Some(NodeSource::Topic("d/t".into())));
        assert_eq!(
            source(json!({"target_url": "http://a/b"})),
            Some(NodeSource::TargetUrl("http://a/b".into()))
        );
        for none in [
            json!({"path": "/a"}),
            json!({"topic": "t", "target_url": "u"}),
            json!({"topic": 1}),
            json!(null),
        ] {
            assert_eq!(source(none), None);
        }
        assert_eq!(on_node("d", &json!("x")), None);
    }
}
