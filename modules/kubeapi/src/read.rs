//! Get and list.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::api::{Answer, Api, Call, Form};
use crate::failure::Failure;
use crate::field::{as_fields, entry};
use crate::kind::Kind;
use crate::request::{Attributes, Query};
use crate::selector::{Fields, Labels};
use crate::sheet::{Pace, STRIDE, Sheet};
use crate::store::{Item, Key, Range, Store};
use crate::table;

/// 500: what is read at once when a selector has to look at objects that it may not take.
const CHUNK: usize = 500;

/// Which objects a list or a watch is about.
pub(crate) struct Choice {
    labels: Labels,
    fields: Fields,
}

impl Choice {
    pub(crate) fn of(call: &Call<'_>) -> Result<Choice, Failure> {
        let labels = Labels::parse(call.query.get("labelSelector").unwrap_or_default())?;
        let selector = call.query.get("fieldSelector").unwrap_or_default();
        let mut fields = Fields::parse(selector, &call.kind.group_resource())?;
        if !call.attributes.name.is_empty() {
            // Who may see this one may not see the others.
            fields = fields.named(&call.attributes.name)?;
        }
        Ok(Choice { labels, fields })
    }

    /// Whether it takes everything, so that nothing has to be looked at.
    pub(crate) fn is_all(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn takes(&self, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }

    /// The one object that it can only be.
    fn only(&self, namespaced: bool, namespace: &str) -> Option<&str> {
        self.fields.only_name().filter(|_| !namespaced || !namespace.is_empty())
    }
}

/// A stored object as a client sees it.
pub(crate) fn present(kind: &Kind, json: &[u8], revision: u64) -> Result<Value, Failure> {
    let mut object: Value = serde_json::from_slice(json).map_err(|error| Failure::internal(&error))?;
    as_fields(&mut object).insert("apiVersion".to_owned(), json!(kind.api_version()));
    as_fields(&mut object).insert("kind".to_owned(), json!(&*kind.kind));
    as_fields(entry(&mut object, "metadata"))
        .insert("resourceVersion".to_owned(), json!(revision.to_string()));
    Ok(object)
}

impl Call<'_> {
    pub(crate) fn key(&self) -> Key {
        Key {
            resource: self.kind.group_resource(),
            namespace: if self.kind.namespaced { self.attributes.namespace.clone() } else { String::new() },
            name: self.attributes.name.clone(),
        }
    }

    /// One object as the client wants it.
    pub(crate) fn shape<S: Store>(&self, api: &Api<S>, object: Value) -> Value {
        match self.form {
            Form::Whole => object,
            Form::Metadata => table::partial(&object),
            Form::Table => {
                let meta = json!({ "resourceVersion": object["metadata"]["resourceVersion"] });
                let include = self.query.get("includeObject").unwrap_or_default();
                table::render(&self.kind, std::slice::from_ref(&object), meta, include, api.now())
            }
        }
    }
}

impl<S: Store> Api<S> {
    /// The object at `key`, as stored and as a client sees it.
    pub(crate) async fn read(&self, kind: &Kind, key: &Key) -> Result<(Item, Value), Failure> {
        let item = self.inner.store.get(key).await?;
        let item = item.ok_or_else(|| Failure::not_found(&kind.names_of(), &key.name))?;
        let object = present(kind, &item.json, item.revision)?;
        Ok((item, object))
    }

    pub(crate) async fn get(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let (_, object) = self.read(&call.kind, &call.key()).await?;
        Ok(Answer::ok(call.shape(self, object)))
    }

    pub(crate) async fn list(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let choice = Choice::of(call)?;
        let limit = call.query.number("limit").filter(|limit| *limit > 0);
        let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let (first, after) = match call.query.get("continue").filter(|token| !token.is_empty()) {
            Some(token) => {
                let (first, namespace, name) = read_continue(token)?;
                (Some(first), Some((namespace, name)))
            }
            None => (None, None),
        };
        let (items, revision, more) = self.select_items(call, &choice, after, limit).await?;
        // Every page answers the first one's: a watch from there misses nothing of any page.
        let revision = first.unwrap_or(revision);
        if call.query.get("resourceVersionMatch") == Some("Exact")
            && call.query.number("resourceVersion").is_some_and(|wanted| wanted != revision)
        {
            return Err(Failure::gone(revision));
        }
        let mut meta = json!({ "resourceVersion": revision.to_string() });
        if let Some(last) = items.last().filter(|_| more) {
            meta["continue"] = json!(write_continue(revision, &last.key));
        }
        if call.form == Form::Table {
            self.rows(call, &items, meta).await
        } else {
            self.items(call, &items, meta).await
        }
    }

    /// A list of whole objects, or of their metadata.
    async fn items(&self, call: &Call<'_>, items: &[Item], meta: Value) -> Result<Answer, Failure> {
        let kind = &call.kind;
        let (list_kind, version) = match call.form {
            Form::Metadata => ("PartialObjectMetadataList", "meta.k8s.io/v1".to_owned()),
            Form::Whole | Form::Table => (&*kind.list_kind, kind.api_version()),
        };
        let head = json!({ "kind": list_kind, "apiVersion": version, "metadata": meta });
        let mut sheet = Sheet::begin(&head, "items")?;
        let is_custom = matches!(kind.source, crate::kind::Source::Custom(_));
        for item in items {
            let mut object = present(kind, &item.json, item.revision)?;
            if call.form == Form::Metadata {
                object = table::partial(&object);
            } else if !is_custom {
                // Items of a list carry no kind of their own, but a custom object's reader has no types to take it from.
                crate::field::remove(&mut object, "kind");
                crate::field::remove(&mut object, "apiVersion");
            }
            sheet.add(&object, item.json.len()).await?;
        }
        Ok(sheet.end())
    }

    /// A list as a table. Some objects at a time: their columns are made ready once for all of them.
    async fn rows(&self, call: &Call<'_>, items: &[Item], meta: Value) -> Result<Answer, Failure> {
        let include = call.query.get("includeObject").unwrap_or_default();
        let mut head = table::render(&call.kind, &[], meta, include, self.now());
        crate::field::remove(&mut head, "rows");
        let mut sheet = Sheet::begin(&head, "rows")?;
        let (mut some, mut bytes) = (Vec::new(), 0);
        for (at, item) in items.iter().enumerate() {
            some.push(present(&call.kind, &item.json, item.revision)?);
            bytes += item.json.len();
            if bytes < STRIDE && at + 1 < items.len() {
                continue;
            }
            let table = table::render(&call.kind, &some, Value::Null, include, self.now());
            let each = bytes / some.len().max(1);
            for row in crate::field::list(&table, "/rows") {
                sheet.add(row, each).await?;
            }
            some.clear();
            bytes = 0;
        }
        Ok(sheet.end())
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
        let limit = query.number("limit").filter(|limit| *limit > 0 && !selects && wanted.verb == "list");
        let after = said("continue").and_then(|token| read_continue(token).ok());
        self.inner.store.weigh(&Range {
            resource: match wanted.group.as_str() {
                "" => wanted.resource.clone(),
                group => format!("{}.{group}", wanted.resource),
            },
            namespace: Some(wanted.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            after: after.map(|(_, namespace, name)| (namespace, name)),
            limit: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        })
    }

    /// Objects that `choice` takes, the revision that they show, and whether there are more: as they are stored, which
    /// takes no memory of its own.
    pub(crate) async fn select_items(
        &self,
        call: &Call<'_>,
        choice: &Choice,
        mut after: Option<(String, String)>,
        limit: Option<usize>,
    ) -> Result<(Vec<Item>, u64, bool), Failure> {
        let namespace = call.kind.namespaced.then(|| call.attributes.namespace.clone());
        let namespace = namespace.filter(|namespace| !namespace.is_empty());
        let resource = call.kind.group_resource();
        let takes = |item: &Item| -> Result<bool, Failure> {
            Ok(choice.is_all() || choice.takes(&present(&call.kind, &item.json, item.revision)?))
        };
        if let Some(name) = choice.only(call.kind.namespaced, &call.attributes.namespace) {
            // The revision first: what changes after it comes by the watch.
            let revision = self.inner.store.revision();
            let key = Key { resource, namespace: namespace.unwrap_or_default(), name: name.to_owned() };
            let item = self.inner.store.get(&key).await?;
            let taken = item.as_ref().map(takes).transpose()?.unwrap_or(false);
            return Ok((item.into_iter().filter(|_| taken).collect(), revision, false));
        }
        let (mut items, mut pace) = (Vec::new(), Pace::default());
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
                if !choice.is_all() {
                    pace.step(item.json.len()).await;
                }
                if !takes(&item)? {
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

/// (revision of the first page, namespace and name of the last object so far)
type Continue = (u64, String, String);

fn write_continue(first: u64, last: &Key) -> String {
    URL_SAFE_NO_PAD.encode(json!([first, last.namespace, last.name]).to_string())
}

fn read_continue(token: &str) -> Result<Continue, Failure> {
    let read = || {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        serde_json::from_slice::<Continue>(&bytes).ok()
    };
    read().ok_or_else(|| Failure::bad_request("continue key is not valid"))
}
