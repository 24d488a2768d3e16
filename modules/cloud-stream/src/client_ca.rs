//! The CA of the API server's own clients, as it says itself: `client-ca-file` of ConfigMap
//! `kube-system/extension-apiserver-authentication`, watched.
//!
//! The other CA there (`requestheader-client-ca-file`) vouches for front proxies and for no caller: it is not read.

use std::time::Duration;

use beehive::{Context, Fault};
use contract::cloudstream::CloudStreamMsg;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use kube::runtime::watcher;
use kube::runtime::watcher::Event;
use kubewatch::{WatchPause, watch_config};

use crate::events;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
const KEY: &str = "client-ca-file";
/// 2 s, doubled at each time up to 60 s, before a watch that broke off begins anew.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// Tells the actor the CA, and again when it changes. What was told last holds while the API server is away.
pub(crate) fn watch(client: kube::Client, cx: &Context<CloudStreamMsg>) {
    let (myself, env) = (cx.myself(), cx.env().clone());
    let api: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    cx.spawn(async move {
        let mut pause = WatchPause::new(AGAIN_AFTER, AGAIN_MAX, env.now());
        loop {
            let config = watch_config(Some(&format!("metadata.name={NAME}")));
            let mut changes = std::pin::pin!(watcher(api.clone(), config));
            let mut listed = None;
            while let Some(change) = changes.next().await {
                let told = match change {
                    Ok(Event::Init) => {
                        listed = None;
                        continue;
                    }
                    Ok(Event::InitApply(found)) => {
                        listed = of(&found);
                        continue;
                    }
                    Ok(Event::InitDone) => listed.take(),
                    Ok(Event::Apply(found)) => of(&found),
                    Ok(Event::Delete(_)) => None,
                    Err(error) => {
                        events::client_ca_unreadable(
                            &env,
                            &Fault::from_error(&error).reason,
                            is_forbidden(&error),
                        );
                        break;
                    }
                };
                let _ = myself.tell(CloudStreamMsg::ClientCa(told)).await;
            }
            env.sleep(env.jitter(pause.broke(env.now()))).await;
        }
    });
}

fn is_forbidden(error: &watcher::Error) -> bool {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status,
        watcher::Error::WatchError(status) => status,
        _ => return false,
    };
    status.code == 403
}

/// A field selector that a server does not know is one that takes everything.
fn of(found: &ConfigMap) -> Option<String> {
    let is_it = found.metadata.name.as_deref() == Some(NAME);
    found.data.as_ref().filter(|_| is_it)?.get(KEY).filter(|pem| !pem.is_empty()).cloned()
}
