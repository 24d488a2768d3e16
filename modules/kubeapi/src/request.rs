//! What a request wants, from its path, query, method and headers.

use std::num::{IntErrorKind, ParseIntError};

use apimachinery::{Kind, ObjectKey};
use http::Method;
use http::header::ACCEPT;
use http::request::Parts;
use serde_json::Value;

use crate::error::{ApiError, FieldError};
use crate::kind::ServedKind;
use crate::selector::{Fields, Selector};

/// 3 MiB: the largest body that is read, as with a real server.
pub const BODY_MAX: usize = 3 << 20;

/// The one value of `dryRun`.
pub(crate) const DRY_RUN: &str = "All";

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

/// How the client wants objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Representation {
    Object,
    Table,
    /// `PartialObjectMetadata`.
    Metadata,
}

impl Representation {
    /// # Errors
    /// 406 if the client takes no JSON.
    pub(crate) fn of(parts: &Parts) -> Result<Representation, ApiError> {
        let Some(accept) = parts.headers.get(ACCEPT).and_then(|value| value.to_str().ok()) else {
            return Ok(Representation::Object);
        };
        for part in accept.split(',') {
            let mut words = part.split(';').map(str::trim);
            let media = words.next().unwrap_or_default();
            if !matches!(media, "application/json" | "application/*" | "*/*" | "") {
                continue;
            }
            match words.find_map(|word| word.strip_prefix("as=")) {
                None => return Ok(Representation::Object),
                Some("Table") => return Ok(Representation::Table),
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") => {
                    return Ok(Representation::Metadata);
                }
                Some(_) => {}
            }
        }
        // The text of a health check may be asked for as anything.
        if parts.uri.path().ends_with('z') {
            Ok(Representation::Object)
        } else {
            Err(ApiError::not_acceptable())
        }
    }
}

/// A request for objects of a served kind.
pub struct ApiRequest<'a> {
    pub(crate) kind: ServedKind,
    /// Verb, resource, namespace, name and subresource.
    pub attributes: Attributes,
    pub(crate) query: Query,
    pub(crate) representation: Representation,
    pub(crate) content_type: String,
    pub(crate) body: &'a [u8],
    /// Who asks.
    pub user: &'a User,
}

impl ApiRequest<'_> {
    /// The object that it names.
    pub fn key(&self) -> ObjectKey {
        ObjectKey {
            resource: self.kind.group_resource(),
            namespace: if self.kind.namespaced { self.attributes.namespace.clone() } else { String::new() },
            name: self.attributes.name.clone(),
        }
    }

    /// The kind of the objects.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Which objects a list, a watch or a `deletecollection` is about.
    ///
    /// # Errors
    /// 400 if a selector is none.
    pub(crate) fn selector(&self) -> Result<Selector, ApiError> {
        let said = |key: &str| self.query.get(key).unwrap_or_default();
        let (labels, fields) = (said("labelSelector"), said("fieldSelector"));
        Selector::parse(labels, fields, &self.kind.group_resource(), &self.attributes.name)
    }

    /// The `resourceVersion` that is asked for; `None` for one that says nothing.
    ///
    /// # Errors
    /// 400 if it is no number.
    pub(crate) fn resource_version(&self) -> Result<Option<u64>, ApiError> {
        match self.query.get("resourceVersion") {
            None | Some("" | "0") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                let shown: String = text.chars().take(64).flat_map(char::escape_debug).collect();
                ApiError::bad_request(format!("invalid resource version `{shown}`"))
            }),
        }
    }

    /// Whether nothing is to be stored.
    pub fn is_dry_run(&self) -> bool {
        self.query.all("dryRun").any(|value| value == DRY_RUN)
    }

    /// Whether a write's options are ones that there are: one that is misspelt must not become a write.
    ///
    /// # Errors
    /// 422, as a server of Kubernetes answers.
    pub(crate) fn check_options(&self) -> Result<(), ApiError> {
        if !matches!(
            self.attributes.verb.as_str(),
            "create" | "update" | "patch" | "delete" | "deletecollection"
        ) {
            return Ok(());
        }
        match self.query.all("dryRun").find(|value| *value != DRY_RUN) {
            Some(other) => Err(self.no_dry_run(&Value::from(other))),
            None => Ok(()),
        }
    }

    /// 422 for a `dryRun` that is none.
    pub(crate) fn no_dry_run(&self, found: &Value) -> ApiError {
        let options = match self.attributes.verb.as_str() {
            "create" => "CreateOptions",
            "update" => "UpdateOptions",
            "patch" => "PatchOptions",
            _ => "DeleteOptions",
        };
        let cause = FieldError::unsupported("dryRun", found, &[DRY_RUN]);
        ApiError::invalid_options(options, &cause)
    }
}

/// What a request wants to do, for an authorizer (RBAC's terms).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; a method in lower case for
    /// paths that are no resources.
    pub verb: String,
    /// The API group; empty for the core group.
    pub group: String,
    /// The version.
    pub version: String,
    /// The plural; empty for a path that is no resource.
    pub resource: String,
    /// The subresource, or empty.
    pub subresource: String,
    /// The namespace, or empty.
    pub namespace: String,
    /// The name, or empty. A list or a watch that asks for one name by its field selector has that one.
    pub name: String,
    /// The path, for those that are no resources.
    pub path: String,
}

impl Attributes {
    /// Reads a request.
    pub fn of(parts: &Parts) -> Attributes {
        let path = parts.uri.path();
        let query = Query::of(parts.uri.query().unwrap_or_default());
        let segments: Vec<String> =
            path.split('/').filter(|segment| !segment.is_empty()).map(decode).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (group, version, rest) = match segments.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => {
                let verb = parts.method.as_str().to_ascii_lowercase();
                return Attributes { verb, path: path.to_owned(), ..Attributes::default() };
            }
        };
        let owned = str::to_owned;
        let mut found = Attributes {
            group: owned(group),
            version: owned(version),
            path: owned(path),
            ..Attributes::default()
        };
        // The old way to watch: a word in front of the path.
        let (rest, old_watch) = match rest {
            ["watch", rest @ ..] if !rest.is_empty() => (rest, true),
            rest => (rest, false),
        };
        let rest = match rest {
            // `namespaces/x/finalize` and `namespaces/x/status` are of the namespace itself.
            ["namespaces", name, sub @ ("finalize" | "status")] => {
                found.namespace = owned(name);
                &["namespaces", *name, *sub][..]
            }
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => {
                found.namespace = owned(namespace);
                rest
            }
            rest => rest,
        };
        let mut rest = rest.iter();
        found.resource = rest.next().copied().map(owned).unwrap_or_default();
        found.name = rest.next().copied().map(owned).unwrap_or_default();
        found.subresource = rest.map(|s| (*s).to_owned()).collect::<Vec<_>>().join("/");
        let watches = |word: &str| !matches!(word.to_ascii_lowercase().as_str(), "false" | "0");
        found.verb = owned(match (&parts.method, found.name.is_empty()) {
            (&Method::GET | &Method::HEAD, _) if old_watch => "watch",
            // With a name in the path it is a get, whatever the query says.
            (&Method::GET | &Method::HEAD, true) if query.get("watch").is_some_and(watches) => "watch",
            (&Method::GET | &Method::HEAD, true) => "list",
            (&Method::GET | &Method::HEAD, false) => "get",
            (&Method::POST, _) => "create",
            (&Method::PUT, _) => "update",
            (&Method::PATCH, _) => "patch",
            (&Method::DELETE, true) => "deletecollection",
            (&Method::DELETE, false) => "delete",
            _ => "unknown",
        });
        // As with a real server, a deletecollection is never authorized by name.
        if found.name.is_empty() && matches!(found.verb.as_str(), "list" | "watch") {
            let wanted = Fields::name_in(query.get("fieldSelector").unwrap_or_default());
            let is_segment =
                |name: &String| !matches!(name.as_str(), "." | "..") && !name.contains(['/', '%']);
            found.name = wanted.filter(is_segment).unwrap_or_default();
        }
        found
    }
}

/// The query of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn of(text: &str) -> Query {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(&key.replace('+', " ")), decode(&value.replace('+', " ")))
        });
        Query(pairs.collect())
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_true(&self, key: &str) -> bool {
        matches!(self.get(key), Some("true" | "1"))
    }

    /// A bound that is above zero: nothing, zero and what lies below it are none, as with a real server.
    ///
    /// # Errors
    /// 400, in Go's words, which clients see from a real server, for what is no number of 64 bits.
    pub(crate) fn bound(&self, key: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.get(key) else { return Ok(None) };
        let number: i64 = text.parse().map_err(|error: ParseIntError| {
            let range = matches!(error.kind(), IntErrorKind::PosOverflow | IntErrorKind::NegOverflow);
            let what = if range { "value out of range" } else { "invalid syntax" };
            ApiError::bad_request(format!("{key}: strconv.ParseInt: parsing {text:?}: {what}"))
        })?;
        Ok(u64::try_from(number).ok().filter(|number| *number > 0))
    }
}

/// Percent-decoding (RFC 3986); what is no valid escape stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = (byte == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .and_then(|two| std::str::from_utf8(two).ok())
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        match escape {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: Method, uri: &str) -> Attributes {
        Attributes::of(&http::Request::builder().method(method).uri(uri).body(()).unwrap().into_parts().0)
    }

    #[test]
    fn paths_are_read_as_a_server_reads_them() {
        let pod = of(Method::GET, "/api/v1/namespaces/d/pods/a/log?x=1");
        assert_eq!((pod.verb.as_str(), pod.namespace.as_str(), pod.resource.as_str()), ("get", "d", "pods"));
        assert_eq!((pod.name.as_str(), pod.subresource.as_str()), ("a", "log"));
        let all = of(Method::GET, "/apis/apps/v1/deployments?watch=true");
        assert_eq!((all.verb.as_str(), all.group.as_str(), all.namespace.as_str()), ("watch", "apps", ""));
        let namespace = of(Method::DELETE, "/api/v1/namespaces/d");
        assert_eq!((namespace.verb.as_str(), namespace.resource.as_str()), ("delete", "namespaces"));
        assert_eq!(namespace.name, "d");
        let finalize = of(Method::PUT, "/api/v1/namespaces/d/finalize");
        assert_eq!((finalize.resource.as_str(), finalize.subresource.as_str()), ("namespaces", "finalize"));
        assert_eq!(of(Method::DELETE, "/api/v1/namespaces/d/pods").verb, "deletecollection");
        assert_eq!(of(Method::GET, "/version").path, "/version");
        assert_eq!(of(Method::GET, "/apis/apps/v1").resource, "");
        assert_eq!(of(Method::GET, "/api/v1/watch/pods").verb, "watch");
        let named = of(Method::GET, "/api/v1/namespaces/d/secrets/a?watch=true");
        assert_eq!((named.verb.as_str(), named.name.as_str()), ("get", "a"));
        let old = of(Method::GET, "/api/v1/watch/namespaces/d/secrets/a");
        assert_eq!((old.verb.as_str(), old.name.as_str()), ("watch", "a"));
        assert_eq!(of(Method::GET, "/api/v1/pods?watch=0").verb, "list");
        let odd = of(Method::GET, "/api/v1/nodes/a%3Ab%zz");
        assert_eq!(odd.name, "a:b%zz");
    }

    #[test]
    fn a_list_of_one_name_is_authorized_by_that_name() {
        let name = |method: Method, uri: &str| of(method, &format!("/api/v1/pods?{uri}")).name;
        assert_eq!(name(Method::GET, "fieldSelector=spec.nodeName%3Dn,metadata.name%3Dx"), "x");
        assert_eq!(name(Method::GET, "watch=1&fieldSelector=metadata.name=x"), "x");
        assert_eq!(name(Method::GET, "fieldSelector=metadata.name!=x"), "");
        assert_eq!(name(Method::GET, "fieldSelector=metadata.name=x/y"), "");
        assert_eq!(name(Method::DELETE, "fieldSelector=metadata.name=x"), "");
    }
}
