//! Reading: discovery, get, list and watch over a [`ReadStore`]. It compiles without the writing half.

mod cells;
mod discovery;
pub(crate) mod jsonpath;
pub(crate) mod list;
pub(crate) mod list_encoder;
mod list_options;
mod openapi;
#[cfg(feature = "write")]
mod openapi_schema;
mod pod_printers;
mod printers;
mod shared_events;
mod volume_printers;
mod watch;

use std::sync::{Arc, PoisonError, RwLock};

use apimachinery::{ObjectKey, resource};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Method, Response};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::crd;
use crate::error::ApiError;
use crate::kind::{self, ServedKind, StatusSubresource};
use crate::options::Options;
use crate::request::{ApiRequest, Attributes, Query, Representation, User};
use crate::response::{Answer, Body, respond};
use crate::store::{Item, Range, ReadStore};
use crate::unstructured::{self, as_fields, entry};

pub use discovery::ExtraResource;
use shared_events::SharedEvents;

/// The reading half of the Kubernetes API over a store. Cheap to clone.
pub struct ReadApi<S: ReadStore> {
    inner: Arc<Inner<S>>,
}

impl<S: ReadStore> Clone for ReadApi<S> {
    fn clone(&self) -> Self {
        ReadApi { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<S> {
    store: Arc<S>,
    options: Options,
    extra: &'static [ExtraResource],
    kinds: RwLock<ServedKinds>,
    events: SharedEvents,
}

/// What is served, as far as it is known.
#[derive(Default)]
struct ServedKinds {
    /// How often it was forgotten: what was read before that is not kept.
    generation: u64,
    known: Option<Arc<Vec<ServedKind>>>,
}

/// A stored object as a client sees it.
///
/// # Errors
/// 500 for what is no object with a name: a row of the store that was torn, or written by somebody else.
pub(crate) fn decode_stored(kind: &ServedKind, json: &[u8], revision: u64) -> Result<Value, ApiError> {
    let mut object: Value = serde_json::from_slice(json).map_err(|error| ApiError::internal(&error))?;
    if unstructured::name(&object).is_empty() {
        return Err(ApiError::internal(&"what is stored is no object with a name"));
    }
    as_fields(&mut object).insert("apiVersion".to_owned(), json!(kind.api_version()));
    as_fields(&mut object).insert("kind".to_owned(), json!(&*kind.kind));
    as_fields(entry(&mut object, "metadata"))
        .insert("resourceVersion".to_owned(), json!(revision.to_string()));
    Ok(object)
}

impl<S: ReadStore> ReadApi<S> {
    /// The API over `store`. `extra` is what discovery lists beside the stored kinds.
    pub fn new(store: Arc<S>, options: Options, extra: &'static [ExtraResource]) -> Self {
        ReadApi {
            inner: Arc::new(Inner {
                store,
                options,
                extra,
                kinds: RwLock::default(),
                events: SharedEvents::default(),
            }),
        }
    }

    /// The store behind it.
    pub fn store(&self) -> &Arc<S> {
        &self.inner.store
    }

    pub(crate) fn options(&self) -> &Options {
        &self.inner.options
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.inner.options.now)()
    }

    /// Answers a read of an authenticated and authorized user. Whatever would write is refused with 405.
    pub async fn handle(&self, parts: &Parts, user: &User) -> Response<Body> {
        respond(self.answer(parts, user).await)
    }

    async fn answer(&self, parts: &Parts, user: &User) -> Result<Answer, ApiError> {
        let attributes = Attributes::of(parts);
        if attributes.resource.is_empty() {
            return self.path(parts).await;
        }
        let request = self.request(parts, attributes, &[], user).await?;
        match request.attributes.subresource.as_str() {
            "" => {}
            "status" if request.kind.status != StatusSubresource::None => {}
            "resize" | "ephemeralcontainers" if request.kind.is(resource::PODS) => {}
            _ => return Err(ApiError::no_such_path()),
        }
        self.read(&request).await.unwrap_or_else(|| Err(ApiError::method_not_allowed()))
    }

    /// The answer to a get, list or watch; `None` for every other verb.
    pub(crate) async fn read(&self, request: &ApiRequest<'_>) -> Option<Result<Answer, ApiError>> {
        match request.attributes.verb.as_str() {
            "get" => Some(self.get(request).await),
            "list" if request.attributes.subresource.is_empty() => Some(self.list(request).await),
            "watch" if request.attributes.subresource.is_empty() => Some(self.watch(request).await),
            _ => None,
        }
    }

    /// A request for objects of a kind that is served.
    pub(crate) async fn request<'a>(
        &self,
        parts: &Parts,
        attributes: Attributes,
        body: &'a [u8],
        user: &'a User,
    ) -> Result<ApiRequest<'a>, ApiError> {
        let representation = Representation::of(parts)?;
        let query = Query::of(parts.uri.query().unwrap_or_default());
        let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or("application/json").to_owned();
        let kind = self.kind(&attributes).await?;
        // The name of a list or a watch may be of its selector.
        let selects = matches!(attributes.verb.as_str(), "list" | "watch");
        let lacks_namespace = kind.namespaced && attributes.namespace.is_empty();
        let is_named = !attributes.name.is_empty() && !selects;
        let has_namespace = !attributes.namespace.is_empty() && kind.group_resource() != "namespaces";
        if lacks_namespace && is_named || !kind.namespaced && has_namespace {
            return Err(ApiError::no_such_path());
        }
        let request = ApiRequest { kind, attributes, query, representation, content_type, body, user };
        request.check_options()?;
        Ok(request)
    }

    /// The answer at a path that is no resource: health, version, discovery, OpenAPI.
    pub(crate) async fn path(&self, parts: &Parts) -> Result<Answer, ApiError> {
        if parts.method != Method::GET && parts.method != Method::HEAD {
            return Err(ApiError::method_not_allowed());
        }
        let path = parts.uri.path().trim_end_matches('/');
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        if let ["healthz" | "livez" | "readyz", ..] = segments.as_slice() {
            return Ok(Answer::ok(json!("ok")));
        }
        let kinds = self.kinds().await?;
        let extra = self.inner.extra;
        let found = match segments.as_slice() {
            ["version"] => Some(self.version()),
            ["api"] => Some(discovery::core_versions()),
            ["api", version] => discovery::resources(&kinds, extra, "", version),
            ["apis"] => Some(discovery::groups(&kinds, extra)),
            ["apis", group] => discovery::one_group(&kinds, extra, group),
            ["apis", group, version] => discovery::resources(&kinds, extra, group, version),
            ["openapi", "v2"] => {
                let (media, document) = openapi::v2(parts.headers.get(http::header::ACCEPT));
                return Ok(Answer::Raw(media, document, Vec::new()));
            }
            ["openapi", "v3"] => Some(openapi::v3_index(&kinds)),
            ["openapi", "v3", rest @ ..] => openapi::v3(&kinds, &rest.join("/")),
            [] => Some(
                json!({ "paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"] }),
            ),
            _ => None,
        };
        // What is not there is not found, in whatever form it was asked for.
        let found = found.ok_or_else(ApiError::no_such_path)?;
        Representation::of(parts)?;
        Ok(Answer::ok(found))
    }

    fn version(&self) -> Value {
        let version = &self.inner.options.version;
        json!({
            "major": version.major, "minor": version.minor, "gitVersion": version.git_version,
            "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "", "compiler": "rustc",
            "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        })
    }

    /// All kinds that are served now.
    pub(crate) async fn kinds(&self) -> Result<Arc<Vec<ServedKind>>, ApiError> {
        let generation = {
            let kinds = self.inner.kinds.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = &kinds.known {
                return Ok(Arc::clone(known));
            }
            kinds.generation
        };
        let mut kinds = kind::built_in();
        let range = Range {
            resource: resource::CUSTOM_RESOURCE_DEFINITIONS.to_owned(),
            namespace: None,
            after: None,
            limit: None,
        };
        for item in self.inner.store.list(range).await?.items {
            // One that cannot be read must not take every other kind with it.
            match serde_json::from_slice(&item.json) {
                Ok(definition) => kinds.extend(crd::kinds(&definition)),
                Err(error) => self.inner.store.unreadable(&item, &error.to_string()),
            }
        }
        let kinds = Arc::new(kinds);
        let mut kept = self.inner.kinds.write().unwrap_or_else(PoisonError::into_inner);
        if kept.generation == generation {
            kept.known = Some(Arc::clone(&kinds));
        }
        Ok(kinds)
    }

    /// A definition was written: what is served is read anew. Whoever writes definitions past [`crate::Api`] calls it.
    pub fn forget_kinds(&self) {
        let mut kept = self.inner.kinds.write().unwrap_or_else(PoisonError::into_inner);
        kept.generation += 1;
        kept.known = None;
    }

    async fn kind(&self, attributes: &Attributes) -> Result<ServedKind, ApiError> {
        let kinds = self.kinds().await?;
        let found = kinds.iter().find(|kind| {
            *kind.group == *attributes.group
                && *kind.version == *attributes.version
                && *kind.plural == *attributes.resource
        });
        found.cloned().ok_or_else(ApiError::no_such_path)
    }

    /// The object at `key`, as stored and as a client sees it.
    pub(crate) async fn stored(&self, kind: &ServedKind, key: &ObjectKey) -> Result<(Item, Value), ApiError> {
        let item = self.inner.store.get(key).await?;
        let item = item.ok_or_else(|| ApiError::not_found(kind, &key.name))?;
        let object = self.readable(kind, &item).map_err(|why| ApiError::internal(&why))?;
        Ok((item, object))
    }

    /// A stored object as a client sees it, or why there is none. The store is told of one that cannot be read.
    pub(crate) fn readable(&self, kind: &ServedKind, item: &Item) -> Result<Value, String> {
        decode_stored(kind, &item.json, item.revision).map_err(|error| {
            self.inner.store.unreadable(item, &error.message);
            format!("{} cannot be read and is left out: {}", item.key, error.message)
        })
    }

    async fn get(&self, request: &ApiRequest<'_>) -> Result<Answer, ApiError> {
        let (_, object) = self.stored(&request.kind, &request.key()).await?;
        Ok(Answer::ok(self.represent(request, object)))
    }

    /// One object as the client wants it.
    pub(crate) fn represent(&self, request: &ApiRequest<'_>, object: Value) -> Value {
        match request.representation {
            Representation::Object => object,
            Representation::Metadata => printers::partial(&object),
            Representation::Table => {
                let meta = json!({ "resourceVersion": object["metadata"]["resourceVersion"] });
                let include = request.query.get("includeObject").unwrap_or_default();
                printers::table(&request.kind, std::slice::from_ref(&object), meta, include, self.now())
            }
        }
    }
}
