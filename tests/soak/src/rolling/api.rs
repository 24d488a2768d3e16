//! The API server beside which the CloudCores stand, with CloudCore's account in it.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use beehive::Env;
use harness::{RealCluster, StandAlone};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::sync::oneshot;

/// One of them. Dropping it ends the one that is ours.
pub(super) struct ApiServer {
    client: kube::Client,
    kubeconfig: PathBuf,
    own: Option<Own>,
}

/// An API of ours, which has a thread.
struct Own {
    ends: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl ApiServer {
    /// The one of this kubeconfig, or one of ours. CloudCore's account is written to `account`, as a kubeconfig.
    pub(super) async fn start(kubeconfig: Option<&Path>, account: &Path) -> Result<ApiServer> {
        let (kubeconfig, own) = match kubeconfig {
            Some(kubeconfig) => {
                let kubeconfig = std::path::absolute(kubeconfig).context("--kubeconfig is no path")?;
                RealCluster::at(kubeconfig.clone()).await.write_account(account).await;
                (kubeconfig, None)
            }
            None => {
                let (kubeconfig, own) = Own::start(account.to_owned()).await?;
                (kubeconfig, Some(own))
            }
        };
        let found = Kubeconfig::read_from(&kubeconfig).context("the API's kubeconfig")?;
        let config = kube::Config::from_custom_kubeconfig(found, &KubeConfigOptions::default()).await?;
        Ok(ApiServer { client: kube::Client::try_from(config)?, kubeconfig, own })
    }

    /// A client of its administrator.
    pub(super) fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// The kubeconfig of its administrator.
    pub(super) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }
}

impl Own {
    async fn start(account: PathBuf) -> Result<(PathBuf, Own)> {
        let (up, is_up) = oneshot::channel();
        let (ends, ended) = oneshot::channel();
        let serve = move || {
            harness::run(async move || {
                let api = StandAlone::start(&Env::real()).await;
                api.write_account(&account).await;
                // Whoever waited is gone, and so is the other end of `ended`.
                let _ = up.send(api.kubeconfig());
                let _ = ended.await;
            });
        };
        let thread =
            std::thread::Builder::new().name("api".to_owned()).spawn(serve).context("start a thread")?;
        let kubeconfig = is_up.await.context("the stand-alone API does not start: it says why above")?;
        Ok((kubeconfig, Own { ends, thread }))
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if let Some(Own { ends, thread }) = self.own.take() {
            drop(ends);
            // What went wrong there was said there.
            let _ = thread.join();
        }
    }
}
