//! The client of the cluster: by which kubeconfig, where several may be meant.

use std::path::Path;

use anyhow::{Context, Result};
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// Where a kubeconfig is that nobody names, as with KubeEdge's keadm.
const KUBE_CONFIG: &str = "/root/.kube/config";

/// A client of the cluster of this kubeconfig; without one of those that `$KUBECONFIG` lists, as with kubectl, and without that
/// of `/root/.kube/config`.
///
/// # Errors
/// When the file is not usable, or the token that it names is none.
pub async fn client(kube_config: Option<&Path>) -> Result<kube::Client> {
    let of_environment = || Kubeconfig::from_env().context("cannot use the files of $KUBECONFIG").transpose();
    let file = match kube_config {
        Some(path) => read(path)?,
        None => of_environment().unwrap_or_else(|| usual(Path::new(KUBE_CONFIG)))?,
    };
    let mut config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    // kube would ask again for minutes, unseen, what is answered with 429, 503 or 504: whoever waits here is told instead.
    config.default_retry = false;
    let token = kubeconfig::take_token(&mut config).context("the kubeconfig is not usable")?;
    Ok(ClientBuilder::try_from(config)?.with_layer(&token).build())
}

/// That of nobody's naming.
fn usual(path: &Path) -> Result<Kubeconfig> {
    if !path.exists() {
        anyhow::bail!(
            "there is no kubeconfig here ({}): run this where the cluster is administered, which an edge machine is not, or name a file with --kube-config or \
             $KUBECONFIG",
            path.display()
        );
    }
    read(path)
}

fn read(path: &Path) -> Result<Kubeconfig> {
    Kubeconfig::read_from(path).with_context(|| format!("cannot use kubeconfig {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_no_kubeconfig_is_it_is_said_where_to_run_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        let none = format!("{:#}", usual(&path).unwrap_err());
        assert!(
            none.contains("where the cluster is administered") && none.contains("--kube-config"),
            "{none}"
        );
        std::fs::write(&path, "]").unwrap();
        assert!(format!("{:#}", usual(&path).unwrap_err()).contains("cannot use kubeconfig"));
    }
}
