//! All rules, found by where their messages come from. Pure.

use std::collections::BTreeMap;

use contract::rule_source::{NodeSource, on_node};
use contract::{NodeName, ObjectKey};
use serde_json::Value;

use crate::rest_path::CalledPath;
use crate::rule::{self, RuleAction};

/// A rule as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRule {
    /// The Rule.
    pub key: ObjectKey,
    /// Its uid: what is counted is of this one, and of no other that had its name.
    pub uid: String,
    /// What it does, or why it does nothing.
    pub action: Result<RuleAction, String>,
}

/// All rules.
#[derive(Debug, Default)]
pub struct RuleTable {
    /// Whether rules and endpoints were listed: before that nobody knows that there is no rule.
    pub is_listed: bool,
    rules: BTreeMap<ObjectKey, KnownRule>,
    by_source: BTreeMap<(NodeName, NodeSource), ObjectKey>,
    /// By namespace.
    by_path: BTreeMap<String, Vec<ObjectKey>>,
}

/// A Rule as it was read.
pub struct ReadRule<'a> {
    /// Which.
    pub key: &'a ObjectKey,
    /// Its uid.
    pub uid: &'a str,
    /// The object.
    pub value: &'a Value,
}

impl RuleTable {
    /// Of these rules. Of two with one source the elder has it, and the other says so: nobody takes the messages of another's rule
    /// away by writing one.
    pub fn of<'a>(
        rules: impl IntoIterator<Item = ReadRule<'a>>,
        endpoint: impl Fn(&ObjectKey) -> Option<Value>,
    ) -> Self {
        let age = |rule: &ReadRule<'a>| {
            let made = rule.value.pointer("/metadata/creationTimestamp").and_then(Value::as_str);
            (made.unwrap_or("~").to_owned(), rule.key.clone())
        };
        let mut rules: Vec<ReadRule<'a>> = rules.into_iter().collect();
        rules.sort_by_cached_key(age);
        let mut table = RuleTable { is_listed: true, ..RuleTable::default() };
        for ReadRule { key, uid, value } in rules {
            let action = rule::action(key, value, &endpoint);
            let source = rule::node_of(value).zip(on_node(&key.namespace, value));
            let action = table.enter(key, source, action);
            table.rules.insert(key.clone(), KnownRule { key: key.clone(), uid: uid.to_owned(), action });
        }
        table
    }

    /// Where its messages come from is its own, unless an elder one has that.
    fn enter(
        &mut self,
        key: &ObjectKey,
        source: Option<(NodeName, NodeSource)>,
        action: Result<RuleAction, String>,
    ) -> Result<RuleAction, String> {
        let taken = |elder: &ObjectKey| {
            Err(format!(
                "where its messages come from is the source of Rule {}/{} already",
                elder.namespace, elder.name
            ))
        };
        if let Some(source) = source {
            if let Some(elder) = self.by_source.get(&source) {
                return taken(elder);
            }
            self.by_source.insert(source, key.clone());
        }
        let action = action?;
        if let RuleAction::Publish { path, .. } | RuleAction::Call { path, .. } = &action {
            let others = self.by_path.entry(key.namespace.clone()).or_default();
            let has_it = |other: &&ObjectKey| match self.rules.get(*other).map(|rule| &rule.action) {
                Some(Ok(RuleAction::Publish { path: other, .. } | RuleAction::Call { path: other, .. })) => {
                    other == path
                }
                _ => false,
            };
            if let Some(elder) = others.iter().find(has_it) {
                return taken(elder);
            }
            others.push(key.clone());
        }
        Ok(action)
    }

    /// The rule of a topic or a URL of a node.
    pub fn of_source(&self, node: &NodeName, source: NodeSource) -> Option<&KnownRule> {
        self.by_source.get(&(node.clone(), source)).and_then(|key| self.rules.get(key))
    }

    /// The rule that takes a call, and what is behind its path. Of several it is the one that says most closely what it takes.
    pub fn of_call<'a>(&self, called: CalledPath<'a>) -> Option<(&KnownRule, &'a str)> {
        let keys = self.by_path.get(called.namespace)?;
        let taking = keys.iter().filter_map(|key| {
            let rule = self.rules.get(key)?;
            let (RuleAction::Publish { path, .. } | RuleAction::Call { path, .. }) =
                rule.action.as_ref().ok()?
            else {
                return None;
            };
            Some((path.closeness(), rule, path.rest_of(called.rest)?))
        });
        taking.max_by_key(|(closeness, ..)| *closeness).map(|(_, rule, rest)| (rule, rest))
    }

    /// Every rule.
    pub fn all(&self) -> impl Iterator<Item = &KnownRule> {
        self.rules.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::ids::RULES;
    use serde_json::json;

    /// Name, when it was made, source and target.
    type Written<'a> = (&'a str, &'a str, Value, Value);

    fn table(written: &[Written<'_>]) -> RuleTable {
        let objects: Vec<(ObjectKey, Value)> = written
            .iter()
            .map(|(name, made, source, target)| {
                let (namespace, name) = name.split_once('/').unwrap();
                let kind = |resource: &Value| {
                    let has = |key| resource.get(key).is_some();
                    if has("resource") || has("path") && !has("port") { "rest" } else { "eventbus" }
                };
                let value = json!({
                    "metadata": {"creationTimestamp": made},
                    "spec": {"source": kind(source), "sourceResource": source, "target": kind(target), "targetResource": target},
                });
                (ObjectKey::new(RULES, namespace, name), value)
            })
            .collect();
        let rules = objects.iter().map(|(key, value)| ReadRule { key, uid: "u", value });
        RuleTable::of(rules, |key| Some(json!({"spec": {"ruleEndpointType": key.name}})))
    }

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).unwrap()
    }

    #[test]
    fn the_elder_of_two_with_one_source_has_it() {
        let topic = || json!({"topic": "t", "node_name": "n"});
        let to = || json!({"resource": "http://a.example/"});
        let table = table(&[
            ("d/a", "2026-02-01T00:00:00Z", topic(), to()),
            ("d/b", "2026-01-01T00:00:00Z", topic(), to()),
        ]);
        let rule = table.of_source(&node("n"), NodeSource::Topic("d/t".into())).unwrap();
        assert_eq!(rule.key.name, "b");
        let told: Vec<&String> = table.all().filter_map(|rule| rule.action.as_ref().err()).collect();
        assert_eq!(told, ["where its messages come from is the source of Rule d/b already"]);
        assert!(table.of_source(&node("m"), NodeSource::Topic("d/t".into())).is_none());
    }

    #[test]
    fn a_rule_that_does_nothing_has_its_source_all_the_same() {
        let table =
            table(&[("d/a", "", json!({"topic": "t", "node_name": "n"}), json!({"resource": "nothing"}))]);
        let rule = table.of_source(&node("n"), NodeSource::Topic("d/t".into())).unwrap();
        assert!(rule.action.is_err(), "what is published waits for the rule to be mended");
    }

    #[test]
    fn the_closest_path_of_the_namespace_takes_a_call() {
        let to = |topic: &str| json!({"topic": topic});
        let path = |path: &str| json!({"path": path});
        let table = table(&[
            ("d/short", "1", path("/a"), to("short")),
            ("d/long", "1", path("/a/b"), to("long")),
            ("d/any", "1", path("/a/{x}"), to("any")),
            ("d/same", "2", path("a/"), to("same")),
            ("e/other", "1", path("/a"), to("other")),
        ]);
        let taken = |called: &str| {
            let called = CalledPath::parse(called)?;
            table.of_call(called).map(|(rule, rest)| (rule.key.name.clone(), rest.to_owned()))
        };
        let took = |name: &str, rest: &str| Some((name.to_owned(), rest.to_owned()));
        assert_eq!(taken("/n/d/a"), took("short", ""));
        assert_eq!(taken("/n/d/a/b/c"), took("long", "c"));
        assert_eq!(taken("/n/d/a/5"), took("any", "a/5"));
        assert_eq!(taken("/n/e/a/b"), took("other", "b"));
        assert_eq!((taken("/n/d/b"), taken("/n/f/a")), (None, None));
        assert_eq!(table.all().filter(|rule| rule.action.is_err()).count(), 1);
    }
}
