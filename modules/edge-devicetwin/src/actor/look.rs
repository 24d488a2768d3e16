//! What the cloud wants: devices come and go, and desired values become twins.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use beehive::{Context, Fault};
use contract::devicetwin::TwinMsg;

use super::{DeviceTwin, millis};
use crate::members::{self, Member};
use crate::payload::{self, Base};
use crate::plan::{self, Membership, Touch};
use crate::rows::{self, State};
use crate::topic::{self, DeviceId};

/// 5 s before a look that the store refused is tried again.
const LOOK_RETRY: Duration = Duration::from_secs(5);

impl DeviceTwin {
    pub(super) async fn look(&mut self, cx: &Context<TwinMsg>) {
        if let Err(reason) = self.try_look(cx).await {
            tracing::error!(%reason, "devices not taken over from the store");
            cx.after(cx.env().jitter(LOOK_RETRY), TwinMsg::Look);
        }
    }

    async fn try_look(&mut self, cx: &Context<TwinMsg>) -> Result<(), String> {
        let found = members::find(&self.store).map_err(|error| Fault::from_error(&error).reason)?;
        let known = self.members.iter().map(|(id, member)| (id.clone(), member.state.uid.clone())).collect();
        let change = plan::membership(&known, &found.uids, &found.present);
        let fresh: BTreeSet<DeviceId> = change.added.iter().chain(&change.replaced).cloned().collect();
        let touched = members::desire(&self.members, &found.catalog, &fresh, millis(cx.wall()));
        let mut writes = Vec::new();
        for id in change.removed.iter().chain(&change.replaced) {
            writes.extend([rows::delete_twins(id), rows::delete_state(id)]);
        }
        let uid_of = |id| found.uids.get(id).map(String::as_str).unwrap_or_default();
        let states: BTreeMap<DeviceId, State> =
            fresh.iter().map(|id| (id.clone(), State::unknown(uid_of(id)))).collect();
        writes.extend(states.iter().map(|(id, state)| rows::put_state(id, state)));
        for (id, touches) in &touched {
            writes.extend(members::writes(id, touches));
        }
        self.commit(writes).await?;
        // What could not be read this time is as it was.
        let mut catalog = found.catalog;
        for (id, device) in std::mem::take(&mut self.catalog.devices) {
            if found.present.contains(&id) && known.contains_key(&id) {
                catalog.devices.entry(id).or_insert(device);
            }
        }
        self.catalog = catalog;
        self.shares.clear();
        for id in &change.removed {
            self.members.remove(id);
        }
        for (id, state) in states {
            self.members.insert(id, Member::new(state, BTreeMap::new()));
        }
        self.tell_membership(&change, cx);
        for (id, touches) in touched {
            self.keep(&id, &touches, cx);
            self.tell_change(&id, &touches, &Self::base(None, cx), cx);
        }
        let protocols: Vec<String> = self.sessions.keys().cloned().collect();
        for protocol in protocols {
            self.push(&protocol, cx);
        }
        Ok(())
    }

    fn tell_membership(&mut self, change: &Membership, cx: &Context<TwinMsg>) {
        let added: Vec<DeviceId> = change.added.iter().chain(&change.replaced).cloned().collect();
        let removed: Vec<DeviceId> = change.removed.iter().chain(&change.replaced).cloned().collect();
        if added.is_empty() && removed.is_empty() {
            return;
        }
        let payload = payload::membership_updated(&Self::base(None, cx), &added, &removed);
        self.publish(topic::node_topic(self.node.as_str(), "membership/updated"), payload);
    }

    /// Takes over what was committed.
    fn keep(&mut self, id: &DeviceId, touched: &[Touch], cx: &Context<TwinMsg>) {
        if let Some(member) = self.members.get_mut(id) {
            member.take(touched, touched, cx.now());
        }
    }

    /// Document and delta.
    pub(super) fn tell_change(
        &mut self,
        id: &DeviceId,
        touched: &[Touch],
        base: &Base,
        cx: &Context<TwinMsg>,
    ) {
        self.publish(id.topic("twin/update/document"), payload::document(base, touched));
        let Some(member) = self.members.get(id) else { return };
        // A delta answers nobody: it has an id of its own.
        let delta = Self::base(None, cx);
        if let Some(payload) = payload::delta(&delta, &member.twins, &plan::delta(&member.twins)) {
            self.publish(id.topic("twin/update/delta"), payload);
        }
    }
}
