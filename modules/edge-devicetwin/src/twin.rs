//! A device as DeviceTwin knows it: its state and its twins.

use std::collections::{BTreeMap, BTreeSet};

use contract::ids::DeviceName;
use contract::{DeviceCondition, TwinValue, UpReport};

/// What is known of a device besides its twins. Every device that the node has has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    /// The device's uid: another one is another device.
    pub(crate) uid: String,
    /// online, offline, ok, unhealthy or unknown, as it was said.
    pub(crate) state: String,
    /// RFC 3339, when it was last online.
    pub(crate) last_online: Option<String>,
    /// Why it is in that state, as its mapper says.
    pub(crate) reason: Option<String>,
    /// The cloud does not know of it yet: its report waits for its turn.
    pub(crate) unreported: bool,
    /// What is wrong with the device, as the cloud was told.
    pub(crate) conditions: Vec<DeviceCondition>,
    /// The properties that its object named when it was last taken over: those that it names no more go.
    pub(crate) named: BTreeSet<String>,
    /// The protocol whose mapper has spoken for it last; none of one that speaks over MQTT alone.
    pub(crate) mapper: Option<String>,
}

impl State {
    /// Of a device that said nothing yet.
    pub(crate) fn unknown(uid: &str) -> Self {
        State {
            uid: uid.to_owned(),
            state: "unknown".to_owned(),
            last_online: None,
            reason: None,
            unreported: false,
            conditions: Vec::new(),
            named: BTreeSet::new(),
            mapper: None,
        }
    }

    /// What the cloud is to know of it.
    pub(crate) fn report(&self, id: &DeviceName) -> UpReport {
        UpReport::DeviceState {
            namespace: id.namespace.clone(),
            name: id.name.clone(),
            state: self.state.clone(),
            last_online_time: self.last_online.clone(),
        }
    }
}

/// A value and when this node took it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Side {
    /// The value as text.
    pub(crate) value: String,
    /// Milliseconds since 1970, by this node's clock.
    pub(crate) timestamp: i64,
}

/// How often each end has set a side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Version {
    /// By the cloud.
    pub(crate) cloud: u64,
    /// By the node.
    pub(crate) edge: u64,
}

/// One property of one device: what it is, and what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Twin {
    /// What it should be, by the last who said so: the cloud or an MQTT client.
    pub(crate) expected: Option<Side>,
    /// What the device says that it is.
    pub(crate) actual: Option<Side>,
    /// What the mapper says that it should be: it shows whether the cloud's word has come through.
    pub(crate) observed: Option<Side>,
    /// Versions of `expected`.
    pub(crate) expected_version: Version,
    /// Versions of `actual`.
    pub(crate) actual_version: Version,
    /// Whether an MQTT client may delete it.
    pub(crate) optional: bool,
    /// The type of its values: string, int, integer, float or boolean.
    pub(crate) value_type: String,
    /// The cloud's desired value that `expected` has taken over, so that each one is taken once.
    pub(crate) desired: Option<String>,
    /// What an application on the node wants in place of what the cloud wanted, until that wants something else.
    pub(crate) edge_desired: Option<String>,
    /// Why the device says no `actual`, or what is wrong beside it.
    pub(crate) actual_error: Option<String>,
    /// Why the device was not given what is desired.
    pub(crate) observed_error: Option<String>,
    /// Nothing has been heard of `actual` for two of its cycles: since when that is known, in milliseconds since 1970.
    pub(crate) stale: Option<i64>,
    /// It was deleted. The row stays, because versions go on from it.
    pub(crate) deleted: bool,
    /// The cloud does not know of it yet: its report waits for its turn.
    pub(crate) unreported: bool,
}

impl Twin {
    /// A twin without values.
    pub(crate) fn new(value_type: &str) -> Self {
        Twin {
            expected: None,
            actual: None,
            observed: None,
            expected_version: Version::default(),
            actual_version: Version::default(),
            optional: true,
            value_type: value_type.to_owned(),
            desired: None,
            edge_desired: None,
            actual_error: None,
            observed_error: None,
            stale: None,
            deleted: false,
            unreported: false,
        }
    }

    /// Whether `other` would tell anybody something new: times and versions alone do not.
    pub(crate) fn says_the_same_as(&self, other: &Twin) -> bool {
        let value = |side: &Option<Side>| side.as_ref().map(|side| side.value.clone());
        value(&self.expected) == value(&other.expected)
            && value(&self.actual) == value(&other.actual)
            && value(&self.observed) == value(&other.observed)
            && self.optional == other.optional
            && self.value_type == other.value_type
            && self.desired == other.desired
            && self.edge_desired == other.edge_desired
            && self.actual_error == other.actual_error
            && self.observed_error == other.observed_error
            && self.stale.is_some() == other.stale.is_some()
            && self.deleted == other.deleted
    }

    /// What the cloud is told that it should be: the value that the device was given last, or the one that it was not given, as long as
    /// there is a reason for that.
    pub(crate) fn told_desired(&self) -> Option<&Side> {
        let expected = self.expected.as_ref();
        let refused = expected.filter(|side| self.observed_error.is_some() && !side.value.is_empty());
        refused.or(self.observed.as_ref()).or(expected)
    }

    /// Whether that is what an application on the node wants. It is not while the mapper works towards another value still.
    fn is_set_by_edge(&self) -> bool {
        let told = self.told_desired().map(|side| &side.value);
        self.edge_desired.as_ref().is_some_and(|wanted| told.is_none_or(|told| told == wanted))
    }

    /// Whether all that is said of `actual` is why there is none.
    pub(crate) fn has_only_an_error(&self) -> bool {
        self.actual_error.is_some() && self.actual.as_ref().is_none_or(|side| side.value.is_empty())
    }

    /// What the cloud is to know of it.
    pub(crate) fn report(&self, id: &DeviceName, property: &str) -> UpReport {
        let known = |side: Option<&Side>, notes: &[(&str, Option<String>)]| {
            let side = side.filter(|_| !self.deleted)?;
            let mut metadata = BTreeMap::from([
                ("timestamp".to_owned(), side.timestamp.to_string()),
                ("type".to_owned(), self.value_type.clone()),
            ]);
            let notes = notes.iter().filter_map(|(key, note)| Some(((*key).to_owned(), note.clone()?)));
            metadata.extend(notes);
            Some(TwinValue { value: side.value.clone(), metadata })
        };
        let stale = self.stale.map(|since| since.to_string());
        let set_by = self.is_set_by_edge().then(|| "edge".to_owned());
        let of_actual = [("error", self.actual_error.clone()), ("stale", stale)];
        let of_desired = [("error", self.observed_error.clone()), ("setBy", set_by)];
        UpReport::Twin {
            namespace: id.namespace.clone(),
            name: id.name.clone(),
            property: property.to_owned(),
            reported: known(self.actual.as_ref(), &of_actual),
            observed_desired: known(self.told_desired(), &of_desired),
        }
    }
}
