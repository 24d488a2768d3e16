//! The entry: one request in, one answer out.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::kind::{self, Kind};
use crate::request::{Attributes, Query};
use crate::store::{Range, Store};
use crate::{custom, discovery};

/// 3 MiB: the largest body that is read, as with a real server.
pub const BODY_MAX: usize = 3 << 20;

/// The GroupResource of definitions.
pub(crate) const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The name, for example `system:serviceaccount:default:web`.
    pub name: String,
    /// The groups.
    pub groups: Vec<String>,
    /// The uid, or empty.
    pub uid: String,
}

impl User {
    /// Whether the user may do everything: a member of `system:masters`.
    pub fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == "system:masters")
    }
}

/// What a service account's token is to say.
#[derive(Debug, Clone)]
pub struct TokenOrder {
    /// Namespace of the account.
    pub namespace: String,
    /// The account.
    pub service_account: String,
    /// Its uid.
    pub service_account_uid: String,
    /// For whom; empty means the API server itself.
    pub audiences: Vec<String>,
    /// How long it should live.
    pub expiration_seconds: i64,
    /// Name and uid of the pod that it dies with.
    pub pod: Option<(String, String)>,
}

/// What only a server with keys and an authorizer can do.
pub trait Hooks: Send + Sync {
    /// A signed token, the audiences that it is for, and its end.
    ///
    /// # Errors
    /// A sentence.
    fn mint_token(&self, order: &TokenOrder) -> Result<(String, Vec<String>, Timestamp), String>;
    /// Whose token it is, and which of `audiences` it is for (an empty list asks for the API server itself); `None` if
    /// it is nobody's or for none of them.
    fn review_token<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Option<(User, Vec<String>)>>;
    /// Whether the user may.
    fn authorize<'a>(&'a self, user: &'a User, attributes: &'a Attributes) -> BoxFuture<'a, bool>;
    /// The rules (RBAC's `PolicyRule`) that the user has in a namespace, with those of the whole cluster; in an empty
    /// one only the latter. Who may not `escalate` or `bind` gives no more than these. None by default.
    fn rules_of<'a>(&'a self, _user: &'a User, _namespace: &'a str) -> BoxFuture<'a, Vec<Value>> {
        Box::pin(std::future::ready(Vec::new()))
    }
}

/// What `/version` says.
#[derive(Debug, Clone)]
pub struct VersionInfo {
    /// `1`
    pub major: String,
    /// `33`
    pub minor: String,
    /// `v1.33.0+…`
    pub git_version: String,
}

/// Clock, randomness and hooks.
#[derive(Clone)]
pub struct Options {
    /// Wall time.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Random bytes for uids and names.
    pub random: Arc<dyn Fn() -> [u8; 16] + Send + Sync>,
    /// Completes after a pause, for the ends of watches.
    pub sleep: Arc<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>,
    /// What `/version` says.
    pub version: VersionInfo,
    /// What only the server can do.
    pub hooks: Arc<dyn Hooks>,
}

/// The body of an answer.
pub enum Body {
    /// All of it.
    Whole(Bytes),
    /// A watch: a JSON document a line, for as long as it is read.
    Stream(BoxStream<'static, Bytes>),
}

/// The Kubernetes API over a store. Cheap to clone.
pub struct Api<S: Store> {
    pub(crate) inner: Arc<Inner<S>>,
}

impl<S: Store> Clone for Api<S> {
    fn clone(&self) -> Self {
        Api { inner: Arc::clone(&self.inner) }
    }
}

pub(crate) struct Inner<S> {
    pub(crate) store: Arc<S>,
    pub(crate) options: Options,
    kinds: RwLock<Kinds>,
    /// Held from the choice of a service's address to its write.
    pub(crate) addresses: tokio::sync::Mutex<()>,
}

/// What is served, as far as it is known.
#[derive(Default)]
struct Kinds {
    /// How often it was forgotten: what was read before that is not kept.
    generation: u64,
    known: Option<Arc<Vec<Kind>>>,
}

/// How the client wants objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Whole,
    Table,
    Metadata,
}

/// One request, taken apart.
pub(crate) struct Call<'a> {
    pub(crate) kind: Kind,
    pub(crate) attributes: Attributes,
    pub(crate) query: Query,
    pub(crate) form: Form,
    pub(crate) content_type: String,
    pub(crate) body: &'a [u8],
    pub(crate) user: &'a User,
}

/// An answer before it is bytes.
pub(crate) enum Answer {
    Object(StatusCode, Value, Vec<String>),
    /// Bytes of a media type that is no object.
    Raw(&'static str, Bytes),
    Stream(BoxStream<'static, Bytes>),
}

impl Answer {
    pub(crate) fn ok(object: Value) -> Self {
        Answer::Object(StatusCode::OK, object, Vec::new())
    }
}

impl<S: Store> Api<S> {
    /// The API over `store`.
    pub fn new(store: Arc<S>, options: Options) -> Self {
        let (kinds, addresses) = (RwLock::default(), tokio::sync::Mutex::default());
        Api { inner: Arc::new(Inner { store, options, kinds, addresses }) }
    }

    /// The store behind it.
    pub fn store(&self) -> &Arc<S> {
        &self.inner.store
    }

    /// What a request wants to do, for an authorizer.
    pub fn attributes(&self, parts: &Parts) -> Attributes {
        Attributes::of(parts)
    }

    /// Answers a request of an authenticated and authorized user.
    pub async fn handle(&self, request: Request<Bytes>, user: &User) -> Response<Body> {
        let (parts, body) = request.into_parts();
        match self.answer(&parts, &body, user).await {
            Ok(Answer::Object(code, object, warnings)) => whole(code, &object, &warnings),
            Ok(Answer::Raw(media, bytes)) => {
                let mut response = Response::new(Body::Whole(bytes));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
                response
            }
            Ok(Answer::Stream(stream)) => {
                let mut response = Response::new(Body::Stream(stream));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            Err(failure) => refusal(&failure),
        }
    }

    async fn answer(&self, parts: &Parts, body: &[u8], user: &User) -> Result<Answer, Failure> {
        if body.len() > BODY_MAX {
            return Err(Failure::too_large(&format!("limit is {BODY_MAX}")));
        }
        let attributes = Attributes::of(parts);
        if attributes.resource.is_empty() {
            return self.paths(parts).await;
        }
        let form = form(parts)?;
        let query = Query::of(parts.uri.query().unwrap_or_default());
        let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or("application/json").to_owned();
        if let Some(answer) = self.review(&attributes, &content_type, body, user).await? {
            return Ok(answer);
        }
        let kind = self.kind(&attributes).await?;
        // The name of a list or a watch may be of its selector.
        let selects = matches!(attributes.verb.as_str(), "list" | "watch");
        if kind.namespaced && attributes.namespace.is_empty() && !attributes.name.is_empty() && !selects
            || !kind.namespaced && !attributes.namespace.is_empty() && kind.group_resource() != "namespaces"
        {
            return Err(Failure::no_such_path());
        }
        let call = Call { kind, attributes, query, form, content_type, body, user };
        if !call.attributes.subresource.is_empty() {
            return self.subresource(call).await;
        }
        match call.attributes.verb.as_str() {
            "get" => self.get(&call).await,
            "list" => self.list(&call).await,
            "watch" => self.watch(&call).await,
            "create" if call.attributes.name.is_empty() => self.create(&call).await,
            "update" if !call.attributes.name.is_empty() => self.update(&call).await,
            "patch" if !call.attributes.name.is_empty() => self.patch(&call).await,
            "delete" => self.delete(&call).await,
            "deletecollection" => self.delete_collection(&call).await,
            _ => Err(Failure::method()),
        }
    }

    async fn paths(&self, parts: &Parts) -> Result<Answer, Failure> {
        if parts.method != Method::GET && parts.method != Method::HEAD {
            return Err(Failure::method());
        }
        let kinds = self.kinds().await?;
        let path = parts.uri.path().trim_end_matches('/');
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let found = match segments.as_slice() {
            ["healthz" | "livez" | "readyz", ..] => return Ok(Answer::ok(json!("ok"))),
            ["version"] => {
                let version = &self.inner.options.version;
                Some(json!({
                    "major": version.major, "minor": version.minor, "gitVersion": version.git_version,
                    "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
                    "goVersion": "", "compiler": "rustc",
                    "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
                }))
            }
            ["api"] => Some(discovery::core_versions()),
            ["api", version] => discovery::resources(&kinds, "", version),
            ["apis"] => Some(discovery::groups(&kinds)),
            ["apis", group] => discovery::one_group(&kinds, group),
            ["apis", group, version] => discovery::resources(&kinds, group, version),
            ["openapi", "v2"] => {
                let (media, document) = discovery::openapi_v2(parts.headers.get(ACCEPT));
                return Ok(Answer::Raw(media, document));
            }
            ["openapi", "v3"] => Some(discovery::openapi_index(&kinds)),
            ["openapi", "v3", rest @ ..] => discovery::openapi(&kinds, &rest.join("/")),
            [] => Some(
                json!({ "paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"] }),
            ),
            _ => None,
        };
        // What is not there is not found, in whatever form it was asked for.
        let found = found.ok_or_else(Failure::no_such_path)?;
        form(parts)?;
        Ok(Answer::ok(found))
    }

    /// All kinds that are served now.
    pub(crate) async fn kinds(&self) -> Result<Arc<Vec<Kind>>, Failure> {
        let generation = {
            let kinds = self.inner.kinds.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = &kinds.known {
                return Ok(Arc::clone(known));
            }
            kinds.generation
        };
        let mut kinds = kind::built_in();
        let range = Range { resource: DEFINITIONS.to_owned(), namespace: None, after: None, limit: None };
        for item in self.inner.store.list(range).await?.items {
            let definition = serde_json::from_slice(&item.json).map_err(|error| Failure::internal(&error))?;
            kinds.extend(custom::kinds(&definition));
        }
        let kinds = Arc::new(kinds);
        let mut kept = self.inner.kinds.write().unwrap_or_else(PoisonError::into_inner);
        if kept.generation == generation {
            kept.known = Some(Arc::clone(&kinds));
        }
        Ok(kinds)
    }

    /// A definition was written: what is served is read anew.
    pub(crate) fn forget_kinds(&self) {
        let mut kept = self.inner.kinds.write().unwrap_or_else(PoisonError::into_inner);
        kept.generation += 1;
        kept.known = None;
    }

    async fn kind(&self, attributes: &Attributes) -> Result<Kind, Failure> {
        let kinds = self.kinds().await?;
        let found = kinds.iter().find(|kind| {
            *kind.group == *attributes.group
                && *kind.version == *attributes.version
                && *kind.plural == *attributes.resource
        });
        found.cloned().ok_or_else(Failure::no_such_path)
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.inner.options.now)()
    }

    /// Now as Kubernetes writes times: whole seconds.
    pub(crate) fn now_text(&self) -> String {
        let seconds = Timestamp::from_second(self.now().as_second()).unwrap_or_default();
        seconds.to_string()
    }
}

fn form(parts: &Parts) -> Result<Form, Failure> {
    let Some(accept) = parts.headers.get(ACCEPT).and_then(|value| value.to_str().ok()) else {
        return Ok(Form::Whole);
    };
    let not_acceptable = || Failure {
        code: 406,
        reason: "NotAcceptable",
        message: "only the following media types are accepted: application/json".to_owned(),
        details: None,
    };
    for part in accept.split(',') {
        let mut words = part.split(';').map(str::trim);
        let media = words.next().unwrap_or_default();
        if !matches!(media, "application/json" | "application/*" | "*/*" | "") {
            continue;
        }
        match words.find_map(|word| word.strip_prefix("as=")) {
            None => return Ok(Form::Whole),
            Some("Table") => return Ok(Form::Table),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") => return Ok(Form::Metadata),
            Some(_) => {}
        }
    }
    // The text of a health check may be asked for as anything.
    if parts.uri.path().ends_with('z') { Ok(Form::Whole) } else { Err(not_acceptable()) }
}

fn whole(code: StatusCode, object: &Value, warnings: &[String]) -> Response<Body> {
    let (bytes, media) = match object {
        Value::String(text) => (text.clone().into_bytes(), "text/plain; charset=utf-8"),
        object => (serde_json::to_vec(object).unwrap_or_default(), "application/json"),
    };
    let mut response = Response::new(Body::Whole(Bytes::from(bytes)));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
    response
}

/// A refusal as an answer.
fn refusal(failure: &Failure) -> Response<Body> {
    let code = StatusCode::from_u16(failure.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    whole(code, &failure.to_status(), &[])
}

impl Failure {
    /// The refusal as an answer.
    pub fn to_response(&self) -> Response<Body> {
        refusal(self)
    }
}
