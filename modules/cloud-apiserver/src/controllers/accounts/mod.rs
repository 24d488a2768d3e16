//! The `default` service account and the CA's certificate, in every namespace.

use std::rc::Rc;
use std::time::Duration;

use apimachinery::{NamespacedName, kind};
use serde_json::{Value, json};

use super::api_error::{code, message};
use super::cache::Cache;
use super::object::{is_deleting, name};
use super::retry::Retry;
use super::{Controller, ROOT_CA, Shared};

const DEFAULT: &str = "default";

pub(crate) struct Accounts {
    shared: Rc<Shared>,
    retry: Retry<NamespacedName>,
}

impl Accounts {
    pub(crate) fn new(shared: &Rc<Shared>) -> Self {
        Accounts { shared: Rc::clone(shared), retry: shared.retry() }
    }
}

impl Controller for Accounts {
    fn name(&self) -> &'static str {
        "service accounts"
    }

    fn reads(&self) -> Vec<Rc<Cache>> {
        let shared = &self.shared;
        vec![Rc::clone(&shared.namespaces), Rc::clone(&shared.accounts), Rc::clone(&shared.root_cas)]
    }

    async fn look(&mut self) -> Option<Duration> {
        let shared = Rc::clone(&self.shared);
        let now = shared.env().now();
        self.retry.keep(|key| shared.namespaces.get(key).is_some());
        for namespace in shared.namespaces.all() {
            let key = NamespacedName::of(&namespace);
            if is_deleting(&namespace) || !self.retry.may(&key, now) {
                continue;
            }
            match furnish(&shared, name(&namespace)).await {
                Ok(()) => self.retry.done(&key),
                Err(error) => {
                    tracing::warn!(namespace = %key, error = message(&error), "namespace not furnished; it is tried again");
                    self.retry.failed(key, shared.env());
                }
            }
        }
        self.retry.next(shared.env().now())
    }
}

async fn furnish(shared: &Shared, namespace: &str) -> Result<(), kube::Error> {
    if shared.accounts.get(&NamespacedName::new(namespace, DEFAULT)).is_none() {
        let account = json!({ "metadata": { "namespace": namespace, "name": DEFAULT } });
        unless_there(shared.writer.create(&kind::SERVICE_ACCOUNTS, namespace, account).await)?;
    }
    let key = NamespacedName::new(namespace, ROOT_CA);
    let data = json!({ "ca.crt": shared.settings.ca_pem });
    match shared.root_cas.get(&key) {
        Some(map) if map["data"] == data => Ok(()),
        Some(map) => {
            // Whatever else was put there is set to nothing.
            let mut wanted = data;
            for extra in map["data"].as_object().into_iter().flatten().map(|(key, _)| key) {
                if extra != "ca.crt" {
                    wanted[extra.as_str()] = Value::Null;
                }
            }
            shared.writer.patch(&kind::CONFIG_MAPS, &key, &json!({ "data": wanted })).await
        }
        None => {
            let map = json!({
                "metadata": { "namespace": namespace, "name": ROOT_CA, "annotations": {
                    "kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters." } },
                "data": data,
            });
            unless_there(shared.writer.create(&kind::CONFIG_MAPS, namespace, map).await)
        }
    }
}

/// It may be there before the watch tells, and the namespace may be gone.
fn unless_there<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(error) if !matches!(code(&error), Some(404 | 409)) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}
