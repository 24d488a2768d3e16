//! Subresources that are part of an object: status, scale, a namespace's finalizers, a pod's resources and ephemeral containers;
//! and reviews.

use apimachinery::resource;
use http::request::Parts;
use serde_json::{Value, json};

use super::api::Api;
use super::body;
use super::part::Subresource;
use super::patch::{self, PatchType};
use crate::error::{ApiError, FieldError};
use crate::kind::{Source, StatusSubresource};
use crate::request::{ApiRequest, Attributes, Representation, User};
use crate::response::Answer;
use crate::store::Store;
use crate::unstructured::{as_fields, default, entry, text};

impl<S: Store> Api<S> {
    pub(super) async fn subresource(&self, request: &ApiRequest<'_>) -> Result<Answer, ApiError> {
        let group_resource = request.kind.group_resource();
        let (sub, verb) = (request.attributes.subresource.as_str(), request.attributes.verb.as_str());
        match (group_resource.as_str(), sub, verb) {
            (_, "status", _) if request.kind.status == StatusSubresource::None => {
                Err(ApiError::no_such_path())
            }
            (_, "status", "update") => self.replace(request, Subresource::Status).await,
            (_, "status", "patch") => self.patch(request, Subresource::Status).await,
            (_, "status", _) => {
                self.reader.read(request).await.unwrap_or_else(|| Err(ApiError::no_such_path()))
            }
            (resource::PODS, "resize" | "ephemeralcontainers", verb) => {
                let part =
                    if sub == "resize" { Subresource::Resize } else { Subresource::EphemeralContainers };
                match verb {
                    "get" => self.reader.read(request).await.unwrap_or_else(|| Err(ApiError::no_such_path())),
                    "update" => self.replace(request, part).await,
                    "patch" => self.patch(request, part).await,
                    _ => Err(ApiError::method_not_allowed()),
                }
            }
            (_, "scale", "get" | "update" | "patch") if request.kind.scale => self.scale(request).await,
            (resource::NAMESPACES, "finalize", "update") => self.finalize(request).await,
            _ => self.policy.subresource(self, request).await,
        }
    }

    /// `spec.finalizers` of a namespace, and nothing else.
    async fn finalize(&self, request: &ApiRequest<'_>) -> Result<Answer, ApiError> {
        let body = request.decode_typed(request.object()?)?.object;
        let finalizers = body["spec"]["finalizers"].clone();
        let version = text(&body, "/metadata/resourceVersion").to_owned();
        let stored = self.update(request, Subresource::Finalize, &version, |current| {
            let mut next = current.clone();
            // An empty list is said, or the default would come back.
            let list = if finalizers.is_array() { finalizers.clone() } else { json!([]) };
            as_fields(entry(&mut next, "spec")).insert("finalizers".to_owned(), list);
            Ok(next)
        });
        Ok(Answer::ok(stored.await?.0))
    }

    async fn scale(&self, request: &ApiRequest<'_>) -> Result<Answer, ApiError> {
        let paths = match &request.kind.source {
            Source::Custom(custom) => custom.scale.clone().ok_or_else(ApiError::no_such_path)?,
            Source::BuiltIn => (".spec.replicas".to_owned(), ".status.replicas".to_owned(), String::new()),
        };
        let spec_pointer = paths.0.replace('.', "/");
        let (_, current) = self.reader.stored(&request.kind, &request.key()).await?;
        if request.attributes.verb == "get" {
            return Ok(Answer::ok(scale_of(&current, &paths)));
        }
        let wanted_version;
        let next = if request.attributes.verb == "update" {
            let mut body = request.object()?;
            wanted_version = text(&body, "/metadata/resourceVersion").to_owned();
            // Clients in Go leave a zero out.
            if let Some(spec) = body.get_mut("spec").filter(|spec| spec.is_object()) {
                default(spec, "replicas", json!(0));
            }
            body
        } else {
            let body = request.patch_body()?;
            wanted_version = String::new();
            let patch_type = PatchType::of(&request.content_type)?;
            patch::apply(patch_type, "Scale", &scale_of(&current, &paths), &body)?
        };
        let replicas = replicas(request, &next)?;
        let (stored, _) = self
            .update(request, Subresource::Main, &wanted_version, |current| {
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

    /// An object that is answered and not stored; `None` if the request is for something else.
    pub(super) async fn review(
        &self,
        parts: &Parts,
        attributes: &Attributes,
        bytes: &[u8],
        user: &User,
    ) -> Result<Option<Answer>, ApiError> {
        let known = self.policy.resources().iter().find(|known| {
            known.group == attributes.group && known.name == attributes.resource && attributes.version == "v1"
        });
        let Some(resource) = known else { return Ok(None) };
        Representation::of(parts)?;
        if attributes.verb != "create" {
            return Err(ApiError::method_not_allowed());
        }
        let content_type =
            parts.headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let mut review = body::decode(bytes, content_type.unwrap_or("application/json"))?;
        let status = self.policy.review(resource, &review, user).await?;
        let fields = as_fields(&mut review);
        fields.insert("status".to_owned(), status);
        fields.insert("kind".to_owned(), json!(resource.kind));
        fields.insert("apiVersion".to_owned(), json!(format!("{}/v1", resource.group)));
        as_fields(entry(&mut review, "metadata"));
        Ok(Some(Answer::created(review)))
    }
}

/// The replicas that a Scale asks for.
fn replicas(request: &ApiRequest<'_>, scale: &Value) -> Result<i32, ApiError> {
    let kind = text(scale, "/kind");
    if !matches!(kind, "" | "Scale") {
        let message = format!("expected a Scale, got a `{}`", kind.escape_debug());
        return Err(ApiError::bad_request(message));
    }
    let wanted = &scale["spec"]["replicas"];
    let cause = match wanted.as_i64().map(i32::try_from) {
        Some(Ok(replicas)) if replicas >= 0 => return Ok(replicas),
        Some(Ok(replicas)) => {
            FieldError::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0")
        }
        None if wanted.is_null() => FieldError::required("spec.replicas", ""),
        Some(Err(_)) | None => {
            let what = format!("cannot be handled as a Scale: spec.replicas: {wanted} is no 32-bit integer");
            return Err(ApiError::bad_request(what));
        }
    };
    Err(ApiError::invalid(&request.kind, &request.attributes.name, &[cause]))
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
