//! Writing: create, update, patch, delete, and the subresources that are part of an object.

mod api;
mod body;
mod create;
mod defaults;
mod definition;
mod delete;
mod json;
mod object_size;
mod part;
mod patch;
mod persist;
mod pod_defaults;
mod pod_parts;
mod pod_resources;
mod protobuf;
mod prune;
mod quantities;
mod structural_schema;
mod subresource;
mod typed;
mod update;
mod validation;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};

pub use self::api::{Admission, Api, NoPolicy, Operation, Policy};
pub use self::create::random_suffix;
use self::part::Subresource;
pub use self::validation::{bad_endpoint_address, bad_subdomain};
use crate::error::ApiError;
use crate::request::{Attributes, BODY_MAX, User};
use crate::response::{Answer, Body, respond};
use crate::store::Store;

impl<S: Store> Api<S> {
    /// Answers a request of an authenticated and authorized user.
    pub async fn handle(&self, request: Request<Bytes>, user: &User) -> Response<Body> {
        let (parts, body) = request.into_parts();
        respond(self.answer(&parts, &body, user).await)
    }

    async fn answer(&self, parts: &Parts, body: &[u8], user: &User) -> Result<Answer, ApiError> {
        if body.len() > BODY_MAX {
            return Err(ApiError::too_large(&format!("limit is {BODY_MAX}")));
        }
        let attributes = Attributes::of(parts);
        if attributes.resource.is_empty() {
            return self.reader.path(parts).await;
        }
        if let Some(answer) = self.review(parts, &attributes, body, user).await? {
            return Ok(answer);
        }
        let request = self.reader.request(parts, attributes, body, user).await?;
        if !request.attributes.subresource.is_empty() {
            return self.subresource(&request).await;
        }
        if let Some(answer) = self.reader.read(&request).await {
            return answer;
        }
        let is_named = !request.attributes.name.is_empty();
        match request.attributes.verb.as_str() {
            "create" if !is_named => self.create(&request).await,
            "update" if is_named => self.replace(&request, Subresource::Main).await,
            "patch" if is_named => self.patch(&request, Subresource::Main).await,
            "delete" => self.delete(&request).await,
            "deletecollection" => self.delete_collection(&request).await,
            _ => Err(ApiError::method_not_allowed()),
        }
    }
}
