//! The client of the API server, as the pod's service account.

use std::time::Duration;

use anyhow::{Context as _, Result};
use contract::csi_call::WITHIN_MAX;
use kube::client::ClientBuilder;

/// A client of the API server at `url`, with the token and the CA of `account`. A token file is read as kubectl reads it, and again once a
/// minute.
///
/// # Errors
/// When the URL is none, or the account's token: a sentence with the cure.
pub fn api_client(account: kube::Config, url: &str) -> Result<kube::Client> {
    let mut config = account;
    config.cluster_url = url.parse().context("--kubeedge-endpoint is not a URL")?;
    // Each call has its own time.
    config.read_timeout = Some(WITHIN_MAX + Duration::from_secs(60));
    // kube would ask again, unseen, what is answered with 503: the sidecar is told, and asks again itself.
    config.default_retry = false;
    let token = kubeconfig::take_token(&mut config).context("the pod's service account is not usable")?;
    Ok(ClientBuilder::try_from(config)?.with_layer(&token).build())
}
