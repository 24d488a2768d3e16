//! `keadm gettoken` and `keadm token`.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use beehive::Env;
use cloud_hub::SecretStore;
use contract::NodeName;
use noderegistry::{ListedToken, NewToken, Registry, Removal};

use crate::admin::held;
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
    let secrets = SecretStore::new(client.clone());
    let authority = secrets.authority(env).await?;
    let key = secrets.token_key(env).await?;
    let now = env.wall().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.context("this machine's clock is before 1970: set it")?.as_secs();
    let id: String = env.random_id().iter().map(|byte| format!("{byte:02x}")).collect();
    let expires_unix = now + TOKEN_LIFE.as_secs();
    // First what can fail here: what is entered in the cluster is good from then on.
    let minted = key.mint(authority.cert_der(), expires_unix, &id, node.map(NodeName::as_str))?;
    let token = NewToken { id, expires_unix, node: node.cloned(), uses };
    Registry::new(client).add_token(&token, now).await?;
    Ok(minted)
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
    table(&["ID", "NODE", "USED", "EXPIRES", "REMARK"], tokens.into_iter().map(row).collect(), say);
    Ok(())
}

fn row(listed: ListedToken) -> Vec<String> {
    let withdrawn = || "withdrawn; finalizers hold its object".to_owned();
    match listed.token {
        Ok(token) => vec![
            listed.id,
            token.spec.node.unwrap_or_else(|| "(any new one)".to_owned()),
            format!("{}/{}", token.spec.used.unwrap_or(0), token.spec.uses.unwrap_or(1)),
            token.spec.expires.unwrap_or_default(),
            if listed.is_ending { withdrawn() } else { String::new() },
        ],
        Err(why) => {
            let why: String = why.chars().filter(|letter| !letter.is_control()).take(200).collect();
            let odd = format!("not understood, good for nothing ({why})");
            let [node, used, expires] = ["?"; 3].map(str::to_owned);
            vec![listed.id, node, used, expires, if listed.is_ending { withdrawn() } else { odd }]
        }
    }
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
    let removal = Registry::new(client).withdraw(id).await?;
    if removal == Removal::NotThere {
        bail!("there is no token `{id}`: `keadm token list` shows those that are");
    }
    say(format!("token {id} is withdrawn: it joins nothing more; nodes that joined with it stay"));
    if let Removal::Held(finalizers) = removal {
        say(held("jointoken", id, &finalizers));
    }
    Ok(())
}
