//! Where what devices and applications publish for the node goes, whichever broker they publish at: to DeviceTwin, or into the
//! outbox to the cloud.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use beehive::{Address, Env};
use bytes::Bytes;
use contract::devicetwin::{TwinMsg, UpdateListeners};
use tokio::sync::oneshot;

use crate::bus::Bus;
use crate::error::ConnectionError;
use crate::events::Counters;
use crate::plan;
use crate::rule_topics::RuleTopics;
use crate::uploads::{UploadResult, Uploads};

/// What DeviceTwin refuses: "implementation specific error", as its own document says more.
const REFUSED_BY_TWIN: u8 = 0x83;

/// See the module.
pub(crate) struct Intake {
    twin: Address<TwinMsg>,
    /// What is on its way into the outbox.
    pub(crate) uploads: Rc<Uploads>,
    /// What of it is for rules.
    pub(crate) rule_topics: RuleTopics,
    pub(crate) counts: Counters,
    /// Where those are who may listen for what DeviceTwin says; empty until all of them have started.
    buses: RefCell<Vec<Weak<dyn Bus>>>,
    env: Env,
}

impl Intake {
    pub(crate) fn new(twin: Address<TwinMsg>, uploads: Rc<Uploads>, counts: Counters, env: Env) -> Rc<Self> {
        let (rule_topics, buses) = (RuleTopics::default(), RefCell::default());
        Rc::new(Intake { twin, uploads, rule_topics, counts, buses, env })
    }

    /// All brokers have started.
    pub(crate) fn began(&self, buses: &[Rc<dyn Bus>]) {
        self.buses.replace(buses.iter().map(Rc::downgrade).collect());
    }

    /// Who listens for what DeviceTwin says to a client's message on `topic`.
    fn listeners(&self, topic: &str) -> UpdateListeners {
        let buses = self.buses.borrow();
        let is_heard = |what: &str| {
            let topic = format!("{topic}/{what}");
            buses.iter().any(|bus| bus.upgrade().is_none_or(|bus| bus.has_listeners(&topic)))
        };
        if buses.is_empty() || !topic.ends_with("/twin/update") {
            return UpdateListeners::ALL;
        }
        UpdateListeners { result: is_heard("result"), document: is_heard("document") }
    }

    /// Waits until the outbox has a message.
    pub(crate) async fn kept(&self, upload: oneshot::Receiver<UploadResult>) -> Result<(), ConnectionError> {
        match upload.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => {
                self.env.sleep(plan::REFUSAL_PAUSE).await;
                Err(ConnectionError::NotKept(why))
            }
            Err(_) => Err(ConnectionError::Ending),
        }
    }

    /// The reason code of DeviceTwin's answer.
    pub(crate) async fn ask_twin(
        &self,
        client: &str,
        topic: String,
        payload: Bytes,
    ) -> Result<u8, ConnectionError> {
        let (asked, listeners) = (topic.clone(), self.listeners(&topic));
        let message = |reply| TwinMsg::Mqtt { topic, payload, listeners, reply };
        let ask = self.twin.ask(plan::TWIN_DEADLINE, message);
        match ask.await {
            Ok(Ok(())) => Ok(0),
            Ok(Err(why)) => {
                self.counts.twin_refused(client, &asked, &why.to_string());
                Ok(REFUSED_BY_TWIN)
            }
            Err(error) => {
                self.counts.twin_unanswered(client, &asked, &error);
                Err(ConnectionError::Unanswered(error))
            }
        }
    }
}
