//! Who asks: bearer tokens of the admin and of service accounts.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::ObjectKey;
use beehive::Clock;
use futures::future::BoxFuture;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use kubeapi::{Attributes, ReadStore, User};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::access::{AccessControl, TokenRequest};
use crate::rbac;
use crate::rbac_cache::RbacCache;
use crate::store::SqliteStore;

/// The issuer and the audience of tokens for the API server itself.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// 5 s between the looks at the rights of an open watch.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// 16 KiB: the longest token that is looked at.
const TOKEN_MAX: usize = 16 << 10;

#[derive(Debug, Serialize, Deserialize)]
struct ServiceAccountClaims {
    iss: String,
    sub: String,
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    nbf: i64,
    jti: String,
    #[serde(rename = "kubernetes.io")]
    bound: BoundObjects,
}

#[derive(Debug, Serialize, Deserialize)]
struct BoundObjects {
    namespace: String,
    serviceaccount: BoundReference,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<BoundReference>,
}

#[derive(Debug, Serialize, Deserialize)]
struct BoundReference {
    name: String,
    uid: String,
}

/// Knows tokens, and what their users may.
pub(crate) struct Authenticator {
    store: Arc<SqliteStore>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Fn() -> [u8; 16] + Send + Sync>,
    sign: EncodingKey,
    verify: DecodingKey,
    /// Compared by hash, so that the time of the comparison says nothing of the token.
    admin: [u8; 32],
    rbac: RbacCache,
}

impl Authenticator {
    pub(crate) fn new(
        store: Arc<SqliteStore>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Fn() -> [u8; 16] + Send + Sync>,
        key: &rcgen::KeyPair,
        admin_token: &str,
    ) -> Result<Authenticator, jsonwebtoken::errors::Error> {
        Ok(Authenticator {
            store,
            clock,
            random,
            sign: EncodingKey::from_ec_pem(key.serialize_pem().as_bytes())?,
            verify: DecodingKey::from_ec_pem(key.public_key_pem().as_bytes())?,
            admin: Sha256::digest(admin_token).into(),
            rbac: RbacCache::default(),
        })
    }

    /// The clock that this server was given.
    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    fn now(&self) -> i64 {
        Timestamp::try_from(self.clock.wall()).unwrap_or_default().as_second()
    }

    /// Whose token it is, if it is one for the API server itself.
    pub(crate) async fn authenticate(&self, token: &str) -> Option<User> {
        self.known(token, &[ISSUER.to_owned()]).await.map(|(user, _)| user)
    }

    /// Whose token it is, and which of `audiences` it is for.
    async fn known(&self, token: &str, audiences: &[String]) -> Option<(User, Vec<String>)> {
        if token.len() > TOKEN_MAX {
            return None;
        }
        let hash: [u8; 32] = Sha256::digest(token).into();
        if hash == self.admin {
            let for_us =
                audiences.iter().any(|audience| audience == ISSUER).then(|| vec![ISSUER.to_owned()])?;
            let groups = vec!["system:masters".to_owned(), "system:authenticated".to_owned()];
            let user = User { name: "kubernetes-admin".to_owned(), groups, uid: String::new() };
            return Some((user, for_us));
        }
        let mut validation = Validation::new(Algorithm::ES256);
        // Times are checked against the clock that this server was given.
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        validation.set_audience(audiences);
        validation.set_issuer(&[ISSUER]);
        let claims =
            jsonwebtoken::decode::<ServiceAccountClaims>(token, &self.verify, &validation).ok()?.claims;
        if !is_living(&claims, self.now()) {
            return None;
        }
        let BoundObjects { namespace, serviceaccount, pod } = claims.bound;
        self.is_there("serviceaccounts", &namespace, &serviceaccount).await.then_some(())?;
        if let Some(pod) = &pod {
            self.is_there("pods", &namespace, pod).await.then_some(())?;
        }
        let meant = audiences.iter().filter(|audience| claims.aud.contains(audience)).cloned().collect();
        let user = User {
            name: format!("system:serviceaccount:{namespace}:{}", serviceaccount.name),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ],
            uid: serviceaccount.uid,
        };
        Some((user, meant))
    }

    /// Ends when the token is nobody's any more, or when `user`, whom its owner acts as, may no longer do `wanted`: a
    /// watch does not outlive the right to it.
    pub(crate) async fn withdrawn(self: Arc<Self>, token: String, user: User, wanted: Attributes) {
        loop {
            self.clock.sleep(LOOK_AGAIN).await;
            if self.authenticate(&token).await.is_none() || !self.authorize(&user, &wanted).await {
                return;
            }
        }
    }

    /// Whether the object that a token is bound to is still the same one.
    async fn is_there(&self, resource: &str, namespace: &str, named: &BoundReference) -> bool {
        let key = ObjectKey::new(resource, namespace, &*named.name);
        let Ok(Some(item)) = self.store.get(&key).await else { return false };
        serde_json::from_slice::<Value>(&item.json)
            .is_ok_and(|object| object["metadata"]["uid"].as_str() == Some(&named.uid))
    }
}

/// Whether a token is good at `now`. This server made it, so it is not earlier than that: a clock that was set back refuses none.
fn is_living(claims: &ServiceAccountClaims, now: i64) -> bool {
    claims.exp > now.max(claims.nbf)
}

impl AccessControl for Authenticator {
    fn mint_token(&self, request: &TokenRequest) -> Result<(String, Vec<String>, Timestamp), String> {
        let now = self.now();
        // A day at the most: a node renews long before.
        let exp = now.saturating_add(request.expiration_seconds.min(86_400));
        let audiences =
            if request.audiences.is_empty() { vec![ISSUER.to_owned()] } else { request.audiences.clone() };
        let named = |(name, uid): &(String, String)| BoundReference { name: name.clone(), uid: uid.clone() };
        let claims = ServiceAccountClaims {
            iss: ISSUER.to_owned(),
            sub: format!("system:serviceaccount:{}:{}", request.namespace, request.service_account),
            aud: audiences.clone(),
            exp,
            iat: now,
            nbf: now,
            jti: hex::encode((self.random)()),
            bound: BoundObjects {
                namespace: request.namespace.clone(),
                serviceaccount: BoundReference {
                    name: request.service_account.clone(),
                    uid: request.service_account_uid.clone(),
                },
                pod: request.pod.as_ref().map(named),
            },
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.sign)
            .map_err(|error| error.to_string())?;
        Ok((token, audiences, Timestamp::from_second(exp).unwrap_or_default()))
    }

    fn review_token<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Option<(User, Vec<String>)>> {
        Box::pin(async move {
            if audiences.is_empty() {
                return self.known(token, &[ISSUER.to_owned()]).await;
            }
            self.known(token, audiences).await
        })
    }

    fn authorize<'a>(&'a self, user: &'a User, attributes: &'a Attributes) -> BoxFuture<'a, bool> {
        Box::pin(rbac::allows(&*self.store, &self.rbac, user, attributes))
    }

    fn rules_for<'a>(&'a self, user: &'a User, namespace: &'a str) -> BoxFuture<'a, Vec<Value>> {
        Box::pin(rbac::rules_for(&*self.store, &self.rbac, user, namespace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_refuses_no_token_and_one_that_has_ended_is_none() {
        let named = || BoundReference { name: "default".to_owned(), uid: "u".to_owned() };
        let claims = ServiceAccountClaims {
            iss: ISSUER.to_owned(),
            sub: String::new(),
            aud: Vec::new(),
            exp: 10_000,
            iat: 6_400,
            nbf: 6_400,
            jti: String::new(),
            bound: BoundObjects { namespace: "default".to_owned(), serviceaccount: named(), pod: None },
        };
        for now in [0, 2_800, 6_400, 9_999] {
            assert!(is_living(&claims, now), "{now}");
        }
        assert!(!is_living(&claims, 10_000) && !is_living(&claims, i64::MAX));
    }
}
