//! Which handler of the runtime a pod's `runtimeClassName` means: the kubelet's `LookupRuntimeHandler`.

use std::rc::Rc;

use apimachinery::{ObjectKey, resource};
use serde_json::Value;

use crate::dependencies::{Dependencies, blocking};
use crate::error::StepError;
use crate::json_error;
use crate::pod::parsed_pod::ParsedPod;

/// The handler; that of pods without a class has no name. A class that is not here may yet come.
///
/// # Errors
/// In the kubelet's words.
pub(crate) async fn handler(deps: &Rc<Dependencies>, pod: &ParsedPod) -> Result<String, StepError> {
    let Some(name) = pod.spec().runtime_class_name.clone().filter(|name| !name.is_empty()) else {
        return Ok(String::new());
    };
    let store = deps.store.clone();
    let key = ObjectKey::new(resource::RUNTIME_CLASSES, "", &name);
    let read = move || {
        store.by_key(&key).map_err(|error| {
            StepError::Missing(format!("failed to lookup RuntimeClass {}: {error}", key.name))
        })
    };
    let found = blocking(&deps.env, "read a RuntimeClass from", read).await?;
    of_object(&name, found.as_deref())
}

fn of_object(name: &str, json: Option<&[u8]>) -> Result<String, StepError> {
    let Some(json) = json else {
        return Err(StepError::Missing(format!("runtimeclass.node.k8s.io {name:?} not found")));
    };
    let object: Value = serde_json::from_slice(json).map_err(|error| {
        StepError::Config(format!(
            "failed to lookup RuntimeClass {name}: it {}",
            json_error::describe(&error)
        ))
    })?;
    let handler = object.get("handler").and_then(Value::as_str).filter(|handler| !handler.is_empty());
    handler.map(str::to_owned).ok_or_else(|| {
        StepError::Config(format!("failed to lookup RuntimeClass {name}: it names no handler"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_names_its_handler() {
        assert_eq!(of_object("k", Some(br#"{"handler": "kata"}"#)), Ok("kata".to_owned()));
        let words = "runtimeclass.node.k8s.io \"k\" not found".to_owned();
        assert_eq!(of_object("k", None), Err(StepError::Missing(words)));
        for json in ["{}", "[]", "", r#"{"handler": ""}"#, r#"{"handler": 7}"#] {
            assert!(matches!(of_object("k", Some(json.as_bytes())), Err(StepError::Config(_))), "{json}");
        }
    }
}
