//! What goes down of a job: its object without its status, with the Secret that registries are shown. Pure.

use std::sync::Arc;

use bytes::Bytes;
use contract::node_task::SECRET_FIELD;
use contract::{Object, ObjectKey, content_hash};
use serde_json::{Value, json};

/// What a node holds of a job while its part is under way. `None`: the Secret is no JSON, or the object has no spec.
pub(crate) fn object(
    key: &ObjectKey,
    (uid, resource_version): (&str, &str),
    job: &Value,
    secret: Option<&str>,
) -> Option<Arc<Object>> {
    let mut sent = json!({
        "apiVersion": job.get("apiVersion"),
        "kind": job.get("kind"),
        "metadata": {"name": key.name, "uid": uid},
        "spec": job.get("spec")?,
    });
    if let Some(secret) = secret {
        sent[SECRET_FIELD] = serde_json::from_str(secret).ok()?;
    }
    let content_hash = content_hash(&sent);
    sent["metadata"]["resourceVersion"] = Value::from(resource_version);
    Some(Arc::new(Object {
        key: key.clone(),
        uid: uid.to_owned(),
        content_hash,
        resource_version: resource_version.to_owned(),
        json: Bytes::from(sent.to_string()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::TaskKind;

    #[test]
    fn the_status_is_no_part_of_it_and_moves_no_version() {
        let key = ObjectKey::new(TaskKind::ImagePrePull.resource(), "", "j");
        let job = |status: Value| json!({"kind": "ImagePrePullJob", "spec": {"a": 1}, "status": status});
        let first = object(&key, ("u", "7"), &job(json!({"phase": "Init"})), None).unwrap();
        let later = object(&key, ("u", "8"), &job(json!({"phase": "InProgress"})), None).unwrap();
        assert_eq!(first.content_hash, later.content_hash);
        let read: Value = serde_json::from_slice(&first.json).unwrap();
        assert_eq!(
            (read.get("status"), &read["spec"], &read["metadata"]["uid"]),
            (None, &json!({"a": 1}), &json!("u"))
        );
        let with = object(&key, ("u", "8"), &job(json!(null)), Some(r#"{"type":"t"}"#)).unwrap();
        assert_ne!(with.content_hash, first.content_hash);
        let read: Value = serde_json::from_slice(&with.json).unwrap();
        assert_eq!(read[SECRET_FIELD]["type"], "t");
        assert!(object(&key, ("u", "8"), &json!({}), None).is_none());
    }
}
