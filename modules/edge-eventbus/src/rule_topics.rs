//! On which topics clients publish for rules, as the node's store has the rules.

use std::cell::RefCell;
use std::collections::BTreeSet;

use beehive::{Env, Fault};
use contract::ids::RULES;
use contract::rule_source::{NodeSource, on_node};
use edge_store::{OutboxQueue, Store};

use crate::plan;

/// The topics of rules.
#[derive(Default)]
pub(crate) struct RuleTopics {
    topics: RefCell<BTreeSet<String>>,
    when_changed: RefCell<Option<Box<dyn Fn()>>>,
}

impl RuleTopics {
    /// Reads them anew. Where the store cannot be read they stay as they are.
    ///
    /// # Errors
    /// A panic on the reading thread.
    pub(crate) async fn read(&self, env: &Env, store: Store) -> Result<(), Fault> {
        match env.blocking(move || topics(&store)).await? {
            Ok(topics) => {
                let is_other = self.topics.replace(topics.clone()) != topics;
                if let (true, Some(when_changed)) = (is_other, &*self.when_changed.borrow()) {
                    when_changed();
                }
            }
            Err(reason) => tracing::warn!(reason, "rules cannot be read: those that were known go on"),
        }
        Ok(())
    }

    /// Does this, and nothing that was to be done before, whenever they are others.
    pub(crate) fn when_changed(&self, act: impl Fn() + 'static) {
        *self.when_changed.borrow_mut() = Some(Box::new(act));
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<String> {
        self.topics.borrow().iter().cloned().collect()
    }

    /// Whether a client's publish on `topic` goes to the cloud, and in which queue it waits for that. A rule's own queue comes
    /// first: telemetry of a topic that a rule has goes to the rule.
    pub(crate) fn queue_of(&self, topic: &str) -> Option<OutboxQueue> {
        if self.topics.borrow().contains(topic) {
            Some(OutboxQueue::Rules)
        } else {
            plan::is_for_the_cloud(topic).then_some(OutboxQueue::Telemetry)
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.topics.borrow().len()
    }
}

fn topics(store: &Store) -> Result<BTreeSet<String>, String> {
    let rules = store.list_objects(RULES, None).map_err(|error| Fault::from_error(&error).reason)?;
    let topic_of = |rule: edge_store::StoredObject| {
        let json = serde_json::from_slice(&rule.json).ok()?;
        match on_node(&rule.key.namespace, &json)? {
            NodeSource::Topic(topic) => Some(topic),
            NodeSource::TargetUrl(_) => None,
        }
    };
    Ok(rules.into_iter().filter_map(topic_of).collect())
}
