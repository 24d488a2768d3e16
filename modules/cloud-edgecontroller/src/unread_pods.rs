//! Says of a pod that CloudCore does not read, in an Event: whoever made it reads it there.

use std::time::Duration;

use beehive::{Env, Fault};
use contract::{ObjectKey, content_hash};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, PostParams};
use kubewatch::{Unread, status_code};
use serde_json::json;

use crate::events;

const COMPONENT: &str = "cloudcore";
/// 100 ms between two: whoever may make pods decides how many there are.
const PAUSE: Duration = Duration::from_millis(100);
/// 200 characters of a pod's name in that of the Event, which has 253.
const NAME_MAX: usize = 200;

/// Says it of these, one after the other, and of each once in its life.
pub(crate) async fn say(client: kube::Client, pods: Vec<(ObjectKey, Unread)>, env: Env) {
    for (key, unread) in pods {
        let of_namespace: Api<Event> = Api::namespaced(client.clone(), &key.namespace);
        let now = jiff::Timestamp::try_from(env.wall()).unwrap_or_default();
        match of_namespace.create(&PostParams::default(), &event(&key, &unread, now)).await {
            Ok(_) => {}
            // It was said.
            Err(error) if status_code(&error) == Some(409) => {}
            Err(error) => events::unread_pod_not_named(&env, &key, &Fault::from_error(&error).reason),
        }
        env.sleep(PAUSE).await;
    }
}

/// Of one name for a pod and what is said of it.
fn event(key: &ObjectKey, unread: &Unread, now: jiff::Timestamp) -> Event {
    let hash = content_hash(&json!([unread.uid, unread.why]));
    let name: String = key.name.chars().take(NAME_MAX).collect();
    Event {
        metadata: ObjectMeta {
            namespace: Some(key.namespace.clone()),
            name: Some(format!("{}.{hash}", name.trim_end_matches(['.', '-']))),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
            uid: Some(unread.uid.clone()),
            ..ObjectReference::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some("NotRead".to_owned()),
        message: Some(format!(
            "CloudCore does not read this pod: {}. If its node is an edge node it does not run there; a node that has an earlier version goes on with that",
            unread.why
        )),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource { component: Some(COMPONENT.to_owned()), host: None }),
        reporting_component: Some(COMPONENT.to_owned()),
        reporting_instance: Some(COMPONENT.to_owned()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_says_of_a_pod_why_it_is_not_read() {
        let unread = |uid: &str, why: &str| Unread::new(uid, why);
        let key = ObjectKey::new("pods", "d", "p");
        let of = |uid: &str, why: &str| event(&key, &unread(uid, why), jiff::Timestamp::UNIX_EPOCH);
        let first = of("u", "it is too large");
        assert!(first.message.unwrap().contains("does not read this pod: it is too large."));
        assert_eq!(first.involved_object.uid.as_deref(), Some("u"));
        assert_eq!(of("u", "it is too large").metadata.name, first.metadata.name, "another CloudCore's, too");
        assert_ne!(of("v", "it is too large").metadata.name, first.metadata.name);
        let long = event(
            &ObjectKey::new("pods", "d", "p".repeat(253)),
            &unread("u", "w"),
            jiff::Timestamp::UNIX_EPOCH,
        );
        assert!(contract::ids::is_dns1123_subdomain(&long.metadata.name.unwrap()));
    }
}
