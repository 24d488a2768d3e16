//! Which URLs applications may name, as the node's store has the rules.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use beehive::{Env, Fault};
use contract::ids::RULES;
use contract::rule_source::{NodeSource, on_node};
use edge_store::{Store, StoredObject};

/// The URLs, for every thread that asks.
#[derive(Clone, Default)]
pub(crate) struct TargetUrls(Arc<RwLock<BTreeSet<String>>>);

impl TargetUrls {
    /// Reads them anew. Where the store cannot be read they stay as they are.
    ///
    /// # Errors
    /// A panic on the reading thread.
    pub(crate) async fn read(&self, env: &Env, store: Store) -> Result<(), Fault> {
        match env.blocking(move || urls(&store)).await? {
            Ok(urls) => *self.0.write().unwrap_or_else(PoisonError::into_inner) = urls,
            Err(reason) => tracing::warn!(reason, "rules cannot be read: those that were known go on"),
        }
        Ok(())
    }

    /// Whether a rule of this node has it.
    pub(crate) fn has(&self, url: &str) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(url)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn urls(store: &Store) -> Result<BTreeSet<String>, String> {
    let rules = store.list_objects(RULES, None).map_err(|error| Fault::from_error(&error).reason)?;
    let url_of = |rule: StoredObject| {
        let json = serde_json::from_slice(&rule.json).ok()?;
        match on_node(&rule.key.namespace, &json)? {
            NodeSource::TargetUrl(url) => Some(url),
            NodeSource::Topic(_) => None,
        }
    };
    Ok(rules.into_iter().filter_map(url_of).collect())
}
