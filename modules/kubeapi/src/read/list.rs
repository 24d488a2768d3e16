//! List, and what a list looks at.

use apimachinery::{ObjectKey, resource};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::list_encoder::{ListEncoder, YIELD_EVERY, Yielder};
use super::{ReadApi, list_options, printers};
use crate::error::ApiError;
use crate::kind::Source;
use crate::request::{ApiRequest, Attributes, Query, Representation};
use crate::response::Answer;
use crate::selector::Selector;
use crate::store::{Item, Range, ReadStore};
use crate::unstructured;

/// 500: what is read at once when a selector has to look at objects that it may not take.
const CHUNK: usize = 500;

impl<S: ReadStore> ReadApi<S> {
    pub(super) async fn list(&self, request: &ApiRequest<'_>) -> Result<Answer, ApiError> {
        let selector = request.selector()?;
        list_options::check(&request.query, false)?;
        let wanted = request.resource_version()?;
        let is_exact = request.query.get("resourceVersionMatch") == Some("Exact");
        let Paging { first, after, limit } = Paging::of(request)?;
        if first.is_some() && wanted.is_some() {
            let what = "specifying resource version is not allowed when using continue";
            return Err(ApiError::bad_request(what));
        }
        let (items, revision, more) = self.select_items(request, &selector, after, limit).await?;
        // Every page answers the first one's: a watch from there misses nothing of any page.
        let revision = first.unwrap_or(revision);
        match wanted {
            Some(wanted) if wanted > revision => return Err(ApiError::not_there_yet(wanted, revision)),
            Some(wanted) if is_exact && wanted != revision => return Err(ApiError::expired(revision)),
            Some(_) | None => {}
        }
        let mut meta = json!({ "resourceVersion": revision.to_string() });
        if let Some(last) = items.last().filter(|_| more) {
            meta["continue"] = json!(write_continue(revision, &last.key));
        }
        if request.representation == Representation::Table {
            self.rows(request, &items, meta).await
        } else {
            self.items(request, &items, meta).await
        }
    }

    /// A list of whole objects, or of their metadata.
    async fn items(&self, request: &ApiRequest<'_>, items: &[Item], meta: Value) -> Result<Answer, ApiError> {
        let kind = &request.kind;
        let (list_kind, version) = match request.representation {
            Representation::Metadata => ("PartialObjectMetadataList", "meta.k8s.io/v1".to_owned()),
            Representation::Object | Representation::Table => (&*kind.list_kind, kind.api_version()),
        };
        let head = json!({ "kind": list_kind, "apiVersion": version, "metadata": meta });
        let mut encoder = ListEncoder::begin(&head, "items")?;
        let is_custom = matches!(kind.source, Source::Custom(_));
        for item in items {
            let mut object = match self.readable(kind, item) {
                Ok(object) => object,
                Err(why) => {
                    encoder.skip(why);
                    continue;
                }
            };
            if request.representation == Representation::Metadata {
                object = printers::partial(&object);
            } else if !is_custom {
                // Items of a list carry no kind of their own, but a custom object's reader has no types to take it from.
                unstructured::remove(&mut object, "kind");
                unstructured::remove(&mut object, "apiVersion");
            }
            encoder.add(&object, item.json.len()).await?;
        }
        Ok(encoder.end())
    }

    /// A list as a table. Some objects at a time: their columns are made ready once for all of them.
    async fn rows(&self, request: &ApiRequest<'_>, items: &[Item], meta: Value) -> Result<Answer, ApiError> {
        let include = request.query.get("includeObject").unwrap_or_default();
        let mut head = printers::table(&request.kind, &[], meta, include, self.now());
        unstructured::remove(&mut head, "rows");
        let mut encoder = ListEncoder::begin(&head, "rows")?;
        let (mut some, mut bytes) = (Vec::new(), 0);
        for (at, item) in items.iter().enumerate() {
            match self.readable(&request.kind, item) {
                Ok(object) => some.push(object),
                Err(why) => encoder.skip(why),
            }
            bytes += item.json.len();
            if bytes < YIELD_EVERY && at + 1 < items.len() {
                continue;
            }
            let table = printers::table(&request.kind, &some, Value::Null, include, self.now());
            let each = bytes / some.len().max(1);
            for row in unstructured::list(&table, "/rows") {
                encoder.add(row, each).await?;
            }
            some.clear();
            bytes = 0;
        }
        Ok(encoder.end())
    }

    /// How many bytes of stored objects a list or a `deletecollection` looks at, and so about how many its answer can
    /// have; 0 for every other request. It costs a walk over the objects' sizes.
    pub fn weight(&self, wanted: &Attributes, query: Option<&str>) -> usize {
        let lists = matches!(wanted.verb.as_str(), "list" | "deletecollection");
        if !lists || wanted.resource.is_empty() || !wanted.name.is_empty() {
            return 0;
        }
        let query = Query::of(query.unwrap_or_default());
        let said = |key: &str| query.get(key).filter(|value| !value.is_empty());
        // With a selector there is no telling how many are looked at for those that it takes.
        let selects = said("labelSelector").is_some() || said("fieldSelector").is_some();
        // One that is no number is refused before anything is read.
        let limit = query.bound("limit").ok().flatten().filter(|_| !selects && wanted.verb == "list");
        let after = said("continue").and_then(|token| read_continue(token).ok());
        self.inner.store.weigh(&Range {
            resource: group_resource(wanted),
            namespace: Some(wanted.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            after: after.map(|(_, namespace, name)| (namespace, name)),
            limit: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        })
    }

    /// How many bytes the stored object has that a request names; 0 without one, and for a list or a watch.
    pub async fn stored_bytes(&self, wanted: &Attributes) -> usize {
        if wanted.name.is_empty() || matches!(wanted.verb.as_str(), "list" | "watch") {
            return 0;
        }
        let (resource, space) = (group_resource(wanted), wanted.namespace.as_str());
        // The namespace of a namespace's own path is itself.
        let space = if resource == resource::NAMESPACES { "" } else { space };
        let found = self.inner.store.get(&ObjectKey::new(resource, space, &*wanted.name)).await;
        found.ok().flatten().map_or(0, |item| item.json.len())
    }

    /// Objects that `selector` takes, the revision that they show, and whether there are more: as they are stored, which
    /// takes no memory of its own.
    pub(crate) async fn select_items(
        &self,
        request: &ApiRequest<'_>,
        selector: &Selector,
        mut after: Option<(String, String)>,
        limit: Option<usize>,
    ) -> Result<(Vec<Item>, u64, bool), ApiError> {
        let namespace = request.kind.namespaced.then(|| request.attributes.namespace.clone());
        let namespace = namespace.filter(|namespace| !namespace.is_empty());
        let resource = request.kind.group_resource();
        // What cannot be read has nothing that a selector could look at.
        let takes = |item: &Item| {
            selector.is_everything()
                || self.readable(&request.kind, item).is_ok_and(|object| selector.matches(&object))
        };
        if let Some(name) = selector.only(request.kind.namespaced, &request.attributes.namespace) {
            // The revision first: what changes after it comes by the watch.
            let revision = self.inner.store.revision();
            let key = ObjectKey::new(resource, namespace.unwrap_or_default(), name);
            let item = self.inner.store.get(&key).await?;
            let taken = item.as_ref().is_some_and(takes);
            return Ok((item.into_iter().filter(|_| taken).collect(), revision, false));
        }
        let (mut items, mut yielder) = (Vec::new(), Yielder::default());
        let mut shown = None;
        loop {
            let chunk = limit.map(|_| CHUNK);
            let range = Range {
                resource: resource.clone(),
                namespace: namespace.clone(),
                after: after.take(),
                limit: chunk,
            };
            let page = self.inner.store.list(range).await?;
            // The oldest revision of all pages: a watch from there misses nothing.
            let revision = *shown.get_or_insert(page.revision);
            let last = page.items.last().map(|item| (item.key.namespace.clone(), item.key.name.clone()));
            let count = page.items.len();
            for (at, item) in page.items.into_iter().enumerate() {
                if !selector.is_everything() {
                    yielder.after(item.json.len()).await;
                }
                if !takes(&item) {
                    continue;
                }
                items.push(item);
                if limit.is_some_and(|limit| items.len() >= limit) {
                    return Ok((items, revision, page.more || at + 1 < count));
                }
            }
            if !page.more || last.is_none() {
                return Ok((items, revision, false));
            }
            after = last;
        }
    }
}

/// The GroupResource that a request is about.
fn group_resource(wanted: &Attributes) -> String {
    match wanted.group.as_str() {
        "" => wanted.resource.clone(),
        group => format!("{}.{group}", wanted.resource),
    }
}

/// Which page of a list, or of a `deletecollection`, is asked for.
pub(crate) struct Paging {
    /// The revision of the first page; `None` for that itself.
    first: Option<u64>,
    /// Namespace and name of the last object so far.
    pub(crate) after: Option<(String, String)>,
    /// How many objects.
    pub(crate) limit: Option<usize>,
}

impl Paging {
    /// # Errors
    /// 400 for a limit that is no number and for a token that none was given.
    pub(crate) fn of(request: &ApiRequest<'_>) -> Result<Paging, ApiError> {
        let limit = request.query.bound("limit")?;
        let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let token = request.query.get("continue").filter(|token| !token.is_empty());
        let page = token.map(read_continue).transpose()?;
        let (first, after) = page.map(|(first, namespace, name)| (first, (namespace, name))).unzip();
        Ok(Paging { first, after, limit })
    }
}

/// (revision of the first page, namespace and name of the last object so far)
type Continue = (u64, String, String);

pub(crate) fn write_continue(first: u64, last: &ObjectKey) -> String {
    URL_SAFE_NO_PAD.encode(json!([first, last.namespace, last.name]).to_string())
}

fn read_continue(token: &str) -> Result<Continue, ApiError> {
    let read = || {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        serde_json::from_slice::<Continue>(&bytes).ok()
    };
    read().ok_or_else(|| ApiError::bad_request("continue key is not valid"))
}
