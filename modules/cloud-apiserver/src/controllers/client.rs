//! Requests to the API server. What changes something runs to its answer, whatever becomes of who asked: see [`InFlight`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use apimachinery::{Kind, NamespacedName, kind};
use beehive::Env;
use jiff::Timestamp;
use kube::api::{
    Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
};
use kubewatch::status_code;
use serde_json::{Value, json};

use super::api_error::chain;
use super::in_flight::InFlight;
use super::object::{name, namespace, seconds, text, uid, version};
use super::resource::api_resource;
use crate::events;

/// 256 events are remembered, so that a repeat counts up and is not another event.
const EVENTS_REMEMBERED: usize = 256;

struct RecordedEvent {
    object: String,
    reason: String,
    message: String,
    key: NamespacedName,
    count: i64,
}

/// Reads and writes objects, and writes events.
pub(crate) struct ApiClient {
    client: kube::Client,
    env: Env,
    in_flight: Rc<InFlight>,
    events: RefCell<VecDeque<RecordedEvent>>,
    /// What the last event was named by.
    last_event: Cell<i64>,
}

/// What an event is named by, as client-go does: the moment, in nanoseconds since 1970, so that events of one second stand in their
/// order where they are sorted by their names. None has a number twice, also when the clock is set back.
fn event_number(last: &Cell<i64>, wall: Timestamp) -> i64 {
    let number = i64::try_from(wall.as_nanosecond()).unwrap_or(i64::MAX).max(last.get().saturating_add(1));
    last.set(number);
    number
}

impl ApiClient {
    pub(super) fn new(client: kube::Client, env: Env, in_flight: Rc<InFlight>) -> Self {
        ApiClient { client, env, in_flight, events: RefCell::default(), last_event: Cell::default() }
    }

    /// Sends a request that changes something.
    pub(crate) async fn send<T: 'static>(
        &self,
        request: impl Future<Output = Result<T, kube::Error>> + 'static,
    ) -> Result<T, kube::Error> {
        self.in_flight.run(&self.env, request).await
    }

    pub(crate) fn client(&self) -> &kube::Client {
        &self.client
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    pub(crate) fn wall(&self) -> Timestamp {
        Timestamp::try_from(self.env.wall()).unwrap_or_default()
    }

    fn api(&self, kind: &Kind, namespace: &str) -> Api<DynamicObject> {
        if namespace.is_empty() {
            Api::all_with(self.client.clone(), &api_resource(kind))
        } else {
            Api::namespaced_with(self.client.clone(), namespace, &api_resource(kind))
        }
    }

    pub(crate) async fn get(&self, kind: &Kind, key: &NamespacedName) -> Result<Option<Value>, kube::Error> {
        let found = self.api(kind, &key.namespace).get_opt(&key.name).await?;
        found.map(|object| serde_json::to_value(&object).map_err(kube::Error::SerdeError)).transpose()
    }

    pub(crate) async fn create(
        &self,
        kind: &Kind,
        namespace: &str,
        mut object: Value,
    ) -> Result<Value, kube::Error> {
        object["apiVersion"] = json!(kind.api_version());
        object["kind"] = json!(kind.kind);
        let object: DynamicObject = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        let api = self.api(kind, namespace);
        let made = self.send(async move { api.create(&PostParams::default(), &object).await }).await?;
        serde_json::to_value(&made).map_err(kube::Error::SerdeError)
    }

    /// A merge patch.
    pub(crate) async fn patch(
        &self,
        kind: &Kind,
        key: &NamespacedName,
        patch: &Value,
    ) -> Result<(), kube::Error> {
        let (api, name, patch) =
            (self.api(kind, &key.namespace), key.name.clone(), Patch::Merge(patch.clone()));
        self.send(async move { api.patch(&name, &PatchParams::default(), &patch).await.map(|_| ()) }).await
    }

    /// Writes fields of the status, if the object is still as it was read.
    pub(crate) async fn patch_status(
        &self,
        kind: &Kind,
        object: &Value,
        status: Value,
    ) -> Result<(), kube::Error> {
        let patch = json!({
            "metadata": { "uid": uid(object), "resourceVersion": version(object) }, "status": status,
        });
        let (api, name) = (self.api(kind, namespace(object)), name(object).to_owned());
        let patch = Patch::Merge(patch);
        self.send(async move { api.patch_status(&name, &PatchParams::default(), &patch).await.map(|_| ()) })
            .await
    }

    /// Deletes exactly this object and no other one of its name.
    pub(crate) async fn delete(
        &self,
        kind: &Kind,
        object: &Value,
        grace: Option<u32>,
    ) -> Result<(), kube::Error> {
        let how = DeleteParams {
            grace_period_seconds: grace,
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions { uid: Some(uid(object).to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        let (api, name) = (self.api(kind, namespace(object)), name(object).to_owned());
        self.send(async move { api.delete(&name, &how).await.map(|_| ()) }).await
    }

    /// Binds a pod to a node.
    pub(crate) async fn bind(&self, pod: &Value, node: &str) -> Result<(), kube::Error> {
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": { "namespace": namespace(pod), "name": name(pod), "uid": uid(pod) },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node },
        });
        let (api, name) = (self.api(&kind::PODS, namespace(pod)), name(pod).to_owned());
        let bind = async move {
            let bound: Result<Value, _> =
                api.create_subresource("binding", &name, &PostParams::default(), &binding).await;
            bound.map(|_| ())
        };
        self.send(bind).await
    }

    /// Tells what happened to `object`. An event that cannot be written is a word in the log.
    pub(crate) async fn event(&self, from: &str, object: &Value, warning: bool, reason: &str, message: &str) {
        if let Err(error) = self.try_event(from, object, warning, reason, message).await {
            events::event_not_written(&self.env, from, reason, &chain(&error));
        }
    }

    async fn try_event(
        &self,
        from: &str,
        object: &Value,
        warning: bool,
        reason: &str,
        message: &str,
    ) -> Result<(), kube::Error> {
        let now = seconds(self.wall());
        let repeat = {
            let mut events = self.events.borrow_mut();
            let known = events.iter_mut().find(|known| {
                known.object == uid(object) && known.reason == reason && known.message == message
            });
            known.map(|known| {
                known.count += 1;
                (known.key.clone(), known.count)
            })
        };
        if let Some((key, count)) = repeat {
            let patch = json!({ "count": count, "lastTimestamp": now });
            match self.patch(&kind::EVENTS, &key, &patch).await {
                // Its time was over: it is told anew.
                Err(error) if status_code(&error) == Some(404) => {
                    self.events.borrow_mut().retain(|known| known.key != key);
                }
                other => return other,
            }
        }
        // Events about what is in no namespace live in `default`.
        let home = if namespace(object).is_empty() { "default" } else { namespace(object) };
        let id = event_number(&self.last_event, self.wall());
        let key = NamespacedName { namespace: home.to_owned(), name: format!("{}.{id:016x}", name(object)) };
        let event = json!({
            "metadata": { "namespace": key.namespace, "name": key.name },
            "type": if warning { "Warning" } else { "Normal" },
            "reason": reason, "message": message, "count": 1,
            "firstTimestamp": now, "lastTimestamp": now,
            "source": { "component": from }, "reportingComponent": from, "reportingInstance": "",
            "involvedObject": {
                "apiVersion": text(object, "/apiVersion"), "kind": text(object, "/kind"), "uid": uid(object),
                "namespace": namespace(object), "name": name(object), "resourceVersion": version(object),
            },
        });
        self.create(&kind::EVENTS, home, event).await?;
        let mut events = self.events.borrow_mut();
        if events.len() >= EVENTS_REMEMBERED {
            events.pop_front();
        }
        events.push_back(RecordedEvent {
            object: uid(object).to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            key,
            count: 1,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_named_in_the_order_in_which_they_were_told() {
        let last = Cell::default();
        let numbers: Vec<i64> =
            [5, 5, 3, 9].map(|second| event_number(&last, Timestamp::from_second(second).unwrap())).into();
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
        assert_eq!((numbers[0], numbers[3]), (5_000_000_000, 9_000_000_000));
    }
}
