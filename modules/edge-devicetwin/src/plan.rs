//! Decides what becomes of twins and who is a member. Pure.

mod desire;
mod observe;

use std::collections::{BTreeMap, BTreeSet};

use contract::ids::DeviceName;
pub(crate) use contract::parsed::TWINS_MAX;
use contract::parsed::VALUE_MAX;
use crd::DeviceModel;

use crate::twin::{Side, Twin};

pub(crate) use desire::{desire, named_by, types};
use observe::untaken;
pub(crate) use observe::{Modelled, Observation, RefusedValue, observe, sentence};

/// 128 characters of a property's name (KubeEdge).
const NAME_MAX: usize = 128;
/// 512 characters of a value over MQTT (KubeEdge).
const MQTT_VALUE_MAX: usize = 512;
/// 16 properties of a refused message are looked at, each by itself.
const CULPRITS_MAX: usize = 16;
/// The type of a property that nobody gave one.
const TEXT: &str = "string";

/// KubeEdge's codes of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// 400
    BadRequest,
    /// 404: no such device.
    NotFound,
    /// 409: another one is in its way.
    Conflict,
    /// 500: the store does not take it.
    Internal,
    /// 503: nobody is there to do it.
    Unavailable,
}

impl Code {
    /// The number on the wire.
    pub(crate) fn number(self) -> u16 {
        match self {
            Code::BadRequest => 400,
            Code::NotFound => 404,
            Code::Conflict => 409,
            Code::Internal => 500,
            Code::Unavailable => 503,
        }
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: Code,
    pub(crate) reason: String,
}

impl Refused {
    /// A refusal.
    pub(crate) fn new(code: Code, reason: impl Into<String>) -> Self {
        Refused { code, reason: reason.into() }
    }
}

fn bad(reason: impl Into<String>) -> Refused {
    Refused::new(Code::BadRequest, reason)
}

/// What somebody wants of one property.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum PropertyUpdate {
    /// It is to go.
    #[default]
    Delete,
    /// It is to be like that.
    Set(PropertyValues),
}

/// What a property is to be; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PropertyValues {
    /// What it should be.
    pub(crate) expected: Option<String>,
    /// What it is.
    pub(crate) actual: Option<String>,
    /// Whether it may be deleted.
    pub(crate) optional: Option<bool>,
    /// The type of its values.
    pub(crate) value_type: Option<String>,
}

/// What cannot be taken of a property, whatever the property is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// What it is, where it is and how to write it.
    pub(crate) reason: String,
    /// It was meant to be what the property is.
    pub(crate) is_of_actual: bool,
}

/// What a client's message wants of a device's properties.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// What could be read.
    pub(crate) updates: BTreeMap<String, PropertyUpdate>,
    /// What could not.
    pub(crate) malformed: BTreeMap<String, Malformed>,
}

impl Wanted {
    /// Nothing of it is taken when one part cannot be read.
    ///
    /// # Errors
    /// What cannot.
    pub(crate) fn check(&self) -> Result<(), Refused> {
        let first = self.malformed.values().next();
        first.map_or(Ok(()), |malformed| Err(bad(malformed.reason.clone())))
    }

    /// The properties that it names.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.updates.keys().chain(self.malformed.keys()).cloned().collect()
    }
}

/// What one property was and becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TwinChange {
    pub(crate) property: String,
    /// `None` when it was not there.
    pub(crate) before: Option<Twin>,
    pub(crate) after: Twin,
}

impl TwinChange {
    /// Whether it says anything that was not known.
    pub(crate) fn is_new(&self) -> bool {
        self.before.as_ref().is_none_or(|before| !before.says_the_same_as(&self.after))
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.,:/@#".contains(&byte)
}

/// Whether a property may be called that (KubeEdge).
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(is_plain) {
        return Ok(());
    }
    Err(format!("property `{}` is not 1 to 128 of a-z A-Z 0-9 - _ . , : / @ #", cut(name)))
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Whether an MQTT client may give `value` to a property of this type (KubeEdge).
fn check_value(property: &str, value: &str, value_type: &str) -> Result<(), String> {
    if value.len() > MQTT_VALUE_MAX || !value.bytes().all(is_plain) {
        return Err(format!("the value of `{property}` is not at most 512 of a-z A-Z 0-9 - _ . , : / @ #"));
    }
    let fits = match value_type {
        "int" | "integer" => crd::is_whole_number(value),
        "float" => value.parse::<f64>().is_ok(),
        "boolean" => matches!(value, "true" | "false"),
        _ => true,
    };
    if !fits {
        return Err(format!("the value of `{property}` is not of its type, {value_type}"));
    }
    check_finite(property, value, value_type)
}

/// A number is one that can be counted with, whoever tells it: JSON has no other, no desired value may be another, and a sensor that has
/// no reading has no value.
fn check_finite(property: &str, value: &str, value_type: &str) -> Result<(), String> {
    let is_number = matches!(value_type, "int" | "integer" | "float");
    if is_number && value.trim().parse::<f64>().is_ok_and(|number| !number.is_finite()) {
        return Err(format!(
            "the value of `{property}` is not a finite number; report why there is none instead"
        ));
    }
    Ok(())
}

/// What a client's `twin/update` makes of the twins of a device: all of it or nothing.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn update(
    held: &BTreeMap<String, Twin>,
    updates: &BTreeMap<String, PropertyUpdate>,
    model: Option<&DeviceModel>,
    now: i64,
) -> Result<Vec<TwinChange>, Refused> {
    if updates.len() > TWINS_MAX {
        return Err(bad("more than 1024 properties in one message"));
    }
    let (mut changes, types) = (Vec::with_capacity(updates.len()), types(model));
    for (property, update) in updates {
        check_name(property).map_err(bad)?;
        let before = held.get(property);
        let after = match update {
            PropertyUpdate::Set(values) => {
                check_desired(property, values.expected.as_deref().unwrap_or_default(), model)
                    .map_err(bad)?;
                change(property, before, values, types.get(property.as_str()).copied(), now)?
            }
            // What is not there is gone (KubeEdge).
            PropertyUpdate::Delete => match before.filter(|twin| !twin.deleted) {
                Some(living) => delete(living),
                None => continue,
            },
        };
        changes.push(TwinChange { property: property.clone(), before: before.cloned(), after });
    }
    check_room(held, &changes).map_err(bad)?;
    Ok(changes)
}

/// Which of a refused message's properties it was refused for, each with its reason; `None` of a message that names too many to look at each.
pub(crate) fn culprits(
    held: &BTreeMap<String, Twin>,
    wanted: &Wanted,
    model: Option<&DeviceModel>,
    now: i64,
) -> Option<BTreeMap<String, String>> {
    if wanted.updates.len() + wanted.malformed.len() > CULPRITS_MAX {
        return None;
    }
    let malformed = wanted.malformed.iter().map(|(property, malformed)| (property, malformed.reason.clone()));
    let refused = wanted.updates.iter().filter_map(|(property, wanted)| {
        let alone = BTreeMap::from([(property.clone(), wanted.clone())]);
        Some((property, update(held, &alone, model, now).err()?.reason))
    });
    let all = malformed.chain(refused).filter(|(property, _)| property.len() <= NAME_MAX);
    Some(all.map(|(property, reason)| (property.clone(), reason)).collect())
}

/// What an update that is refused says of the device all the same: of which properties it tells a value that cannot be taken. What they
/// were holds no more. A property that is not there, and that the device and its model do not name, is nobody's.
pub(crate) fn refused_values(
    held: &BTreeMap<String, Twin>,
    wanted: &Wanted,
    modelled: &Modelled<'_>,
    now: i64,
) -> Observation {
    let mut observation = Observation::default();
    let told = wanted.updates.iter().filter_map(|(property, update)| match update {
        PropertyUpdate::Set(PropertyValues { actual: Some(value), .. }) => Some((property, Ok(value))),
        PropertyUpdate::Set(_) | PropertyUpdate::Delete => None,
    });
    let malformed = wanted.malformed.iter().filter(|(_, malformed)| malformed.is_of_actual);
    for (property, value) in told.chain(malformed.map(|(property, malformed)| (property, Err(malformed)))) {
        let before = held.get(property);
        let is_there = before.is_some_and(|twin| !twin.deleted) || modelled.names(property);
        if !is_there || check_name(property).is_err() {
            continue;
        }
        let mut after = begin(before, modelled.types.get(property.as_str()).copied());
        let reason = match value {
            Ok(value) => check_value(property, value, &after.value_type).err(),
            Err(malformed) => Some(malformed.reason.clone()),
        };
        let Some(reason) = reason else { continue };
        let error = Some(untaken(&reason));
        let is_new = before.is_none_or(|twin| twin.deleted || twin.actual_error != error);
        after.actual = Some(Side { value: String::new(), timestamp: now });
        after.actual_version.edge += 1;
        (after.actual_error, after.stale) = (error, None);
        observation.refused.push(RefusedValue { property: property.clone(), reason, is_new });
        let change = TwinChange { property: property.clone(), before: before.cloned(), after };
        observation.changes.push(change);
    }
    observation
}

/// Whether anybody may be told to make a property that: what the cloud wants and what an application wants has to be what the device's
/// model allows. A property that the model does not name is the application's own. An empty value wants nothing.
///
/// # Errors
/// Why not.
pub(crate) fn check_desired(property: &str, wanted: &str, model: Option<&DeviceModel>) -> Result<(), String> {
    if wanted.is_empty() {
        return Ok(());
    }
    if wanted.len() > VALUE_MAX {
        return Err(format!("the value of property `{property}` has more than 4096 bytes"));
    }
    let modelled = model.into_iter().flat_map(|model| &model.spec.properties).find(|p| p.name == property);
    let checked = modelled.map_or(Ok(()), |modelled| modelled.check_desired(wanted));
    checked.map_err(|reason| format!("property `{property}` {reason}"))
}

/// Whether a value is a whole number that 64 bits hold only without a sign: KubeEdge's mappers read none, and go on without the property.
pub(crate) fn is_unsigned(value: &str) -> bool {
    crd::is_whole_number(value) && value.parse::<i64>().is_err()
}

fn check_room(held: &BTreeMap<String, Twin>, changes: &[TwinChange]) -> Result<(), String> {
    let new = changes.iter().filter(|change| change.before.is_none()).count();
    if held.len() + new > TWINS_MAX {
        return Err("a device has at most 1024 properties".to_owned());
    }
    Ok(())
}

/// One that is not optional stays as it is (KubeEdge).
fn delete(living: &Twin) -> Twin {
    if !living.optional {
        return living.clone();
    }
    let mut after = gone(living);
    after.expected_version.edge += 1;
    after.actual_version.edge += 1;
    after
}

/// What is left of a twin that goes: its versions, and what the cloud wanted.
fn gone(before: &Twin) -> Twin {
    Twin {
        deleted: true,
        expected_version: before.expected_version,
        actual_version: before.actual_version,
        desired: before.desired.clone(),
        unreported: before.unreported,
        ..Twin::new(&before.value_type)
    }
}

/// The model says of which type a property is; of one that it does not name, the first to write it. It may become obligatory and
/// never optional again.
fn change(
    property: &str,
    before: Option<&Twin>,
    values: &PropertyValues,
    modelled: Option<&str>,
    now: i64,
) -> Result<Twin, Refused> {
    let mut twin = match before {
        Some(living) if !living.deleted => {
            let mut twin = living.clone();
            twin.optional &= values.optional.unwrap_or(true);
            twin
        }
        Some(_) | None => {
            let written = values.value_type.as_deref().filter(|word| !word.is_empty());
            // Where the model says it, what a client writes there is as it likes: KubeEdge's mappers say `Updated`.
            let value_type = modelled.or(written).unwrap_or(TEXT);
            if !matches!(value_type, "string" | "int" | "integer" | "float" | "boolean") {
                let shown = cut(value_type);
                return Err(bad(format!(
                    "type `{shown}` of `{property}` is none of string, int, integer, float and boolean"
                )));
            }
            let fresh = Twin { optional: values.optional.unwrap_or(true), ..Twin::new(value_type) };
            // Versions go on where a deleted one left off.
            before.map_or(fresh.clone(), |old| Twin {
                expected_version: old.expected_version,
                actual_version: old.actual_version,
                desired: old.desired.clone(),
                ..fresh
            })
        }
    };
    if let Some(modelled) = modelled {
        modelled.clone_into(&mut twin.value_type);
    }
    if let Some(value) = &values.expected {
        // An empty value takes back what was wanted, of whatever type that is.
        let value_type = if value.is_empty() { TEXT } else { &twin.value_type };
        twin.expected = Some(taken(property, value, value_type, now)?);
        twin.expected_version.edge += 1;
        (twin.observed, twin.observed_error) = (None, None);
        twin.edge_desired = (!value.is_empty()).then(|| value.clone());
    }
    if let Some(value) = &values.actual {
        twin.actual = Some(taken(property, value, &twin.value_type, now)?);
        twin.actual_version.edge += 1;
        (twin.actual_error, twin.stale) = (None, None);
    }
    Ok(twin)
}

fn taken(property: &str, value: &str, value_type: &str, now: i64) -> Result<Side, Refused> {
    check_value(property, value, value_type).map_err(bad)?;
    Ok(Side { value: value.to_owned(), timestamp: now })
}

/// A property that somebody speaks of lives, even if it was deleted before. It is of its model's type, if that names one.
fn begin(before: Option<&Twin>, value_type: Option<&str>) -> Twin {
    let mut twin = before.cloned().unwrap_or_else(|| Twin::new(TEXT));
    if let Some(value_type) = value_type {
        value_type.clone_into(&mut twin.value_type);
    }
    twin.deleted = false;
    twin
}

/// The properties of a whole device that are not what they should be. It is an order to the device: what its model does not allow, or
/// no longer, is not in it.
pub(crate) fn delta<'a>(
    twins: &'a BTreeMap<String, Twin>,
    model: Option<&DeviceModel>,
) -> BTreeMap<&'a str, &'a str> {
    let living = twins.iter().filter(|(_, twin)| !twin.deleted);
    let differing = living.filter_map(|(name, twin)| {
        let expected = twin.expected.as_ref()?.value.as_str();
        let actual = twin.actual.as_ref().map_or("", |side| side.value.as_str());
        let is_due = !expected.is_empty() && expected != actual;
        (is_due && check_desired(name, expected, model).is_ok()).then_some((name.as_str(), expected))
    });
    differing.collect()
}

/// The states, for people.
pub(crate) const STATES: &str = "online, offline, ok, unhealthy and unknown";

/// The state that a mapper means. KubeEdge's framework has one more, which its edgecore passes over.
pub(crate) fn state_of_mapper(said: &str) -> Option<&str> {
    match said {
        disconnected if disconnected.eq_ignore_ascii_case("disconnected") => Some("offline"),
        state => is_online(state).map(|_| state),
    }
}

/// Whether a word is a state (KubeEdge), and then whether a device in it is there.
pub(crate) fn is_online(state: &str) -> Option<bool> {
    match state.to_ascii_lowercase().as_str() {
        "online" | "ok" => Some(true),
        "offline" | "unhealthy" | "unknown" => Some(false),
        _ => None,
    }
}

/// Who came and who went.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) added: Vec<DeviceName>,
    pub(crate) removed: Vec<DeviceName>,
    /// Another device under the same name: gone and come.
    pub(crate) replaced: Vec<DeviceName>,
}

/// Compares the uids of the devices that were known with those found. What is `present` but could not be read stays
/// as it is.
pub(crate) fn membership(
    known: &BTreeMap<DeviceName, String>,
    found: &BTreeMap<DeviceName, String>,
    present: &BTreeSet<DeviceName>,
) -> Membership {
    let mut membership = Membership::default();
    for (id, uid) in found {
        match known.get(id) {
            None => membership.added.push(id.clone()),
            Some(old) if old != uid => membership.replaced.push(id.clone()),
            Some(_) => {}
        }
    }
    membership.removed =
        known.keys().filter(|id| !found.contains_key(*id) && !present.contains(*id)).cloned().collect();
    membership
}

#[cfg(test)]
mod tests;
