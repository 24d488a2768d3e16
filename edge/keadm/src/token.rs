//! `keadm gettoken` and `keadm token`.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use beehive::Env;
use cloud_hub::Vault;
use contract::NodeName;
use noderegistry::{NewToken, Registry};

use crate::store::table;

/// 24 h, as KubeEdge's tokens.
pub const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// A token for the cluster behind `client`; with a `node`, good for that name and once, else for `uses` new nodes.
///
/// # Errors
/// When the cluster cannot be reached, its Secrets may not be read, or tokens may not be entered there.
pub async fn get_token(
    client: kube::Client,
    node: Option<&NodeName>,
    uses: u32,
    env: &Env,
) -> Result<String> {
    let vault = Vault::new(client.clone());
    let authority = vault.authority(env).await?;
    let key = vault.token_key(env).await?;
    let now = env.wall().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.context("this machine's clock is before 1970: set it")?.as_secs();
    let id: String = env.random_id().iter().map(|byte| format!("{byte:02x}")).collect();
    let expires_unix = now + TOKEN_LIFE.as_secs();
    let token = NewToken { id: id.clone(), expires_unix, node: node.cloned(), uses };
    Registry::new(client).add_token(&token, now).await.context(
        "tokens cannot be entered in this cluster: start cloudcore once, or apply `cloud/deploy/crds` with kubectl",
    )?;
    Ok(key.mint(authority.cert_der(), expires_unix, &id, node.map(NodeName::as_str))?)
}

/// Lists the tokens of the cluster.
///
/// # Errors
/// When the cluster cannot be read.
pub async fn list_tokens(client: kube::Client, say: &mut dyn FnMut(String)) -> Result<()> {
    let tokens = Registry::new(client).tokens().await?;
    if tokens.is_empty() {
        say("no token is good: print one with `keadm gettoken`".to_owned());
        return Ok(());
    }
    let row = |token: crd::JoinToken| {
        let spec = token.spec;
        vec![
            token.metadata.name.unwrap_or_default(),
            spec.node.unwrap_or_else(|| "(any new one)".to_owned()),
            format!("{}/{}", spec.used.unwrap_or(0), spec.uses.unwrap_or(1)),
            spec.expires.unwrap_or_default(),
        ]
    };
    table(&["ID", "NODE", "USED", "EXPIRES"], tokens.into_iter().map(row).collect(), say);
    Ok(())
}

/// Withdraws a token.
///
/// # Errors
/// When there is none of that id.
pub async fn withdraw_token(client: kube::Client, id: &str, say: &mut dyn FnMut(String)) -> Result<()> {
    let is_id = !id.is_empty()
        && id.len() <= 64
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !is_id {
        bail!("`{}` is no id of a token: `keadm token list` shows them", id.escape_debug());
    }
    if !Registry::new(client).withdraw(id).await? {
        bail!("there is no token `{id}`: `keadm token list` shows those that are");
    }
    say(format!("token {id} is withdrawn: it joins nothing more; nodes that joined with it stay"));
    Ok(())
}
