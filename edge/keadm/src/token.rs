//! `keadm gettoken` and `keadm token`.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use beehive::Env;
use cloud_hub::SecretStore;
use config::KubeletDuration;
use config::cloud::CloudCore;
use contract::NodeName;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use noderegistry::{ListedToken, NewToken, Registry, Removal};

use crate::admin::held;
use crate::cloud::namespace_of;
use crate::store::table;

/// 24 h, as KubeEdge's tokens: twice `tokenRefreshDuration`, if nobody has set that.
pub const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);
/// 1 min: a shorter one has ended before anybody has carried it to a machine.
const TTL_MIN: Duration = Duration::from_secs(60);
/// 365 days: whoever finds a token may join as long as it lives.
const TTL_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// Where the chart has CloudCore's settings.
const SETTINGS: (&str, &str) = ("cloudcore", "cloudcore.yaml");

/// `--ttl`, as Go writes times.
///
/// # Errors
/// When it is no time, or out of bounds.
pub fn ttl(text: &str) -> Result<Duration, String> {
    let Ok(KubeletDuration(life)) = text.parse() else {
        let shown: String = text.chars().take(40).collect();
        return Err(format!("`{}` is no time: write 90m or 72h, from 1m to 8760h", shown.escape_debug()));
    };
    if (TTL_MIN..=TTL_MAX).contains(&life) {
        Ok(life)
    } else {
        Err(format!(
            "a token lives {} at least, and {} at most",
            KubeletDuration(TTL_MIN),
            KubeletDuration(TTL_MAX)
        ))
    }
}

/// How long a token of the CloudCore in this namespace is to live: as asked for, else as long as CloudCore takes one (`tokenRefreshDuration`); and a word of warning where
/// nobody can say that.
///
/// # Errors
/// When CloudCore would take it for a shorter time than is asked for, with the cure.
pub async fn token_life(
    client: &kube::Client,
    namespace: &str,
    asked: Option<Duration>,
) -> Result<(Duration, Option<String>)> {
    // Whoever may make tokens need not be allowed to see that.
    let taken = taken_for(client, namespace).await.unwrap_or_default();
    let cure = |hours: u64| {
        format!("set modules.cloudHub.tokenRefreshDuration of CloudCore to {hours}, half of that in hours")
    };
    match (asked, taken) {
        (None, taken) => Ok((taken.unwrap_or(TOKEN_LIFE), None)),
        (Some(asked), Some(taken)) if asked > taken => bail!(
            "--ttl {}: CloudCore takes no token that is older than {}; {} (a value of the chart: cloudCore.modules…)",
            KubeletDuration(asked),
            KubeletDuration(taken),
            cure(half_in_hours(asked))
        ),
        (Some(asked), None) if asked > TOKEN_LIFE => {
            let word = format!(
                "CloudCore takes no token that is older than {}, unless its settings say otherwise, which cannot be seen from here: {}",
                KubeletDuration(TOKEN_LIFE),
                cure(half_in_hours(asked))
            );
            Ok((asked, Some(word)))
        }
        (Some(asked), _) => Ok((asked, None)),
    }
}

fn half_in_hours(life: Duration) -> u64 {
    life.as_secs().div_ceil(2 * 3600)
}

/// For how long CloudCore takes a token, by the settings that the chart has made; `None`: there are none.
async fn taken_for(client: &kube::Client, namespace: &str) -> Result<Option<Duration>> {
    let (name, file) = SETTINGS;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let Some(map) = maps.get_opt(name).await? else { return Ok(None) };
    let text = map.data.unwrap_or_default().remove(file);
    let Some(text) = text else { return Ok(None) };
    let settings = CloudCore::parse(&text)?;
    let hours = u64::from(settings.modules.cloud_hub.token_refresh_duration);
    Ok(Some(Duration::from_secs(2 * 3600 * hours).min(TTL_MAX)))
}

/// A token for the cluster behind `client` that lives so long; with a `node`, good for that name and once, else for `uses` new nodes. It is of
/// the CloudCore that the cluster has, in whichever namespace.
///
/// # Errors
/// When the cluster cannot be reached, its Secrets may not be read, or tokens may not be entered there.
pub async fn get_token(
    client: kube::Client,
    node: Option<&NodeName>,
    uses: u32,
    life: Duration,
    env: &Env,
) -> Result<String> {
    let namespace = namespace_of(&client, None).await?;
    get_token_in(client, &namespace, node, uses, life, env).await
}

/// [`get_token`], of the CloudCore in this namespace.
///
/// # Errors
/// As there.
pub async fn get_token_in(
    client: kube::Client,
    namespace: &str,
    node: Option<&NodeName>,
    uses: u32,
    life: Duration,
    env: &Env,
) -> Result<String> {
    let secrets = SecretStore::new(client.clone()).in_namespace(namespace);
    let authority = secrets.authority(env).await?;
    let key = secrets.token_key(env).await?;
    let now = env.wall().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.context("this machine's clock is before 1970: set it")?.as_secs();
    let id: String = env.random_id().iter().map(|byte| format!("{byte:02x}")).collect();
    let expires_unix = now.saturating_add(life.as_secs());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_life_of_a_token_is_a_time_within_bounds() {
        assert_eq!(ttl("90m"), Ok(Duration::from_secs(5400)));
        assert_eq!((ttl("1m"), ttl("8760h")), (Ok(TTL_MIN), Ok(TTL_MAX)));
        for (text, words) in [
            ("59s", "at least"),
            ("8761h", "at most"),
            ("0", "at least"),
            ("3d", "write 90m or 72h, from 1m to 8760h"),
            ("-1h", "no time"),
        ] {
            assert!(ttl(text).is_err_and(|told| told.contains(words)), "{text}: {:?}", ttl(text));
        }
        assert_eq!([24, 25, 72].map(|hours| half_in_hours(Duration::from_secs(3600 * hours))), [12, 13, 36]);
    }
}
