//! Questions for tokens, and their answers, as version 1 writes them.

use serde::{Deserialize, Serialize};

use crate::{TokenGrant, TokenQuery};

#[derive(Serialize, Deserialize)]
pub(super) struct TokenQueryV1 {
    namespace: String,
    service_account: String,
    audiences: Vec<String>,
    expiration_seconds: i64,
    pod_name: String,
    pod_uid: String,
}

#[derive(Serialize, Deserialize)]
struct TokenGrantV1 {
    token: String,
    expires_unix: i64,
    lifetime_seconds: i64,
}

/// The token, or a sentence why not.
#[derive(Serialize, Deserialize)]
pub(super) struct TokenAnswerV1(Result<TokenGrantV1, String>);

impl From<TokenQuery> for TokenQueryV1 {
    fn from(query: TokenQuery) -> Self {
        let TokenQuery { namespace, service_account, audiences, expiration_seconds, pod_name, pod_uid } =
            query;
        TokenQueryV1 { namespace, service_account, audiences, expiration_seconds, pod_name, pod_uid }
    }
}

impl From<TokenQueryV1> for TokenQuery {
    fn from(query: TokenQueryV1) -> Self {
        let TokenQueryV1 { namespace, service_account, audiences, expiration_seconds, pod_name, pod_uid } =
            query;
        TokenQuery { namespace, service_account, audiences, expiration_seconds, pod_name, pod_uid }
    }
}

impl From<Result<TokenGrant, String>> for TokenAnswerV1 {
    fn from(answer: Result<TokenGrant, String>) -> Self {
        TokenAnswerV1(answer.map(|TokenGrant { token, expires_unix, lifetime_seconds }| TokenGrantV1 {
            token,
            expires_unix,
            lifetime_seconds,
        }))
    }
}

impl From<TokenAnswerV1> for Result<TokenGrant, String> {
    fn from(TokenAnswerV1(answer): TokenAnswerV1) -> Self {
        answer.map(|TokenGrantV1 { token, expires_unix, lifetime_seconds }| TokenGrant {
            token,
            expires_unix,
            lifetime_seconds,
        })
    }
}
