//! Tokens of service accounts: asked for through MetaManager, kept until a better one is there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use beehive::{Address, Env, Moment};
use contract::metamanager::{MetaMsg, NoToken};
use contract::{TokenGrant, TokenQuery};

use crate::pod::parsed_pod::ParsedPod;
use crate::store::EdgedStore;
use crate::volumes::{TokenRequest, Tokens};

/// The cloud's own deadline is shorter.
const DEADLINE: Duration = Duration::from_secs(20);
/// After a refusal while an older token is in use.
const RETRY: Duration = Duration::from_secs(60);
/// 5 min: how old a token is that was kept over a restart, the wall clock alone says, and it may be wrong: so it is believed for
/// so long only.
const RENEWED_AFTER_RESTART: Duration = Duration::from_secs(300);
/// 5 s: nobody but this node is asked while the cloud is out of reach, and a link may be up for seconds only.
const RETRY_WITHOUT_CLOUD: Duration = Duration::from_secs(5);

/// One of so many parts of its life is left when a token is renewed: a kubelet does so when 80 % are over (`requiresRefresh`,
/// `pkg/kubelet/token/token_manager.go`).
const PARTS_OF_LIFE: i64 = 5;
/// 24 h, after which it is renewed in any case (`maxTTL` there).
const DAY_SECONDS: i64 = 24 * 3600;

/// One token at hand.
#[derive(Debug, Clone)]
struct CachedToken {
    token: String,
    /// When to ask for the next: after 80 % of its life.
    renew_at: Moment,
}

/// The tokens of all pods of the node.
#[derive(Debug, Default)]
pub(crate) struct TokenManager {
    cached: RefCell<BTreeMap<(String, TokenRequest), CachedToken>>,
}

/// The first key of a token's row.
pub(crate) fn key(uid: &str, want: &TokenRequest) -> String {
    format!("{uid}/{}/{}", want.seconds, want.audience)
}

impl TokenManager {
    /// The tokens that a pod wants, and when to come back for newer ones. A token that cannot be renewed stays in use;
    /// one that was never granted is an error.
    pub(crate) async fn of_pod(
        &self,
        pod: &ParsedPod,
        wants: &[TokenRequest],
        store: &EdgedStore,
        meta: &Address<MetaMsg>,
        env: &Env,
    ) -> Result<(Tokens, Option<Moment>), String> {
        let mut tokens = Tokens::new();
        let mut next: Option<Moment> = None;
        for want in wants {
            let place = (pod.id.uid.clone(), want.clone());
            let cached = self.cached.borrow().get(&place).cloned();
            let cached = match cached {
                Some(cached) if cached.renew_at > env.now() => cached,
                old => {
                    let cached = renew(pod, want, old, store, meta, env).await?;
                    self.cached.borrow_mut().insert(place, cached.clone());
                    cached
                }
            };
            next = Some(next.map_or(cached.renew_at, |next| next.min(cached.renew_at)));
            tokens.insert(want.clone(), cached.token);
        }
        Ok((tokens, next))
    }

    /// Forgets a pod.
    pub(crate) async fn forget(&self, uid: &str, store: &EdgedStore, env: &Env) {
        self.cached.borrow_mut().retain(|(pod, _), _| pod != uid);
        if let Err(reason) = store.forget_tokens(env, &format!("{uid}/")).await {
            tracing::warn!(uid, %reason, "tokens of a pod that is gone stay in the store");
        }
    }
}

async fn renew(
    pod: &ParsedPod,
    want: &TokenRequest,
    old: Option<CachedToken>,
    store: &EdgedStore,
    meta: &Address<MetaMsg>,
    env: &Env,
) -> Result<CachedToken, String> {
    let query = TokenQuery {
        namespace: pod.id.namespace.clone(),
        service_account: pod.spec().service_account_name.clone().unwrap_or_else(|| "default".to_owned()),
        audiences: Some(want.audience.clone()).filter(|audience| !audience.is_empty()).into_iter().collect(),
        expiration_seconds: want.seconds,
        pod_name: pod.id.name.clone(),
        pod_uid: pod.id.uid.clone(),
    };
    let key = key(&pod.id.uid, want);
    let (kept_store, kept_key) = (store.clone(), key.clone());
    let kept = env.blocking(move || kept_store.token(&kept_key)).await.unwrap_or_else(|error| {
        tracing::error!(pod = %pod.id.name, %error, "kept token cannot be read");
        None
    });
    // After a restart the token from before serves, but not for long.
    if old.is_none()
        && let Some(grant) = &kept
        && let Some(left) = fresh_for(grant, unix(env))
    {
        let fresh = cached(grant.clone(), left, env.now());
        let soon = env.now() + env.jitter(RENEWED_AFTER_RESTART);
        return Ok(CachedToken { renew_at: fresh.renew_at.min(soon), ..fresh });
    }
    let answer = meta.ask(DEADLINE, |reply| MetaMsg::Token { query, reply }).await;
    let (reason, retry) = match answer {
        Ok(Ok(grant)) => {
            if let Err(reason) = store.keep_token(&key, &grant).await {
                tracing::warn!(pod = %pod.id.name, %reason, "token is not kept for a restart without the cloud");
            }
            let left = grant.lifetime_seconds;
            return Ok(cached(grant, left, env.now()));
        }
        Ok(Err(NoToken::OutOfReach)) => (NoToken::OutOfReach.to_string(), RETRY_WITHOUT_CLOUD),
        Ok(Err(NoToken::Refused(reason))) => (reason, RETRY),
        Err(error) => (error.to_string(), RETRY_WITHOUT_CLOUD),
    };
    // The pod goes on with what it has, even past its end: a clock may be wrong, and without the cloud there is no
    // better one.
    let before = old.map(|cached| cached.token).or(kept.map(|grant| grant.token));
    match before {
        Some(token) => Ok(CachedToken { token, renew_at: env.now() + env.jitter(retry) }),
        None => Err(reason),
    }
}

/// How many seconds of its life a token has left when it is renewed.
fn left_at_renewal(grant: &TokenGrant) -> i64 {
    grant.lifetime_seconds / PARTS_OF_LIFE
}

/// A token with `left` seconds to live, and when it is renewed.
fn cached(grant: TokenGrant, left: i64, now: Moment) -> CachedToken {
    let usable = left.saturating_sub(left_at_renewal(&grant)).min(DAY_SECONDS);
    let usable = Duration::from_secs(u64::try_from(usable).unwrap_or(0));
    CachedToken { token: grant.token, renew_at: now + usable.max(RETRY) }
}

/// How many seconds a kept token lives, when it need not be renewed yet. One that would live longer than it ever did
/// was kept by another clock.
fn fresh_for(grant: &TokenGrant, unix: i64) -> Option<i64> {
    let left = grant.expires_unix.saturating_sub(unix);
    (left > left_at_renewal(grant) && left <= grant.lifetime_seconds).then_some(left)
}

fn unix(env: &Env) -> i64 {
    jiff::Timestamp::try_from(env.wall()).unwrap_or_default().as_second()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_token_serves_until_a_fifth_of_its_life_is_left() {
        let grant = TokenGrant { token: "t".into(), expires_unix: 10_000, lifetime_seconds: 1000 };
        assert_eq!(fresh_for(&grant, 9_000), Some(1000));
        assert_eq!(fresh_for(&grant, 9_799), Some(201));
        assert_eq!(fresh_for(&grant, 9_800), None);
        assert_eq!(fresh_for(&grant, 12_000), None);
        assert_eq!(fresh_for(&grant, 100), None, "a clock that is far behind decides nothing");
        assert_eq!(fresh_for(&grant, i64::MIN), None);
        assert_eq!(fresh_for(&grant, i64::MAX), None, "nor one that is far ahead");
        let now = Moment(Duration::from_secs(5));
        assert_eq!(cached(grant, 1000, now).renew_at, Moment(Duration::from_secs(805)));
        let week = 7 * DAY_SECONDS;
        let grant = TokenGrant { token: "t".into(), expires_unix: week, lifetime_seconds: week };
        assert_eq!(cached(grant, week, now).renew_at, Moment(Duration::from_secs(24 * 3600 + 5)));
    }
}
