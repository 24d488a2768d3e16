//! `keadm gettoken`.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use beehive::Env;
use cloud_hub::Vault;
use contract::NodeName;

/// 24 h, as KubeEdge's tokens.
pub const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// A token for the cluster behind `client`; with a `node`, good for that name and once.
///
/// # Errors
/// When the cluster cannot be reached, or its Secrets may not be read.
pub async fn get_token(client: kube::Client, node: Option<&NodeName>, env: &Env) -> Result<String> {
    let vault = Vault::new(client);
    let authority = vault.authority(env).await?;
    let key = vault.token_key(env).await?;
    let end = env.wall() + TOKEN_LIFE;
    let end =
        end.duration_since(SystemTime::UNIX_EPOCH).context("this machine's clock is before 1970: set it")?;
    let id: String = env.random_id().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(key.mint(authority.cert_der(), end.as_secs(), &id, node.map(NodeName::as_str))?)
}
