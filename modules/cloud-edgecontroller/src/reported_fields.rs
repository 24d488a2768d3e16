//! Takes a node's report field by field: what an API server would not take, or what breaks those who read it, is left out and
//! named, and the rest is written. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use apimachinery::Quantity as Amount;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// 8 fields are named, and how many there were.
const NAMED_MAX: usize = 8;
/// 128 bytes of a field's name: a resource's is the node's own word.
const NAME_MAX: usize = 128;

/// The fields that were left out of a report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    named: Vec<String>,
    count: usize,
}

impl LeftOut {
    /// One more.
    pub(crate) fn add(&mut self, field: impl Into<String>) {
        self.count += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(crate::status_texts::cut_to(field.into(), NAME_MAX));
        }
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The first of them.
    pub(crate) fn named(&self) -> &[String] {
        &self.named
    }
}

/// A status as a node said it, of which the fields are taken one by one.
pub(crate) struct Fields<'a> {
    said: &'a Value,
    left_out: &'a mut LeftOut,
}

impl<'a> Fields<'a> {
    /// `None`: it is no object.
    pub(crate) fn of(said: &'a Value, left_out: &'a mut LeftOut) -> Option<Self> {
        said.is_object().then_some(Fields { said, left_out })
    }

    fn field(&self, name: &str) -> Option<&'a Value> {
        self.said.get(name).filter(|value| !value.is_null())
    }

    /// Something in it was left out.
    pub(crate) fn leave_out(&mut self, field: String) {
        self.left_out.add(field);
    }

    /// A field of that type.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        self.take_if(name, |_| true)
    }

    /// A field of that type, if it holds.
    pub(crate) fn take_if<T: DeserializeOwned>(
        &mut self,
        name: &str,
        fits: impl FnOnce(&T) -> bool,
    ) -> Option<T> {
        let taken = T::deserialize(self.field(name)?).ok().filter(fits);
        if taken.is_none() {
            self.left_out.add(name);
        }
        taken
    }

    /// The word, if it is one of those.
    pub(crate) fn word(&mut self, name: &str, words: &[&str]) -> Option<String> {
        self.take_if(name, |word: &String| words.contains(&word.as_str()))
    }

    /// The address, if it is one.
    pub(crate) fn address(&mut self, name: &str) -> Option<String> {
        self.take_if(name, |text: &String| text.parse::<IpAddr>().is_ok())
    }

    /// The entries of a list that are of that type and fit, the first of those with one `key`.
    pub(crate) fn list<T: DeserializeOwned>(
        &mut self,
        name: &str,
        mut fits: impl FnMut(&mut T) -> bool,
        key: impl Fn(&T) -> String,
    ) -> Option<Vec<T>> {
        let Some(entries) = self.field(name)?.as_array() else {
            self.left_out.add(name);
            return None;
        };
        let (mut taken, mut seen) = (Vec::new(), BTreeSet::new());
        for (at, entry) in entries.iter().enumerate() {
            match T::deserialize(entry).ok().and_then(|mut entry| fits(&mut entry).then_some(entry)) {
                Some(entry) if seen.insert(key(&entry)) => taken.push(entry),
                _ => self.left_out.add(format!("{name}[{at}]")),
            }
        }
        Some(taken)
    }

    /// The amounts of resources that are amounts, and none below nothing; at most `most` of them.
    pub(crate) fn amounts(&mut self, name: &str, most: usize) -> Option<BTreeMap<String, Quantity>> {
        let Some(entries) = self.field(name)?.as_object().filter(|entries| entries.len() <= most) else {
            self.left_out.add(name);
            return None;
        };
        let mut taken = BTreeMap::new();
        for (resource, said) in entries {
            match amount(resource, said) {
                Some(amount) => drop(taken.insert(resource.clone(), amount)),
                None => self.left_out.add(format!("{name}.{resource}")),
            }
        }
        Some(taken)
    }
}

/// As Kubernetes validates the amounts of a Node: whole where things are counted.
fn amount(resource: &str, said: &Value) -> Option<Quantity> {
    let amount = Amount::from_json(said).filter(|amount| *amount >= Amount::ZERO)?;
    let is_whole = amount.nanos() % Amount::from_millis(1000).nanos() == 0;
    let is_native = resource.split_once('/').is_none_or(|(domain, _)| domain.ends_with("kubernetes.io"));
    let is_counted = resource == "pods" || !is_native;
    (is_whole || !is_counted).then(|| Quantity(said.as_str().map_or_else(|| said.to_string(), str::to_owned)))
}

/// Whether each of a container's amounts is one.
pub(crate) fn are_amounts(amounts: Option<&BTreeMap<String, Quantity>>) -> bool {
    amounts.is_none_or(|all| all.values().all(|amount| amount.0.parse::<Amount>().is_ok()))
}

/// Takes out of a status what the API server named when it refused it (422), by the field's first part; whether there was any.
pub(crate) fn without_refused(status: &mut Value, error: &kube::Error, left_out: &mut LeftOut) -> bool {
    let kube::Error::Api(refusal) = error else { return false };
    let Some(fields) = status.as_object_mut().filter(|_| refusal.code == 422) else { return false };
    let causes = refusal.details.iter().flat_map(|details| &details.causes);
    let before = fields.len();
    for cause in causes {
        let Some(path) = cause.field.strip_prefix("status.") else { continue };
        let name = path.split(['.', '[']).next().unwrap_or_default();
        // A condition that is left out is one that nobody says; the others of a list are not told from it.
        if fields.remove(name).is_some() {
            left_out.add(cause.field.clone());
        }
    }
    fields.len() < before
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_api_server_names_is_left_out_and_nothing_else() {
        let refusal = |code: u16, fields: &[&str]| {
            let causes: Vec<Value> =
                fields.iter().map(|field| json!({"field": field, "message": "m", "reason": "r"})).collect();
            let status = json!({"status": "Failure", "code": code, "reason": "Invalid", "message": "m",
                "details": {"causes": causes}});
            kube::Error::Api(Box::new(serde_json::from_value(status).unwrap()))
        };
        let said = json!({"podIPs": [], "phase": "Running", "message": "m"});
        let (mut status, mut left_out) = (said.clone(), LeftOut::default());
        let named = ["status.podIPs[1]", "status.podIPs[2].ip", "spec.phase", "status.other"];
        assert!(without_refused(&mut status, &refusal(422, &named), &mut left_out));
        assert_eq!(status, json!({"phase": "Running", "message": "m"}));
        assert_eq!((left_out.count(), left_out.named()), (1, &["status.podIPs[1]".to_owned()][..]));
        assert!(
            !without_refused(&mut status, &refusal(422, &named), &mut left_out),
            "there is nothing left to leave out"
        );
        assert!(!without_refused(&mut status, &refusal(400, &["status.phase"]), &mut left_out));
    }
}
