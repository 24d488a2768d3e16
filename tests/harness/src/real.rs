//! A real Kubernetes, where somebody names one.

use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::account;

/// Names the kubeconfig of a cluster that tests may change: they apply CloudCore's definitions, its account and its
/// policies, and make and remove objects of their own.
const VARIABLE: &str = "KUBEHIVE_TEST_KUBECONFIG";

/// A cluster of somebody's, with what ships in `cloud/deploy` applied.
pub struct RealCluster {
    kubeconfig: PathBuf,
    admin: kube::Client,
}

impl RealCluster {
    /// The one that the variable names; without it a word on stdout and `None`.
    ///
    /// # Panics
    /// When it is named and does not answer.
    // Whoever reads the test's output is told that nothing was looked at.
    #[allow(clippy::print_stdout)]
    pub async fn named() -> Option<RealCluster> {
        let Some(path) = std::env::var_os(VARIABLE) else {
            println!("skipped: {VARIABLE} names no kubeconfig of a real cluster");
            return None;
        };
        Some(RealCluster::at(PathBuf::from(path)).await)
    }

    /// The one of this kubeconfig, which has to be an administrator's.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn at(kubeconfig: PathBuf) -> RealCluster {
        let found = Kubeconfig::read_from(&kubeconfig).unwrap();
        let config =
            kube::Config::from_custom_kubeconfig(found, &KubeConfigOptions::default()).await.unwrap();
        let admin = kube::Client::try_from(config).unwrap();
        account::apply_shipped(&admin).await;
        RealCluster { kubeconfig, admin }
    }

    /// A client of its administrator.
    pub fn admin(&self) -> kube::Client {
        self.admin.clone()
    }

    /// A client that is CloudCore's account.
    pub async fn account(&self) -> kube::Client {
        account::become_account(&self.admin, &self.kubeconfig, "kubeedge", "cloudcore").await
    }

    /// Writes a kubeconfig of CloudCore's account, for a `cloudcore` that is a process.
    ///
    /// # Panics
    /// When the cluster grants no token, or the file cannot be written.
    pub async fn write_account(&self, to: &Path) {
        account::write_kubeconfig(&self.admin, &self.kubeconfig, to).await;
    }
}

/// The API of a cluster.
pub(crate) enum ClusterApi {
    StandAlone(Box<cloud_apiserver::Running>),
    Real(RealCluster),
}

impl ClusterApi {
    pub(crate) fn admin(&self) -> kube::Client {
        match self {
            ClusterApi::StandAlone(api) => api.client(),
            ClusterApi::Real(cluster) => cluster.admin(),
        }
    }

    pub(crate) fn kubeconfig(&self) -> &Path {
        match self {
            ClusterApi::StandAlone(api) => api.kubeconfig_path(),
            ClusterApi::Real(cluster) => &cluster.kubeconfig,
        }
    }
}
