//! Join tokens, as far as the cluster knows of them.

use beehive::Fault;
use contract::NodeName;
use crd::{JoinToken, JoinTokenSpec};
use kube::api::{DynamicObject, ListParams, PostParams};
use kubewatch::status_code;

use crate::error::{EnrolmentError, RegistryError};
use crate::plan::{self, Refusal, TokenClaims};
use crate::register::{Registry, Removal, SWAP_TRIES, remove};

const JOIN_TOKEN: &str = "JoinToken";
/// 50 nodes: what a token is good for if nobody says otherwise; a site, and few enough that a token which leaks can't fill
/// the register.
pub const TOKEN_USES: u32 = 50;
/// 500 tokens a page: what is listed at once.
const PAGE: u32 = 500;

/// A token that is to be good.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Its id.
    pub id: String,
    /// When it ends, in seconds since 1970.
    pub expires_unix: u64,
    /// The only name that it is good for; then it is good once.
    pub node: Option<NodeName>,
    /// How many nodes may join with it.
    pub uses: u32,
}

/// A token in a list.
#[derive(Debug, Clone)]
pub struct ListedToken {
    /// Its id.
    pub id: String,
    /// It was withdrawn, and finalizers hold its object.
    pub is_ending: bool,
    /// What its object says, or why that is not understood.
    pub token: Result<JoinToken, String>,
}

impl ListedToken {
    fn of(object: DynamicObject) -> Self {
        ListedToken {
            id: object.metadata.name.clone().unwrap_or_default(),
            is_ending: plan::is_ending(&object.metadata),
            token: object.try_parse().map_err(|error| error.to_string()),
        }
    }
}

impl Registry {
    /// Makes a token good. What has ended since is forgotten on the way, as far as that can be done.
    ///
    /// # Errors
    /// See [`RegistryError`]. The token is not good then, unless the server cannot be asked for it any more.
    pub async fn add_token(&self, token: &NewToken, now_unix: u64) -> Result<(), RegistryError> {
        let spec = JoinTokenSpec {
            expires: Some(plan::rfc3339(token.expires_unix)),
            node: token.node.as_ref().map(|node| node.as_str().to_owned()),
            uses: Some(if token.node.is_some() { 1 } else { token.uses }),
            used: Some(0),
        };
        let created = self.tokens.create(&PostParams::default(), &JoinToken::new(&token.id, spec)).await;
        if let Err(source) = created {
            // Where nobody can say whether it is there, nothing good is left behind.
            if status_code(&source).is_none_or(|code| code >= 500) {
                let _ = self.withdraw(&token.id).await;
            }
            return Err(RegistryError::api(JOIN_TOKEN, &token.id, source));
        }
        if let Err(error) = self.forget_ended(now_unix).await {
            let reason = Fault::from_error(&error).reason;
            tracing::warn!(%reason, "tokens that have ended were not removed");
        }
        Ok(())
    }

    /// Those that are not understood stay for somebody to look at: they are good for nothing.
    async fn forget_ended(&self, now_unix: u64) -> Result<(), RegistryError> {
        for old in self.tokens().await? {
            let Ok(token) = &old.token else { continue };
            let end = token.spec.expires.as_deref().and_then(plan::unix);
            if !old.is_ending && end.is_none_or(|end| end <= now_unix) {
                self.withdraw(&old.id).await?;
            }
        }
        Ok(())
    }

    /// The object of a token; `None`: it was withdrawn.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn token(&self, id: &str) -> Result<Option<JoinToken>, RegistryError> {
        let found = self.token_objects.get_opt(id).await;
        let found = found.map_err(|source| RegistryError::api(JOIN_TOKEN, id, source))?;
        let odd = |why: kube::core::dynamic::ParseDynamicObjectError| RegistryError::Odd {
            refusal: Refusal::OddToken,
            why: why.to_string(),
        };
        found.map(|found| found.try_parse().map_err(odd)).transpose()
    }

    /// All tokens that are good or were, each read for itself: one that is not understood keeps none from being shown.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn tokens(&self) -> Result<Vec<ListedToken>, RegistryError> {
        let mut found = Vec::new();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = self.token_objects.list(&params).await;
            let page = page.map_err(|source| RegistryError::api(JOIN_TOKEN, "(all)", source))?;
            found.extend(page.items.into_iter().map(ListedToken::of));
            match page.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => params = params.continue_token(&next),
                None => return Ok(found),
            }
        }
    }

    /// Withdraws a token, whatever is in its object. Answers what became of that.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn withdraw(&self, id: &str) -> Result<Removal, RegistryError> {
        remove(&self.token_objects, JOIN_TOKEN, id).await
    }

    /// Takes one use of a token, if one is left.
    pub(crate) async fn spend(
        &self,
        claims: &TokenClaims,
        node: &NodeName,
        now_unix: u64,
    ) -> Result<(), EnrolmentError> {
        let _alone = self.spending.lock().await;
        for _ in 0..SWAP_TRIES {
            let token = self.token(&claims.id).await?;
            plan::may_use(claims, token.as_ref(), node, now_unix)?;
            let Some(mut token) = token else { break };
            token.spec.used = Some(token.spec.used.unwrap_or(0).saturating_add(1));
            if self.swap_token(&claims.id, &token).await? {
                return Ok(());
            }
        }
        Err(RegistryError::contended(JOIN_TOKEN, &claims.id).into())
    }

    async fn swap_token(&self, id: &str, token: &JoinToken) -> Result<bool, RegistryError> {
        match self.tokens.replace(id, &PostParams::default(), token).await {
            Ok(_) => Ok(true),
            Err(error) if matches!(status_code(&error), Some(404 | 409)) => Ok(false),
            Err(source) => Err(RegistryError::api(JOIN_TOKEN, id, source)),
        }
    }
}
