//! Of which instance of a container the log is, by the pod's status (`validateContainerLogStatus` of the kubelet).

use serde_json::Value;

use crate::error::Refusal;

/// The id of the instance, without the name of its runtime in front, and with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) shown: String,
}

fn instance(shown: &str) -> Instance {
    let id = shown.split_once("://").map_or(shown, |(_, id)| id);
    Instance { id: id.to_owned(), shown: shown.to_owned() }
}

/// Which instance of `container` in `pod` a call for logs means.
pub(crate) fn choose(
    pod: &str,
    status: Option<&Value>,
    container: &str,
    previous: bool,
) -> Result<Instance, Refusal> {
    let of = format!("container {container:?} in pod {pod:?}");
    let found = status.and_then(|status| of_container(status, container));
    let Some(found) = found else { return Err(Refusal::bad(format!("{of} is not available"))) };
    let last = found.pointer("/lastState/terminated");
    let last_id = last.and_then(id_of);
    if previous {
        let missing = || Refusal::bad(format!("previous terminated {of} not found"));
        return last_id.map(instance).ok_or_else(missing);
    }
    if found.pointer("/state/running").is_some_and(Value::is_object) {
        return Ok(instance(id_of(found).unwrap_or_default()));
    }
    if let Some(ended) = found.pointer("/state/terminated").filter(|ended| ended.is_object()) {
        let ended_without = || Refusal::bad(format!("{of} is terminated"));
        return id_of(ended).or(last_id).map(instance).ok_or_else(ended_without);
    }
    if last.is_some_and(Value::is_object) {
        return last_id.map(instance).ok_or_else(|| Refusal::bad(format!("{of} is terminated")));
    }
    let waiting = found.pointer("/state/waiting").filter(|waiting| waiting.is_object());
    let what = match waiting.map(|waiting| waiting["reason"].as_str().unwrap_or_default()) {
        Some("ErrImagePull") => ": image can't be pulled".to_owned(),
        Some("ImagePullBackOff") => ": trying and failing to pull image".to_owned(),
        Some(reason) => format!(": {reason}"),
        None => " - no logs yet".to_owned(),
    };
    Err(Refusal::bad(format!("{of} is waiting to start{what}")))
}

fn id_of(state: &Value) -> Option<&str> {
    state["containerID"].as_str().filter(|id| !id.is_empty())
}

fn of_container<'a>(status: &'a Value, container: &str) -> Option<&'a Value> {
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let mut all = lists.into_iter().filter_map(|list| status[list].as_array()).flatten();
    all.find(|status| status["name"] == container)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn chosen(status: serde_json::Value, previous: bool) -> Result<String, String> {
        let mut own = json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0});
        own.as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
        let status = json!({"containerStatuses": [own]});
        let chosen = choose("p", Some(&status), "c", previous);
        chosen.map(|instance| instance.id).map_err(|refusal| {
            assert_eq!(refusal.status, 400);
            refusal.text
        })
    }

    fn ended(id: &str) -> serde_json::Value {
        json!({"terminated": {"exitCode": 1, "containerID": id}})
    }

    #[test]
    fn the_instance_is_the_one_that_a_kubelet_takes() {
        let running = json!({"state": {"running": {}}, "containerID": "containerd://a", "lastState": ended("containerd://b")});
        assert_eq!(chosen(running.clone(), false), Ok("a".to_owned()));
        assert_eq!(chosen(running, true), Ok("b".to_owned()));
        assert_eq!(chosen(json!({"state": ended("containerd://c")}), false), Ok("c".to_owned()));
        let without = json!({"state": ended(""), "lastState": ended("containerd://d")});
        assert_eq!(chosen(without, false), Ok("d".to_owned()));
        let waits = json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended("containerd://e")});
        assert_eq!(chosen(waits, false), Ok("e".to_owned()));
    }

    #[test]
    fn what_has_no_log_is_refused_in_a_kubelets_words() {
        let none = choose("p", None, "c", false).unwrap_err();
        assert_eq!(none.text, r#"container "c" in pod "p" is not available"#);
        let waits = |reason: &str| json!({"state": {"waiting": {"reason": reason}}});
        for (status, previous, text) in [
            (
                waits("ContainerCreating"),
                false,
                r#"container "c" in pod "p" is waiting to start: ContainerCreating"#,
            ),
            (
                waits("ErrImagePull"),
                false,
                r#"container "c" in pod "p" is waiting to start: image can't be pulled"#,
            ),
            (
                waits("ImagePullBackOff"),
                false,
                r#"container "c" in pod "p" is waiting to start: trying and failing to pull image"#,
            ),
            (waits("x"), true, r#"previous terminated container "c" in pod "p" not found"#),
            (json!({"state": ended("")}), false, r#"container "c" in pod "p" is terminated"#),
            (json!({}), false, r#"container "c" in pod "p" is waiting to start - no logs yet"#),
        ] {
            assert_eq!(chosen(status, previous), Err(text.to_owned()));
        }
    }
}
