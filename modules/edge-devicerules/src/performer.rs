//! Does what rules want.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use beehive::{Address, Env};
use bytes::Bytes;
use contract::devicerules::ActionsOutcome;
use contract::devicetwin::TwinMsg;
use contract::eventbus::EventBusMsg;
use contract::ids::DeviceName;
use crd::EdgeAction;

use crate::local_call;
use crate::rule_set::Attempt;

/// 5 s for DeviceTwin to commit, and for the broker to take a message.
const WITHIN: Duration = Duration::from_secs(5);

/// The neighbours that actions need.
#[derive(Clone)]
pub(crate) struct Performer {
    pub(crate) env: Env,
    pub(crate) twin: Address<TwinMsg>,
    pub(crate) bus: Address<EventBusMsg>,
    /// Which ports no rule calls; `None`: all of them.
    pub(crate) closed_ports: Option<Rc<BTreeSet<u16>>>,
}

impl Performer {
    /// Tries the actions, one after the other. One that fails stops no other.
    pub(crate) async fn perform(&self, attempt: &Attempt) -> ActionsOutcome {
        let mut outcome = ActionsOutcome::default();
        for (at, action) in &attempt.actions {
            match self.act(&attempt.key.0, action, &attempt.document).await {
                Ok(()) => outcome.done.push(*at),
                Err(reason) => outcome.failed.push((*at, reason)),
            }
        }
        outcome
    }

    async fn act(&self, own: &DeviceName, action: &EdgeAction, document: &str) -> Result<(), String> {
        match action {
            EdgeAction::Set { device, property, value } => {
                let name = device.as_deref().unwrap_or(&own.name);
                let device = DeviceName::parse(&own.namespace, name).map_err(|error| error.to_string())?;
                let (property, value) = (property.clone(), value.clone());
                let set = |reply| TwinMsg::SetDesired { device, property, value, reply };
                self.twin.ask(WITHIN, set).await.map_err(|error| error.to_string())?
            }
            EdgeAction::Publish { topic, payload } => {
                let payload: Bytes = payload.as_deref().unwrap_or(document).to_owned().into();
                let deliver = |reply| EventBusMsg::Deliver { topic: topic.clone(), payload, reply };
                self.bus.ask(WITHIN, deliver).await.map_err(|error| error.to_string())?
            }
            EdgeAction::Call { method, url, body } => {
                let Some(closed_ports) = &self.closed_ports else {
                    return Err(
                        "rules call nothing on this node: its `modules.deviceTwin.ruleCalls` is false"
                            .to_owned(),
                    );
                };
                let document = if method == "GET" { "" } else { document };
                let body = body.as_deref().unwrap_or(document).to_owned();
                local_call::call(&self.env, closed_ports, (method, url), body).await
            }
        }
    }
}
