//! CustomResourceDefinitions as objects: their status, and what goes with them.

use apimachinery::resource;
use serde_json::{Value, json};

use super::api::Api;
use super::structural_schema;
use crate::crd;
use crate::error::ApiError;
use crate::kind::ServedKind;
use crate::store::{Range, Store, Write, WriteError};
use crate::unstructured::{as_fields, list, text};

/// 8: how often what is left of a kind is listed, while others write it.
const TRIES: usize = 8;

/// A definition is served as soon as it is stored: its status says so.
pub(super) fn establish(definition: &mut Value, now: &str) {
    let names = definition["spec"]["names"].clone();
    let versions = list(definition, "/spec/versions").iter();
    let storage = versions.filter(|version| version["storage"] == json!(true));
    let stored: Vec<Value> = storage.map(|version| version["name"].clone()).collect();
    let old = list(definition, "/status/conditions").to_vec();
    let condition = |kind: &str, reason: &str, message: &str| {
        let before = old.iter().find(|condition| text(condition, "/type") == kind);
        let since = before.map_or(now, |condition| text(condition, "/lastTransitionTime"));
        json!({ "type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": since })
    };
    let status = json!({
        "acceptedNames": names,
        "storedVersions": stored,
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
    });
    as_fields(definition).insert("status".to_owned(), status);
}

/// What its author should hear of a definition: rules in CEL that are kept and never looked at.
pub(super) fn warnings(kind: &ServedKind, definition: &Value) -> Option<String> {
    let versions = kind.is(resource::CUSTOM_RESOURCE_DEFINITIONS).then(|| list(definition, "/spec/versions"));
    let schemas = versions?.iter().filter_map(|version| version.pointer("/schema/openAPIV3Schema"));
    let rules: usize = schemas.map(|schema| unheld_rules(schema, false)).sum();
    (rules > 0).then(|| {
        format!(
            "{rules} rules of x-kubernetes-validations are kept and hold nothing here: this server evaluates no CEL but the rules `false`, `self == oldSelf` and `has(self.FIELD) == has(oldSelf.FIELD)`, the latter two not in lists"
        )
    })
}

/// How many rules there are that nothing is held against, however deep.
fn unheld_rules(schema: &Value, is_in_list: bool) -> usize {
    let rules = list(schema, "/x-kubernetes-validations").iter();
    let own = rules.filter(|rule| !structural_schema::is_held(rule, is_in_list)).count();
    let below = schema["properties"].as_object().into_iter().flat_map(|fields| fields.values());
    let below =
        below.chain(schema.get("additionalProperties")).map(|schema| unheld_rules(schema, is_in_list));
    let others = ["allOf", "anyOf", "oneOf"]
        .into_iter()
        .flat_map(|name| schema[name].as_array().into_iter().flatten());
    let others = others.chain(schema.get("items")).chain(schema.get("not"));
    own + below.sum::<usize>() + others.map(|schema| unheld_rules(schema, true)).sum::<usize>()
}

impl<S: Store> Api<S> {
    /// After a write of an object of `kind`, and with `removed` after its removal: what is served may be another, and
    /// the objects of a definition go with it.
    pub(super) async fn after_write(
        &self,
        kind: &ServedKind,
        removed: Option<&Value>,
    ) -> Result<(), ApiError> {
        if !kind.is(resource::CUSTOM_RESOURCE_DEFINITIONS) {
            return Ok(());
        }
        self.reader.forget_kinds();
        match removed {
            Some(definition) => self.remove_objects_of(definition).await,
            None => Ok(()),
        }
    }

    async fn remove_objects_of(&self, definition: &Value) -> Result<(), ApiError> {
        let kinds = crd::kinds(definition);
        let Some(kind) = kinds.first() else { return Ok(()) };
        let range = Range { resource: kind.group_resource(), namespace: None, after: None, limit: None };
        for _ in 0..TRIES {
            let items = self.store().list(range.clone()).await?.items;
            if items.is_empty() {
                return Ok(());
            }
            for item in items {
                let write = Write::Delete { key: item.key, expected: item.revision };
                match self.store().write(write).await {
                    // Who lost against another write is in the next list.
                    Ok(_) | Err(WriteError::Missing | WriteError::Conflict { .. } | WriteError::Exists) => {}
                    Err(error) => return Err(ApiError::internal(&error)),
                }
            }
        }
        Err(ApiError::internal(&"objects of the definition are written faster than they are removed"))
    }
}
