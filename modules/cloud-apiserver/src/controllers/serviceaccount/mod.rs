//! The `default` service account and the CA's certificate, in every namespace.

use std::rc::Rc;
use std::time::Duration;

use apimachinery::{NamespacedName, kind};
use kubewatch::status_code;
use serde_json::{Value, json};

use super::backoff::Backoff;
use super::controller::Reconciler;
use super::informer::Lister;
use super::object::{is_deleting, name};
use super::{ControllerContext, ROOT_CA};

const DEFAULT: &str = "default";

pub(crate) struct ServiceAccounts {
    context: Rc<ControllerContext>,
    backoff: Backoff<NamespacedName>,
}

impl ServiceAccounts {
    pub(crate) fn new(context: &Rc<ControllerContext>) -> Self {
        ServiceAccounts { context: Rc::clone(context), backoff: context.backoff() }
    }
}

impl Reconciler for ServiceAccounts {
    fn listers(&self) -> Vec<Rc<Lister>> {
        let context = &self.context;
        vec![Rc::clone(&context.namespaces), Rc::clone(&context.accounts), Rc::clone(&context.root_cas)]
    }

    async fn reconcile(&mut self) -> Option<Duration> {
        let context = Rc::clone(&self.context);
        let now = context.env().now();
        self.backoff.retain(|key| context.namespaces.get(key).is_some());
        for namespace in context.namespaces.list() {
            context.breathe().await;
            let key = NamespacedName::of(&namespace);
            if is_deleting(&namespace) || !self.backoff.is_due(&key, now) {
                continue;
            }
            let result = reconcile_namespace(&context, name(&namespace)).await;
            context.settle(&mut self.backoff, key, result);
        }
        self.backoff.next(context.env().now())
    }

    fn backing_off(&self) -> usize {
        self.backoff.len()
    }
}

async fn reconcile_namespace(context: &ControllerContext, namespace: &str) -> Result<(), kube::Error> {
    if context.accounts.get(&NamespacedName::new(namespace, DEFAULT)).is_none() {
        let account = json!({ "metadata": { "namespace": namespace, "name": DEFAULT } });
        unless_there(context.client.create(&kind::SERVICE_ACCOUNTS, namespace, account).await)?;
    }
    let key = NamespacedName::new(namespace, ROOT_CA);
    let data = json!({ "ca.crt": context.settings.ca_pem });
    match context.root_cas.get(&key) {
        Some(map) if map["data"] == data => Ok(()),
        Some(map) => {
            // Whatever else was put there is set to nothing.
            let mut wanted = data;
            for extra in map["data"].as_object().into_iter().flatten().map(|(key, _)| key) {
                if extra != "ca.crt" {
                    wanted[extra.as_str()] = Value::Null;
                }
            }
            context.client.patch(&kind::CONFIG_MAPS, &key, &json!({ "data": wanted })).await
        }
        None => {
            let map = json!({
                "metadata": { "namespace": namespace, "name": ROOT_CA, "annotations": {
                    "kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters." } },
                "data": data,
            });
            unless_there(context.client.create(&kind::CONFIG_MAPS, namespace, map).await)
        }
    }
}

/// It may be there before the watch tells, and the namespace may be gone.
fn unless_there<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(error) if !matches!(status_code(&error), Some(404 | 409)) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}
