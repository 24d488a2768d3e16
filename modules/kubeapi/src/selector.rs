//! Label selectors and field selectors, as they stand in a query.

use serde_json::Value;

use crate::error::ApiError;
use crate::unstructured::{name, namespace, text};

/// A parsed label selector.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Labels(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    Exists(String),
    Missing(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Greater(String, i64),
    Less(String, i64),
}

fn refused(text: &str) -> ApiError {
    ApiError::bad_request(format!("unable to parse requirement: `{}` is no selector", text.escape_debug()))
}

fn is_key(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or_default();
    !name.is_empty()
        && key.len() <= 317
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'))
}

fn is_value(value: &str) -> bool {
    value.len() <= 63 && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

impl Labels {
    /// Parses `a=b,c!=d,e in (f,g),!h,i,j>1`.
    pub(crate) fn parse(selector: &str) -> Result<Labels, ApiError> {
        let mut requirements = Vec::new();
        for part in split(selector) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            requirements.push(Labels::requirement(part).ok_or_else(|| refused(part))?);
        }
        Ok(Labels(requirements))
    }

    fn requirement(part: &str) -> Option<Requirement> {
        let key = |text: &str| Some(text.trim().to_owned()).filter(|key| is_key(key));
        let value = |text: &str| Some(text.trim().to_owned()).filter(|value| is_value(value));
        if let Some(rest) = part.strip_suffix(')') {
            let (left, values) = rest.split_once('(')?;
            let values: Option<Vec<String>> = values.split(',').map(value).collect();
            let mut words = left.split_whitespace();
            let key = key(words.next()?)?;
            return match (words.next()?, words.next()) {
                ("in", None) => Some(Requirement::In(key, values?)),
                ("notin", None) => Some(Requirement::NotIn(key, values?)),
                _ => None,
            };
        }
        if let Some(rest) = part.strip_prefix('!') {
            return Some(Requirement::Missing(key(rest)?));
        }
        if let Some((left, right)) = part.split_once("!=") {
            return Some(Requirement::NotIn(key(left)?, vec![value(right)?]));
        }
        if let Some((left, right)) = part.split_once("==").or_else(|| part.split_once('=')) {
            return Some(Requirement::In(key(left)?, vec![value(right)?]));
        }
        if let Some((left, right)) = part.split_once('>') {
            return Some(Requirement::Greater(key(left)?, right.trim().parse().ok()?));
        }
        if let Some((left, right)) = part.split_once('<') {
            return Some(Requirement::Less(key(left)?, right.trim().parse().ok()?));
        }
        Some(Requirement::Exists(key(part)?))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        let of = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
        let number = |key: &str| of(key).and_then(|value| value.parse::<i64>().ok());
        self.0.iter().all(|requirement| match requirement {
            Requirement::Exists(key) => of(key).is_some(),
            Requirement::Missing(key) => of(key).is_none(),
            Requirement::In(key, values) => of(key).is_some_and(|value| values.iter().any(|v| v == value)),
            Requirement::NotIn(key, values) => of(key).is_none_or(|value| !values.iter().any(|v| v == value)),
            Requirement::Greater(key, bound) => number(key).is_some_and(|value| value > *bound),
            Requirement::Less(key, bound) => number(key).is_some_and(|value| value < *bound),
        })
    }
}

/// Splits at commas outside parentheses.
fn split(selector: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut from) = (0_usize, 0);
    for (at, letter) in selector.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&selector[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&selector[from..]);
    parts
}

/// A parsed field selector: (field, value, equal or not).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields(Vec<(String, String, bool)>);

/// Fields that can be selected by, beside name and namespace, by GroupResource.
fn selectable(group_resource: &str) -> &'static [&'static str] {
    match group_resource {
        "pods" => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        "nodes" => &["spec.unschedulable"],
        "namespaces" => &["status.phase"],
        "secrets" => &["type"],
        "services" => &["spec.clusterIP", "spec.type"],
        "replicasets.apps" => &["status.replicas"],
        "events" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        _ => &[],
    }
}

impl Fields {
    /// Parses `a=b,c!=d` for objects of `group_resource`.
    pub(crate) fn parse(selector: &str, group_resource: &str) -> Result<Fields, ApiError> {
        let fields = Fields::terms(selector)?;
        for (field, _, _) in &fields.0 {
            let known = matches!(field.as_str(), "metadata.name" | "metadata.namespace")
                || selectable(group_resource).contains(&field.as_str());
            if !known {
                return Err(ApiError::bad_request(format!("field label not supported: {field}")));
            }
        }
        Ok(fields)
    }

    /// The one name that a selector of any kind's objects asks for, if it does.
    pub(crate) fn name_in(selector: &str) -> Option<String> {
        Fields::terms(selector).ok()?.only_name().map(str::to_owned)
    }

    fn terms(selector: &str) -> Result<Fields, ApiError> {
        let mut fields = Vec::new();
        for part in selector.split(',').filter(|part| !part.is_empty()) {
            let (left, right, equal) = if let Some((left, right)) = part.split_once("!=") {
                (left, right, false)
            } else if let Some((left, right)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (left, right, true)
            } else {
                return Err(ApiError::bad_request(format!(
                    "invalid selector: '{part}'; can't understand it"
                )));
            };
            fields.push((left.to_owned(), right.to_owned(), equal));
        }
        Ok(Fields(fields))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same, of the object `name` only.
    pub(crate) fn named(mut self, name: &str) -> Result<Fields, ApiError> {
        if self.0.is_empty() {
            self.0.push(("metadata.name".to_owned(), name.to_owned(), true));
        } else if self.only_name() != Some(name) {
            return Err(ApiError::bad_request("fieldSelector metadata.name doesn't match requested name"));
        }
        Ok(self)
    }

    /// The one name that it asks for, if it does.
    pub(crate) fn only_name(&self) -> Option<&str> {
        self.0.iter().find(|(field, _, equal)| *equal && field == "metadata.name").map(|(_, v, _)| v.as_str())
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(field, wanted, equal)| {
            let found = match field.as_str() {
                "metadata.name" => name(object).to_owned(),
                "metadata.namespace" => namespace(object).to_owned(),
                "source" => text(object, "/source/component").to_owned(),
                "spec.unschedulable" | "spec.hostNetwork" => {
                    let pointer = format!("/{}", field.replace('.', "/"));
                    object.pointer(&pointer).and_then(Value::as_bool).unwrap_or_default().to_string()
                }
                field => match object.pointer(&format!("/{}", field.replace('.', "/"))) {
                    Some(Value::String(text)) => text.clone(),
                    Some(Value::Null) | None => String::new(),
                    Some(other) => other.to_string(),
                },
            };
            (found == *wanted) == *equal
        })
    }
}

/// Which objects a list or a watch is about.
pub(crate) struct Selector {
    labels: Labels,
    fields: Fields,
}

impl Selector {
    /// The selectors of a query, for objects of `group_resource` and, unless it is empty, of one `name` only.
    ///
    /// # Errors
    /// 400 if one of them is none.
    pub(crate) fn parse(
        labels: &str,
        fields: &str,
        group_resource: &str,
        name: &str,
    ) -> Result<Selector, ApiError> {
        let labels = Labels::parse(labels)?;
        let mut fields = Fields::parse(fields, group_resource)?;
        if !name.is_empty() {
            // Who may see this one may not see the others.
            fields = fields.named(name)?;
        }
        Ok(Selector { labels, fields })
    }

    /// Whether it matches everything, so that nothing has to be looked at.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }

    /// The one object that it can only be.
    pub(crate) fn only(&self, namespaced: bool, namespace: &str) -> Option<&str> {
        self.fields.only_name().filter(|_| !namespaced || !namespace.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_operator() {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "1"}}});
        let yes = [
            "",
            "app",
            "app=web",
            "app==web",
            "app!=db",
            "app in (db, web)",
            "app notin (db)",
            "!x",
            "tier>0",
        ];
        for selector in yes {
            assert!(Labels::parse(selector).unwrap().matches(&object), "{selector}");
        }
        for selector in
            ["x", "app=db", "app!=web", "app in (db)", "app notin (web)", "!app", "tier<1", "app,x"]
        {
            assert!(!Labels::parse(selector).unwrap().matches(&object), "{selector}");
        }
        for selector in ["a in b", "a=b=c", "!", "a in (b", "a nearly (b)", "a>x", "ä=b"] {
            assert_eq!(Labels::parse(selector).unwrap_err().code(), 400, "{selector}");
        }
    }

    #[test]
    fn fields_are_known_by_kind() {
        let pod = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"nodeName": "n"}});
        let matches = |text: &str| Fields::parse(text, "pods").unwrap().matches(&pod);
        assert!(matches("spec.nodeName=n,metadata.name==p"));
        assert!(!matches("spec.nodeName!=n"));
        assert!(matches("status.phase="));
        assert!(matches("spec.hostNetwork=false"));
        let error = Fields::parse("spec.color=red", "pods").unwrap_err();
        assert_eq!(error.message, "field label not supported: spec.color");
        assert!(Fields::parse("spec.nodeName=n", "nodes").is_err());
    }
}
