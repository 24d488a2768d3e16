//! The whole API over a store, and what a server adds to it.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::error::ApiError;
use crate::options::Options;
use crate::read::{ExtraResource, ReadApi};
use crate::request::{ApiRequest, User};
use crate::response::Answer;
use crate::store::{QuotaCheck, Store};

/// The Kubernetes API over a store: reading and writing. Cheap to clone.
pub struct Api<S: Store> {
    pub(crate) reader: ReadApi<S>,
    pub(super) policy: Arc<dyn Policy<S>>,
}

impl<S: Store> Clone for Api<S> {
    fn clone(&self) -> Self {
        Api { reader: self.reader.clone(), policy: Arc::clone(&self.policy) }
    }
}

impl<S: Store> Api<S> {
    /// The API over `store`, with what `policy` adds.
    pub fn new(store: Arc<S>, options: Options, policy: Arc<dyn Policy<S>>) -> Self {
        Api { reader: ReadApi::new(store, options, policy.resources()), policy }
    }

    /// The store behind it.
    pub fn store(&self) -> &Arc<S> {
        self.reader.store()
    }

    /// Its reading half.
    pub fn reader(&self) -> &ReadApi<S> {
        &self.reader
    }

    /// The object that a request names, as a client sees it.
    ///
    /// # Errors
    /// 404 without one.
    pub async fn object(&self, request: &ApiRequest<'_>) -> Result<Value, ApiError> {
        Ok(self.reader.stored(&request.kind, &request.key()).await?.1)
    }

    /// Now as Kubernetes writes times: whole seconds.
    pub fn now_text(&self) -> String {
        let seconds = jiff::Timestamp::from_second(self.reader.now().as_second()).unwrap_or_default();
        seconds.to_string()
    }
}

/// What a write does to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// There is no such object yet.
    Create,
    /// The object or a subresource of it changes.
    Update,
    /// It is to be deleted.
    Delete,
}

/// A write as admission sees it.
#[derive(Clone, Copy)]
pub struct Admission<'a> {
    /// Who writes, and to which resource and subresource.
    pub request: &'a ApiRequest<'a>,
    /// What the write does.
    pub operation: Operation,
    /// The object before; `None` at a create.
    pub old: Option<&'a Value>,
}

/// What a server adds to the rules of the API: admission, its quota, and resources and subresources that are more than
/// reading and writing an object. By default nothing.
pub trait Policy<S: Store>: Send + Sync + 'static {
    /// The resources and subresources that [`Policy::review`] and [`Policy::subresource`] answer, for discovery.
    fn resources(&self) -> &'static [ExtraResource] {
        &[]
    }

    /// Writes for which this is the same lock are made one after another, from their admission to the store.
    fn lock(&self, request: &ApiRequest<'_>) -> Option<&Mutex<()>> {
        let _ = request;
        None
    }

    /// Changes a new object (a create or an update of the object itself) after its defaults and before it is validated.
    ///
    /// # Errors
    /// Why it is not admitted.
    fn mutate<'a>(
        &'a self,
        admission: Admission<'a>,
        object: &'a mut Value,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let _ = (admission, object);
        Box::pin(std::future::ready(Ok(())))
    }

    /// Whether a valid object may be written or deleted. Answers warnings.
    ///
    /// # Errors
    /// Why it is not admitted.
    fn validate<'a>(
        &'a self,
        admission: Admission<'a>,
        object: &'a Value,
    ) -> BoxFuture<'a, Result<Vec<String>, ApiError>> {
        let _ = (admission, object);
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Whether the store's bounds for tenants hold for a write.
    fn quota(&self, request: &ApiRequest<'_>) -> QuotaCheck {
        let _ = request;
        QuotaCheck::Exempt
    }

    /// A subresource that the rules do not know.
    ///
    /// # Errors
    /// 404 by default.
    fn subresource<'a>(
        &'a self,
        api: &'a Api<S>,
        request: &'a ApiRequest<'a>,
    ) -> BoxFuture<'a, Result<Answer, ApiError>> {
        let _ = (api, request);
        Box::pin(std::future::ready(Err(ApiError::no_such_path())))
    }

    /// The status of a review: an object of one of [`Policy::resources`] that is answered and not stored.
    ///
    /// # Errors
    /// 404 by default.
    fn review<'a>(
        &'a self,
        resource: &'a ExtraResource,
        review: &'a Value,
        user: &'a User,
    ) -> BoxFuture<'a, Result<Value, ApiError>> {
        let _ = (resource, review, user);
        Box::pin(std::future::ready(Err(ApiError::no_such_path())))
    }
}

/// Adds nothing.
pub struct NoPolicy;

impl<S: Store> Policy<S> for NoPolicy {}
