//! What the rules of devices hear and want.

use std::collections::BTreeMap;

use beehive::{Address, Context, Refusal};
use contract::devicerules::{DeviceFacts, DeviceRulesMsg};
use contract::devicetwin::TwinMsg;
use contract::ids::DeviceName;

use super::DeviceTwin;
use crate::plan::{self, PropertyUpdate, PropertyValues, Refused};

impl DeviceTwin {
    /// Tells `rules` what becomes of the devices that have some.
    #[must_use]
    pub fn telling_rules(mut self, rules: Address<DeviceRulesMsg>) -> Self {
        self.rules_actor = Some(rules);
        self
    }

    /// Tells what is new. While their mailbox is full it stays due, and the newest of it goes then.
    pub(super) fn tell_rules(&mut self) {
        let Some(actor) = &self.rules_actor else { return };
        if !self.rules_know {
            if actor.try_tell(DeviceRulesMsg::TwinsBegan) == Err(Refusal::Full) {
                return;
            }
            // They ask for all of it.
            self.rules_know = true;
            self.rules.all_told();
        }
        while let Some(id) = self.rules.next_due() {
            let facts = self.rules.facts(&id, self.members.get(&id));
            if actor.try_tell(DeviceRulesMsg::Facts(Box::new(facts))) == Err(Refusal::Full) {
                return;
            }
            self.rules.told(&id);
        }
    }

    /// What rules have to know of all devices; `None` before those were read once in this life.
    pub(super) fn list_facts(&mut self) -> Option<Vec<DeviceFacts>> {
        let all = self.has_read.then(|| self.rules.all())?;
        Some(all.iter().map(|id| self.rules.facts(id, self.members.get(id))).collect())
    }

    /// What a rule wants counts as the word of an application on the node.
    pub(super) async fn set_desired(
        &mut self,
        id: &DeviceName,
        property: &str,
        value: String,
        cx: &Context<TwinMsg>,
    ) -> Result<(), String> {
        let reason = |refused: Refused| refused.reason;
        let member = self.member(id).map_err(reason)?;
        if !self.named(id).contains(property) {
            return Err(format!("device `{id}` has no property `{property}`"));
        }
        let wanted = member.twins.get(property).filter(|twin| !twin.deleted);
        let wanted = wanted.and_then(|twin| twin.edge_desired.as_deref()).unwrap_or_default();
        if wanted == value {
            return Ok(());
        }
        let base = Self::base(None, cx);
        let values = PropertyValues { expected: Some(value), ..PropertyValues::default() };
        let updates = BTreeMap::from([(property.to_owned(), PropertyUpdate::Set(values))]);
        let model = self.catalog.device(id).and_then(|device| self.catalog.model_of(id, device).1);
        let mut changes = plan::update(&member.twins, &updates, model, base.timestamp).map_err(reason)?;
        self.save(id, &mut changes, cx).await.map_err(|error| reason(error.into()))?;
        self.tell_change(id, &changes, &base, cx);
        self.tell_mapper(id, cx);
        Ok(())
    }
}
