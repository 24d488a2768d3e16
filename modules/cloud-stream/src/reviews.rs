//! Who somebody is and what he may, by the API server's word, kept as long as a kubelet keeps it.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use beehive::Clock;
use beehive::link::accept_limiter::{RateLimiter, address_prefix};
use contract::NodeName;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use nodecalls::Needs;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::cache::{Cache, Key};
use crate::credentials::User;
use crate::error::ReviewError;

/// 2 min for who has a token, also for nobody (`authentication.webhook.cacheTTL`).
const TOKEN_KEPT: Duration = Duration::from_secs(120);
/// 5 min for a yes (`authorization.webhook.cacheAuthorizedTTL`).
const YES_KEPT: Duration = Duration::from_secs(300);
/// 30 s for a no (`authorization.webhook.cacheUnauthorizedTTL`).
const NO_KEPT: Duration = Duration::from_secs(30);
/// 4096 answers of each kind: scrapers and people are few, and strangers' tokens push out one another's.
const KEPT_MAX: usize = 4096;
/// 32 questions at once: strangers with ever new tokens are not to flood the API server.
const AT_ONCE: usize = 32;
/// 2 tokens a second that are not known yet, and 60 at once, from one address: a scraper's is asked about every 2 min.
const UNKNOWN_PER_SECOND: f64 = 2.0;
const UNKNOWN_AT_ONCE: f64 = 60.0;
/// 10 s for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// 5 tries, the first pause 500 ms and each 1.5 times the one before, as a kubelet's.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);

/// Asks the API server.
pub(crate) struct Reviews {
    client: kube::Client,
    clock: Arc<dyn Clock>,
    turns: Semaphore,
    unknown_tokens: Mutex<RateLimiter<IpAddr>>,
    users: Mutex<Cache<Option<User>>>,
    answers: Mutex<Cache<bool>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reviews {
    pub(crate) fn new(client: kube::Client, clock: Arc<dyn Clock>) -> Self {
        Reviews {
            client,
            clock,
            turns: Semaphore::new(AT_ONCE),
            unknown_tokens: Mutex::new(RateLimiter::new(UNKNOWN_PER_SECOND, UNKNOWN_AT_ONCE)),
            users: Mutex::new(Cache::new(KEPT_MAX)),
            answers: Mutex::new(Cache::new(KEPT_MAX)),
        }
    }

    /// Whose token it is, that came from this address. `None`: nobody's.
    pub(crate) async fn user_of(&self, token: &str, from: IpAddr) -> Result<Option<User>, ReviewError> {
        let key: Key = Sha256::digest(token).into();
        if let Some(known) = lock(&self.users).get(&key, self.clock.now()) {
            return Ok(known);
        }
        let may_ask = lock(&self.unknown_tokens).take(&address_prefix(from), self.clock.now());
        may_ask.map_err(ReviewError::TooManyTokens)?;
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: None };
        let asked = TokenReview { spec, ..TokenReview::default() };
        let answered = self.ask("TokenReview", &asked).await?;
        let status = answered.status.ok_or(ReviewError::Empty("TokenReview"))?;
        let user = status.user.filter(|_| status.authenticated == Some(true)).and_then(|user| {
            let name = user.username.filter(|name| !name.is_empty())?;
            let (uid, groups) = (user.uid.unwrap_or_default(), user.groups.unwrap_or_default());
            let extra = user.extra.unwrap_or_default();
            Some(User { name, uid, groups, extra }.authenticated())
        });
        lock(&self.users).put(key, user.clone(), TOKEN_KEPT, self.clock.now());
        Ok(user)
    }

    /// Whether the user may: the first subresource that is granted decides.
    ///
    /// # Errors
    /// With the subresource of which nobody could say.
    pub(crate) async fn may(
        &self,
        user: &User,
        node: &NodeName,
        needs: &Needs,
    ) -> Result<bool, (&'static str, ReviewError)> {
        for subresource in &needs.subresources {
            let granted = self.grants(user, node, needs.verb, subresource).await;
            if granted.map_err(|error| (*subresource, error))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn grants(
        &self,
        user: &User,
        node: &NodeName,
        verb: &str,
        subresource: &str,
    ) -> Result<bool, ReviewError> {
        let User { name, uid, groups, extra } = user;
        let question = json!([name, uid, groups, extra, node.as_str(), verb, subresource]);
        let key: Key = Sha256::digest(question.to_string()).into();
        if let Some(known) = lock(&self.answers).get(&key, self.clock.now()) {
            return Ok(known);
        }
        let attributes = ResourceAttributes {
            verb: Some(verb.to_owned()),
            version: Some("v1".to_owned()),
            resource: Some("nodes".to_owned()),
            subresource: Some(subresource.to_owned()),
            name: Some(node.as_str().to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(name.clone()),
            uid: (!uid.is_empty()).then(|| uid.clone()),
            groups: Some(groups.clone()),
            extra: (!extra.is_empty()).then(|| extra.clone()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let asked = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let answered = self.ask("SubjectAccessReview", &asked).await?;
        let status = answered.status.ok_or(ReviewError::Empty("SubjectAccessReview"))?;
        let allowed = status.allowed && status.denied != Some(true);
        let kept = if allowed { YES_KEPT } else { NO_KEPT };
        lock(&self.answers).put(key, allowed, kept, self.clock.now());
        Ok(allowed)
    }

    /// Asks, again where an error may pass.
    async fn ask<T>(&self, kind: &'static str, question: &T) -> Result<T, ReviewError>
    where
        T: kube::Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
    {
        // It is never closed.
        let _turn = self.turns.acquire().await;
        let api: Api<T> = Api::all(self.client.clone());
        let mut pause = PAUSE;
        for tries_left in (0..TRIES).rev() {
            let params = PostParams::default();
            let failed = tokio::select! {
                answered = api.create(&params, question) => match answered {
                    Ok(answered) => return Ok(answered),
                    Err(source) => ReviewError::Api { kind, source },
                },
                () = self.clock.sleep(ANSWER_WITHIN) => ReviewError::Late(kind),
            };
            if tries_left == 0 || is_final(&failed) {
                return Err(failed);
            }
            self.clock.sleep(pause).await;
            pause = pause * 3 / 2;
        }
        Err(ReviewError::Late(kind))
    }
}

/// Whether asking again gains nothing: the API server has understood, and says no.
fn is_final(error: &ReviewError) -> bool {
    match error {
        ReviewError::Api { source: kube::Error::Api(status), .. } => {
            (400..500).contains(&status.code) && status.code != 429
        }
        ReviewError::Api { .. } | ReviewError::Late(_) => false,
        ReviewError::Empty(_) | ReviewError::TooManyTokens(_) => true,
    }
}
