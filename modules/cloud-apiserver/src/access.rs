//! Who may what, and the tokens of service accounts: what admission and reviews ask of whoever holds keys and rules.

use futures::future::BoxFuture;
use jiff::Timestamp;
use kubeapi::{Attributes, User};
use serde_json::Value;

/// What a service account's token is to say.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// Namespace of the account.
    pub namespace: String,
    /// The account.
    pub service_account: String,
    /// Its uid.
    pub service_account_uid: String,
    /// For whom; empty means the API server itself.
    pub audiences: Vec<String>,
    /// How long it should live.
    pub expiration_seconds: i64,
    /// Name and uid of the pod that it dies with.
    pub pod: Option<(String, String)>,
}

/// Authentication and authorization.
pub trait AccessControl: Send + Sync {
    /// A signed token, the audiences that it is for, and its end.
    ///
    /// # Errors
    /// A sentence.
    fn mint_token(&self, request: &TokenRequest) -> Result<(String, Vec<String>, Timestamp), String>;
    /// Whose token it is, and which of `audiences` it is for (an empty list asks for the API server itself); `None` if
    /// it is nobody's or for none of them.
    fn review_token<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Option<(User, Vec<String>)>>;
    /// Whether the user may.
    fn authorize<'a>(&'a self, user: &'a User, attributes: &'a Attributes) -> BoxFuture<'a, bool>;
    /// The rules (RBAC's `PolicyRule`) that the user has in a namespace, with those of the whole cluster; in an empty
    /// one only the latter. Who may not `escalate` or `bind` gives no more than these. None by default.
    fn rules_for<'a>(&'a self, _user: &'a User, _namespace: &'a str) -> BoxFuture<'a, Vec<Value>> {
        Box::pin(std::future::ready(Vec::new()))
    }
}
