//! `serviceaccounts/token`: tokens of service accounts.

use apimachinery::{ObjectKey, kind, resource};
use jiff::Timestamp;
use kubeapi::unstructured::{as_fields, entry, name, strings, text};
use kubeapi::{Answer, Api, ApiError, ApiRequest, FieldError, ReadStore, Store};
use serde_json::{Value, json};

use crate::access::{AccessControl, TokenRequest};

/// 10 min: the shortest life of a token, as with a real server.
const LIFE_MIN_SECONDS: i64 = 600;
/// 2^32 s: the longest, as with a real server.
const LIFE_MAX_SECONDS: i64 = 1 << 32;

pub(super) async fn create<S: Store>(
    api: &Api<S>,
    access: &dyn AccessControl,
    request: &ApiRequest<'_>,
) -> Result<Answer, ApiError> {
    let mut body = request.object()?;
    let account = api.object(request).await?;
    let wanted = body.pointer("/spec/expirationSeconds").filter(|wanted| !wanted.is_null());
    let seconds = wanted.map_or(Some(3600), Value::as_i64);
    let wrong = match seconds {
        None => Some("must be a whole number of seconds"),
        Some(seconds) if seconds < LIFE_MIN_SECONDS => {
            Some("may not specify a duration less than 10 minutes")
        }
        Some(seconds) if seconds > LIFE_MAX_SECONDS => {
            Some("may not specify a duration larger than 2^32 seconds")
        }
        Some(_) => None,
    };
    if let Some(what) = wrong {
        let cause = FieldError::invalid("spec.expirationSeconds", wanted.unwrap_or(&Value::Null), what);
        return Err(ApiError::invalid(request.kind(), name(&account), &[cause]));
    }
    let seconds = seconds.unwrap_or(LIFE_MIN_SECONDS);
    let reference = &body["spec"]["boundObjectRef"];
    let pod = if reference.is_object() {
        Some(bound_pod(&**api.store(), request, reference, name(&account)).await?)
    } else {
        None
    };
    let wanted = TokenRequest {
        namespace: request.attributes.namespace.clone(),
        service_account: name(&account).to_owned(),
        service_account_uid: text(&account, "/metadata/uid").to_owned(),
        audiences: strings(&body, "/spec/audiences"),
        expiration_seconds: seconds,
        pod,
    };
    let (token, audiences, ends) = access.mint_token(&wanted).map_err(|error| ApiError::internal(&error))?;
    let spec = as_fields(entry(&mut body, "spec"));
    spec.insert("audiences".to_owned(), json!(audiences));
    spec.insert("expirationSeconds".to_owned(), json!(seconds));
    let ends = Timestamp::from_second(ends.as_second()).unwrap_or_default().to_string();
    let fields = as_fields(&mut body);
    fields.insert("status".to_owned(), json!({ "token": token, "expirationTimestamp": ends }));
    fields.insert("kind".to_owned(), json!("TokenRequest"));
    fields.insert("apiVersion".to_owned(), json!("authentication.k8s.io/v1"));
    Ok(Answer::created(body))
}

/// Name and uid of the pod that a token is bound to: one of the account.
async fn bound_pod(
    store: &impl ReadStore,
    request: &ApiRequest<'_>,
    reference: &Value,
    account: &str,
) -> Result<(String, String), ApiError> {
    if text(reference, "/kind") != "Pod" {
        return Err(ApiError::bad_request("cannot bind token to an object that is no Pod"));
    }
    let (pod_name, uid) = (text(reference, "/name"), text(reference, "/uid"));
    let key = ObjectKey::new(resource::PODS, &*request.attributes.namespace, pod_name);
    let item = store.get(&key).await?;
    let item = item.ok_or_else(|| ApiError::not_found(&kind::PODS, pod_name))?;
    let pod: Value = serde_json::from_slice(&item.json).unwrap_or_default();
    if text(&pod, "/spec/serviceAccountName") != account {
        return Err(ApiError::bad_request(format!(
            "cannot bind token for serviceaccount \"{account}\" to pod running with different serviceaccount name."
        )));
    }
    let own_uid = text(&pod, "/metadata/uid");
    if !uid.is_empty() && uid != own_uid {
        let what = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            uid.escape_debug()
        );
        return Err(ApiError::conflict(&kind::PODS, pod_name, &what));
    }
    Ok((pod_name.to_owned(), own_uid.to_owned()))
}
