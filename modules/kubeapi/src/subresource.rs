//! Subresources: status, scale, binding, eviction, finalize, tokens; and reviews.

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::{Answer, Api, Call, TokenOrder, User};
use crate::failure::{Cause, Failure};
use crate::field::{as_fields, default, entry, list, name, text};
use crate::kind::{Source, Status};
use crate::patch::{self, Format};
use crate::reference;
use crate::request::Attributes;
use crate::store::{Key, Room, Store};
use crate::write::{Part, object_of};

/// 10 min: the shortest life of a token, as with a real server.
const TOKEN_LIFE_MIN: i64 = 600;

impl<S: Store> Api<S> {
    pub(crate) async fn subresource(&self, call: Call<'_>) -> Result<Answer, Failure> {
        let resource = call.kind.group_resource();
        let (sub, verb) = (call.attributes.subresource.clone(), call.attributes.verb.clone());
        match (resource.as_str(), sub.as_str(), verb.as_str()) {
            (_, "status", _) if call.kind.status == Status::None => Err(Failure::no_such_path()),
            (_, "status", "get") => self.get(&call).await,
            (_, "status", "update") => {
                let body = call.body_object()?;
                self.replace(&call, Part::Status, &body).await
            }
            (_, "status", "patch") => self.patch_part(&call, Part::Status).await,
            (_, "scale", "get" | "update" | "patch") if call.kind.scale => self.scale(&call).await,
            ("pods", "binding", "create") => self.bind(&call).await,
            ("pods", "eviction", "create") => {
                let body = call.body_object()?;
                self.evict(&call, &body["deleteOptions"]).await?;
                Ok(Answer::Object(StatusCode::CREATED, success(), Vec::new()))
            }
            ("serviceaccounts", "token", "create") => self.token(&call).await,
            ("namespaces", "finalize", "update") => self.finalize(&call).await,
            _ => Err(Failure::no_such_path()),
        }
    }

    /// The scheduler's word.
    async fn bind(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let binding = call.body_object()?;
        let node = text(&binding, "/target/name").to_owned();
        if node.is_empty() {
            let cause = Cause::required("target.name", "");
            return Err(Failure::invalid(&call.kind.names_of(), &call.attributes.name, &[cause]));
        }
        if let Some(what) = reference::bad_subdomain(&node) {
            let cause = Cause::invalid("target.name", &json!(node), what);
            return Err(Failure::invalid(&call.kind.names_of(), &call.attributes.name, &[cause]));
        }
        let target = text(&binding, "/target/kind");
        if !matches!(target, "" | "Node") {
            let cause = Cause::unsupported("target.kind", &json!(target), &["Node", "<empty>"]);
            return Err(Failure::invalid(&call.kind.names_of(), &call.attributes.name, &[cause]));
        }
        let key = call.key();
        let uid = text(&binding, "/metadata/uid").to_owned();
        let now = self.now_text();
        for _ in 0..8 {
            let (item, mut pod) = self.read(&call.kind, &key).await?;
            let names = call.kind.names_of();
            if !uid.is_empty() && uid != text(&pod, "/metadata/uid") {
                return Err(Failure::conflict(&names, &key.name, "Precondition failed: the uid is another"));
            }
            if !text(&pod, "/metadata/deletionTimestamp").is_empty() {
                let what = format!("pod {} is being deleted, cannot be assigned to a host", key.name);
                return Err(Failure::conflict(&names, &key.name, &what));
            }
            let assigned = text(&pod, "/spec/nodeName");
            if !assigned.is_empty() {
                let what = format!("pod {} is already assigned to node \"{assigned}\"", key.name);
                return Err(Failure::conflict(&names, &key.name, &what));
            }
            as_fields(entry(&mut pod, "spec")).insert("nodeName".to_owned(), json!(node));
            let scheduled = json!({ "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now });
            let conditions = entry(entry(&mut pod, "status"), "conditions");
            if !conditions.is_array() {
                *conditions = json!([]);
            }
            if let Value::Array(conditions) = conditions {
                conditions.retain(|condition| text(condition, "/type") != "PodScheduled");
                conditions.push(scheduled);
            }
            if call.is_dry_run() {
                return Ok(Answer::Object(StatusCode::CREATED, success(), Vec::new()));
            }
            let write = crate::store::Write::Update {
                key: key.clone(),
                expected: item.revision,
                json: crate::write::bytes(&pod),
            };
            // It adds one name to each pod, and a pod that has its place is no tenant's to hold up.
            match self.inner.store.write_in(write, Room::Reserve).await {
                Ok(_) => return Ok(Answer::Object(StatusCode::CREATED, success(), Vec::new())),
                Err(crate::store::WriteError::Conflict { .. }) => {}
                Err(error) => return Err(crate::write::failed(&call.kind, &key.name, error)),
            }
        }
        Err(Failure::stale(&call.kind.names_of(), &key.name))
    }

    /// `spec.finalizers` of a namespace, and nothing else.
    async fn finalize(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let body = call.intake(call.body_object()?)?.object;
        let finalizers = body["spec"]["finalizers"].clone();
        let wanted = text(&body, "/metadata/resourceVersion").to_owned();
        let stored = self.change(call, Part::Finalize, &wanted, |current| {
            let mut next = current.clone();
            // An empty list is said, or the default would come back.
            let list = if finalizers.is_array() { finalizers.clone() } else { json!([]) };
            as_fields(entry(&mut next, "spec")).insert("finalizers".to_owned(), list);
            Ok(next)
        });
        Ok(Answer::ok(stored.await?.0))
    }

    async fn scale(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let paths = match &call.kind.source {
            Source::Custom(custom) => custom.scale.clone().ok_or_else(Failure::no_such_path)?,
            Source::BuiltIn(_) => (".spec.replicas".to_owned(), ".status.replicas".to_owned(), String::new()),
        };
        let spec_pointer = paths.0.replace('.', "/");
        let (_, current) = self.read(&call.kind, &call.key()).await?;
        if call.attributes.verb == "get" {
            return Ok(Answer::ok(scale_of(&current, &paths)));
        }
        let wanted_version;
        let next = if call.attributes.verb == "update" {
            let mut body = call.body_object()?;
            wanted_version = text(&body, "/metadata/resourceVersion").to_owned();
            // Clients in Go leave a zero out.
            if let Some(spec) = body.get_mut("spec").filter(|spec| spec.is_object()) {
                default(spec, "replicas", json!(0));
            }
            body
        } else {
            let body = crate::json::read(call.body)
                .map_err(|error| Failure::bad_request(format!("error decoding patch: {error}")))?;
            wanted_version = String::new();
            let format = Format::of(&call.content_type)?;
            patch::apply(format, "Scale", &scale_of(&current, &paths), &body)?
        };
        let replicas = replicas(call, &next)?;
        let (stored, _) = self
            .change(call, Part::Main, &wanted_version, |current| {
                let mut next = current.clone();
                let mut here = &mut next;
                for field in spec_pointer.split('/').filter(|field| !field.is_empty()) {
                    here = entry(here, field);
                }
                *here = json!(replicas);
                Ok(next)
            })
            .await?;
        Ok(Answer::ok(scale_of(&stored, &paths)))
    }

    async fn token(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let mut request = call.body_object()?;
        let (_, account) = self.read(&call.kind, &call.key()).await?;
        let names = call.kind.names_of();
        let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
        if seconds < TOKEN_LIFE_MIN {
            let what = "may not specify a duration less than 10 minutes";
            let cause = Cause::invalid("spec.expirationSeconds", &json!(seconds), what);
            return Err(Failure::invalid(&names, name(&account), &[cause]));
        }
        let pod = &request["spec"]["boundObjectRef"];
        let pod = if pod.is_object() {
            if text(pod, "/kind") != "Pod" {
                return Err(Failure::bad_request("cannot bind token to an object that is no Pod"));
            }
            let (pod_name, uid) = (text(pod, "/name").to_owned(), text(pod, "/uid").to_owned());
            let key = Key {
                resource: "pods".to_owned(),
                namespace: call.attributes.namespace.clone(),
                name: pod_name.clone(),
            };
            let pods = crate::failure::Names { group: "", plural: "pods", kind: "Pod" };
            let Some(item) = self.inner.store.get(&key).await? else {
                return Err(Failure::not_found(&pods, &pod_name));
            };
            let stored: Value = serde_json::from_slice(&item.json).unwrap_or_default();
            if text(&stored, "/spec/serviceAccountName") != name(&account) {
                return Err(Failure::bad_request(format!(
                    "cannot bind token for serviceaccount \"{}\" to pod running with different serviceaccount name.",
                    name(&account)
                )));
            }
            let stored_uid = text(&stored, "/metadata/uid").to_owned();
            if !uid.is_empty() && uid != stored_uid {
                let what = format!(
                    "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
                    uid.escape_debug()
                );
                return Err(Failure::conflict(&pods, &pod_name, &what));
            }
            Some((pod_name, stored_uid))
        } else {
            None
        };
        let order = TokenOrder {
            namespace: call.attributes.namespace.clone(),
            service_account: name(&account).to_owned(),
            service_account_uid: text(&account, "/metadata/uid").to_owned(),
            audiences: words(&request, "/spec/audiences"),
            expiration_seconds: seconds,
            pod,
        };
        let (token, audiences, ends) =
            self.inner.options.hooks.mint_token(&order).map_err(|error| Failure::internal(&error))?;
        as_fields(entry(&mut request, "spec")).insert("audiences".to_owned(), json!(audiences));
        as_fields(entry(&mut request, "spec")).insert("expirationSeconds".to_owned(), json!(seconds));
        let ends = Timestamp::from_second(ends.as_second()).unwrap_or_default().to_string();
        as_fields(&mut request)
            .insert("status".to_owned(), json!({ "token": token, "expirationTimestamp": ends }));
        as_fields(&mut request).insert("kind".to_owned(), json!("TokenRequest"));
        as_fields(&mut request).insert("apiVersion".to_owned(), json!("authentication.k8s.io/v1"));
        Ok(Answer::Object(StatusCode::CREATED, request, Vec::new()))
    }

    /// Questions about users: TokenReview, (Self)SubjectAccessReview. They are answered and not stored.
    pub(crate) async fn review(
        &self,
        attributes: &Attributes,
        content_type: &str,
        body: &[u8],
        user: &User,
    ) -> Result<Option<Answer>, Failure> {
        let known = [
            ("authentication.k8s.io", "tokenreviews"),
            ("authorization.k8s.io", "subjectaccessreviews"),
            ("authorization.k8s.io", "selfsubjectaccessreviews"),
        ];
        let asked = (attributes.group.as_str(), attributes.resource.as_str());
        if !known.contains(&asked) || attributes.version != "v1" {
            return Ok(None);
        }
        if attributes.verb != "create" {
            return Err(Failure::method());
        }
        let mut review = object_of(body, content_type)?;
        let hooks = &self.inner.options.hooks;
        let status = if asked.1 == "tokenreviews" {
            let audiences = words(&review, "/spec/audiences");
            match hooks.review_token(text(&review, "/spec/token"), &audiences).await {
                Some((user, audiences)) => json!({ "authenticated": true, "audiences": audiences,
                    "user": { "username": user.name, "groups": user.groups, "uid": user.uid } }),
                None => json!({ "authenticated": false, "error": "the token is not known" }),
            }
        } else {
            let spec = &review["spec"];
            let who = if asked.1 == "selfsubjectaccessreviews" {
                user.clone()
            } else {
                User {
                    name: text(spec, "/user").to_owned(),
                    groups: words(spec, "/groups"),
                    uid: String::new(),
                }
            };
            let allowed = hooks.authorize(&who, &wanted(spec)).await;
            json!({ "allowed": allowed })
        };
        as_fields(&mut review).insert("status".to_owned(), status);
        as_fields(entry(&mut review, "metadata"));
        Ok(Some(Answer::Object(StatusCode::CREATED, review, Vec::new())))
    }
}

/// The wish of a Scale.
fn replicas(call: &Call<'_>, scale: &Value) -> Result<i32, Failure> {
    let kind = text(scale, "/kind");
    if !matches!(kind, "" | "Scale") {
        let message = format!("expected a Scale, got a `{}`", kind.escape_debug());
        return Err(Failure::bad_request(message));
    }
    let wanted = &scale["spec"]["replicas"];
    let cause = match wanted.as_i64().map(i32::try_from) {
        Some(Ok(replicas)) if replicas >= 0 => return Ok(replicas),
        Some(Ok(replicas)) => {
            Cause::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0")
        }
        None if wanted.is_null() => Cause::required("spec.replicas", ""),
        Some(Err(_)) | None => {
            let what = format!("cannot be handled as a Scale: spec.replicas: {wanted} is no 32-bit integer");
            return Err(Failure::bad_request(what));
        }
    };
    Err(Failure::invalid(&call.kind.names_of(), &call.attributes.name, &[cause]))
}

fn words(object: &Value, pointer: &str) -> Vec<String> {
    list(object, pointer).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn wanted(spec: &Value) -> Attributes {
    let own = |pointer: &str| text(spec, pointer).to_owned();
    if spec.get("nonResourceAttributes").is_some_and(Value::is_object) {
        return Attributes {
            verb: own("/nonResourceAttributes/verb"),
            path: own("/nonResourceAttributes/path"),
            ..Attributes::default()
        };
    }
    Attributes {
        verb: own("/resourceAttributes/verb"),
        group: own("/resourceAttributes/group"),
        version: own("/resourceAttributes/version"),
        resource: own("/resourceAttributes/resource"),
        subresource: own("/resourceAttributes/subresource"),
        namespace: own("/resourceAttributes/namespace"),
        name: own("/resourceAttributes/name"),
        path: String::new(),
    }
}

fn success() -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 })
}

fn scale_of(object: &Value, (spec, status, selector): &(String, String, String)) -> Value {
    let at = |path: &str| object.pointer(&path.replace('.', "/")).cloned();
    let metadata = &object["metadata"];
    let labels = object.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    let pairs = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    let selector = if selector.is_empty() {
        pairs.collect::<Vec<_>>().join(",")
    } else {
        at(selector).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    };
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": { "replicas": at(spec).unwrap_or(json!(0)) },
        "status": { "replicas": at(status).unwrap_or(json!(0)), "selector": selector },
    })
}
