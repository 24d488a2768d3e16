//! CloudCore's client of the API server.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use config::cloud::CloudCore as Settings;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::core::ApiServer;
use crate::request_counts::RequestCounts;
use crate::request_deadlines::RequestDeadlines;

/// By which the API server knows CloudCore's requests.
const USER_AGENT: &str = concat!("cloudcore/", env!("CARGO_PKG_VERSION"), " (kubehive)");

/// A client, and what is known of its API server: of the kubeconfig `flag`, or that of the settings, or the pod's service account.
///
/// # Errors
/// When there is none of them, or what it says is not usable: a token that is none, too. The API server is not asked.
pub async fn api_client(settings: &Settings, flag: Option<&Path>) -> Result<(kube::Client, ApiServer)> {
    let api = &settings.kube_api_config;
    let path = flag
        .map(PathBuf::from)
        .or_else(|| (!api.kube_config.is_empty()).then(|| api.kube_config.clone().into()));
    let mut config = match &path {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read kubeconfig `{}`", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("kubeconfig `{}` is not usable", path.display()))?
        }
        None => kube::Config::incluster().context(
            "not in a cluster: give --kubeconfig PATH, or --standalone to serve an API of our own",
        )?,
    };
    let whose = || match &path {
        Some(path) => format!("kubeconfig `{}` is not usable", path.display()),
        None => "the pod's service account is not usable".to_owned(),
    };
    let token = kubeconfig::take_token(&mut config).with_context(whose)?;
    if !api.master.is_empty() {
        config.cluster_url = api.master.parse().context("kubeAPIConfig.master is not a URL")?;
    }
    // Who wrote: in managedFields, and in the API server's audit.
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(USER_AGENT)));
    // kube would ask again for minutes, unseen, what is answered with 429, 503 or 504. Who asks has pauses of its own, and says why.
    config.default_retry = false;
    let url = config.cluster_url.to_string();
    let requests = RequestCounts::of(config.cluster_url.authority().map_or("", |host| host.as_str()));
    let builder = kube::client::ClientBuilder::try_from(config)?;
    let builder = builder.with_layer(&token).with_layer(&RequestDeadlines::default()).with_layer(&requests);
    Ok((builder.build(), ApiServer { url, requests, standalone: None }))
}
