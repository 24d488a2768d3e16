//! The one place where the twins and states of devices change by what is said on the node, whoever says it: what they may
//! weigh, when they are committed, and how often the cloud hears of them.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use beehive::Context;
use contract::devicetwin::TwinMsg;
use contract::ids::DeviceName;

use super::{DeviceTwin, millis};
use crate::error::UpdateError;
use crate::events::Event;
use crate::members::{self, LOOK_EVERY, Member};
use crate::plan::{self, TWINS_MAX, TwinChange};
use crate::quota::Usage;
use crate::store;
use crate::twin::State;

/// 1 s before reports are tried again that the store did not take.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// RFC 3339 in whole seconds.
pub(super) fn rfc3339(time: SystemTime) -> Option<String> {
    jiff::Timestamp::from_second(millis(time) / 1000).ok().map(|time| time.to_string())
}

impl DeviceTwin {
    /// Commits what is news among the changes and takes all of it over. Answers the news.
    pub(super) async fn save(
        &mut self,
        id: &DeviceName,
        changes: &mut [TwinChange],
        cx: &Context<TwinMsg>,
    ) -> Result<Vec<TwinChange>, UpdateError> {
        let protocol = self.catalog.protocol_of(id).unwrap_or_default().to_owned();
        let before = self.usage(&protocol);
        let named = self.named(id);
        let Some(member) = self.members.get(id) else { return Ok(Vec::new()) };
        let is_named = |property: &str| named.contains(property);
        let own = Usage::of(&member.twins, is_named);
        own.after(changes, is_named).check_device(own).map_err(UpdateError::UsedUp)?;
        let after = before.after(changes, is_named);
        after.check_protocol(before).map_err(UpdateError::UsedUp)?;
        let now = cx.now();
        let news = member.news(changes, now);
        self.commit(members::writes(id, &news)).await.map_err(UpdateError::Store)?;
        self.usages.insert(protocol, after);
        if let Some(member) = self.members.get_mut(id) {
            member.take(changes, &news, now);
        }
        if news.iter().any(|change| change.after.unreported) {
            self.report_later(cx);
        }
        Ok(news)
    }

    /// Answers whether it was news.
    pub(super) async fn save_state(
        &mut self,
        id: &DeviceName,
        state: &str,
        reason: Option<String>,
        cx: &Context<TwinMsg>,
    ) -> Result<bool, String> {
        let member = self.member(id).map_err(|refused| refused.reason)?;
        let online = plan::is_online(state).unwrap_or_default();
        // A device that goes offline keeps when it was online last, and that goes to the cloud with the news.
        let last_online = if online { rfc3339(cx.wall()) } else { member.state.last_online.clone() };
        let mut state = State { state: state.to_owned(), last_online, reason, ..member.state.clone() };
        let now = cx.now();
        let news = member.state_is_news(&state, now);
        if news {
            state.unreported = !member.is_state_due(now);
            let mut writes = vec![store::put_state(id, &state)];
            if !state.unreported {
                writes.extend(store::enqueue(&state.report(id)));
            }
            self.commit(writes).await?;
        }
        let waits = state.unreported;
        if let Some(member) = self.members.get_mut(id) {
            member.take_state(state, news, now);
        }
        if waits {
            self.report_later(cx);
        }
        Ok(news)
    }

    /// What the devices of a protocol weigh. Those that cannot be read have none, together.
    fn usage(&mut self, protocol: &str) -> Usage {
        if let Some(known) = self.usages.get(protocol) {
            return *known;
        }
        let mut usage = Usage::default();
        for (id, member) in &self.members {
            if self.catalog.protocol_of(id).unwrap_or_default() == protocol {
                usage = usage.and(self.usage_of(id, member));
            }
        }
        self.usages.insert(protocol.to_owned(), usage);
        usage
    }

    /// What a device weighs.
    pub(super) fn usage_of(&self, id: &DeviceName, member: &Member) -> Usage {
        let named = self.named(id);
        Usage::of(&member.twins, |property| named.contains(property))
    }

    /// The properties that a device or its model names.
    pub(super) fn named(&self, id: &DeviceName) -> BTreeSet<&str> {
        let Some(device) = self.catalog.device(id) else { return BTreeSet::new() };
        let model = self.catalog.model_of(id, device).1;
        let own = device.spec.properties.iter().map(|property| property.name.as_str());
        let models = model.into_iter().flat_map(|model| &model.spec.properties);
        own.chain(models.map(|property| property.name.as_str())).collect()
    }

    /// Lets the reports that wait have their turn in a while.
    pub(super) fn report_later(&mut self, cx: &Context<TwinMsg>) {
        self.report_in(LOOK_EVERY, cx);
    }

    fn report_in(&mut self, pause: Duration, cx: &Context<TwinMsg>) {
        if !std::mem::replace(&mut self.reporting, true) {
            cx.after(pause, TwinMsg::Report);
        }
    }

    /// The turn of the reports that have waited: at most as many as a message of a client makes.
    pub(super) async fn report_now(&mut self, cx: &Context<TwinMsg>) {
        self.reporting = false;
        let now = cx.now();
        let (mut writes, mut done, mut left, mut is_full) = (Vec::new(), Vec::new(), false, false);
        for (id, member) in self.members.iter().filter(|(_, member)| member.waits()) {
            if writes.len() > 2 * TWINS_MAX {
                is_full = true;
                break;
            }
            let (twins, state, others) = member.due(now);
            left |= others;
            for (property, twin) in &twins {
                writes.push(store::put_twin(id, property, twin));
                writes.extend(store::enqueue(&twin.report(id, property)));
            }
            if let Some(state) = &state {
                writes.push(store::put_state(id, state));
                writes.extend(store::enqueue(&state.report(id)));
            }
            done.push((id.clone(), twins, state));
        }
        if let Err(reason) = self.commit(writes).await {
            Event::ReportsNotKept { reason: &reason }.happened(cx.env());
            self.report_in(REFUSED_PAUSE, cx);
            return;
        }
        for (id, twins, state) in done {
            if let Some(member) = self.members.get_mut(&id) {
                member.reported(twins, state, now);
            }
        }
        if is_full {
            // Those behind have waited as long; what has been said meanwhile comes between.
            self.report_in(Duration::ZERO, cx);
        } else if left {
            self.report_later(cx);
        }
    }
}
