//! What the spans of both sides call things, and by which names their contexts wait.

use beehive::trace::Span;

use crate::{NodeName, Object, ObjectKey};

/// An object on its way to a node, in the cloud.
pub fn on_the_way(node: &NodeName, key: &ObjectKey) -> String {
    format!("{node} {key}")
}

/// An object on its node.
pub fn held(key: &ObjectKey) -> String {
    key.to_string()
}

/// A report in a node's outbox, by its key there.
pub fn reported(key: &str) -> String {
    format!("report {key}")
}

/// The object that a report in the outbox is about, by the report's key; `None`: it is about none that is followed.
pub fn about(key: &str) -> Option<ObjectKey> {
    let mut parts = key.splitn(4, '/');
    let (kind, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
    match kind {
        "twin" | "state" | "conditions" | "calls" => {
            Some(ObjectKey::new(crate::ids::DEVICES, namespace, name))
        }
        _ => None,
    }
}

/// Says which object a span is about.
pub fn named(span: Span, key: &ObjectKey) -> Span {
    span.with("k8s.resource", || key.resource.as_str())
        .with("k8s.namespace.name", || key.namespace.as_str())
        .with("k8s.object.name", || key.name.as_str())
}

/// The same, and of which version.
pub fn describe(span: Span, object: &Object) -> Span {
    named(span, &object.key)
        .with("k8s.object.uid", || object.uid.as_str())
        .with("k8s.object.resource_version", || object.resource_version.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UpReport;

    #[test]
    fn a_report_of_a_device_is_about_the_device() {
        let (namespace, name) = ("plant".to_owned(), "horn".to_owned());
        let twin = UpReport::Twin {
            namespace: namespace.clone(),
            name: name.clone(),
            property: "a/b".to_owned(),
            reported: None,
            observed_desired: None,
        };
        let state = UpReport::DeviceState { namespace, name, state: "ok".to_owned(), last_online_time: None };
        for report in [twin, state] {
            let about = about(&report.newest_key().unwrap()).unwrap();
            assert_eq!(about, ObjectKey::new(crate::ids::DEVICES, "plant", "horn"));
        }
        for other in ["node", "pod/u-1", "gone/u-1", "task/u", "twin/x", ""] {
            assert_eq!(about(other), None, "{other}");
        }
    }
}
