//! Questions about users: TokenReview, SelfSubjectReview, (Self)SubjectAccessReview, SelfSubjectRulesReview. They are answered and not stored.

use kubeapi::unstructured::{strings, text};
use kubeapi::{ApiError, Attributes, ExtraResource, User};
use serde_json::{Value, json};

use crate::access::AccessControl;

/// The status of a review that `user` asks for.
pub(crate) async fn status(
    access: &dyn AccessControl,
    resource: &ExtraResource,
    review: &Value,
    user: &User,
) -> Result<Value, ApiError> {
    let spec = &review["spec"];
    let who = match resource.name {
        "tokenreviews" => {
            let audiences = strings(spec, "/audiences");
            return Ok(match access.review_token(text(spec, "/token"), &audiences).await {
                Some((user, audiences)) => {
                    json!({ "authenticated": true, "audiences": audiences, "user": user_info(&user) })
                }
                None => json!({ "authenticated": false, "error": "the token is not known" }),
            });
        }
        // Whoever is impersonated, as with Kubernetes.
        "selfsubjectreviews" => return Ok(json!({ "userInfo": user_info(user) })),
        "selfsubjectaccessreviews" => user.clone(),
        "selfsubjectrulesreviews" => {
            let namespace = text(spec, "/namespace");
            if namespace.is_empty() {
                return Err(ApiError::bad_request("no namespace on request"));
            }
            return Ok(rules(&access.rules_for(user, namespace).await));
        }
        "subjectaccessreviews" => User {
            name: text(spec, "/user").to_owned(),
            groups: strings(spec, "/groups"),
            uid: String::new(),
        },
        _ => return Err(ApiError::no_such_path()),
    };
    Ok(json!({ "allowed": access.authorize(&who, &attributes(spec)).await }))
}

fn user_info(user: &User) -> Value {
    json!({ "username": user.name, "groups": user.groups, "uid": user.uid })
}

/// RBAC's rules in the form of a review: those of resources, and those of paths.
fn rules(all: &[Value]) -> Value {
    let are = |field: &'static str| all.iter().filter(move |rule| !strings(rule, field).is_empty());
    let resources = are("/resources").map(|rule| {
        json!({ "verbs": strings(rule, "/verbs"), "apiGroups": strings(rule, "/apiGroups"),
            "resources": strings(rule, "/resources"), "resourceNames": strings(rule, "/resourceNames") })
    });
    let paths = are("/nonResourceURLs").map(|rule| {
        json!({ "verbs": strings(rule, "/verbs"), "nonResourceURLs": strings(rule, "/nonResourceURLs") })
    });
    json!({ "resourceRules": resources.collect::<Vec<_>>(), "nonResourceRules": paths.collect::<Vec<_>>(),
        "incomplete": false })
}

fn attributes(spec: &Value) -> Attributes {
    let own = |pointer: &str| text(spec, pointer).to_owned();
    if spec.get("nonResourceAttributes").is_some_and(Value::is_object) {
        return Attributes {
            verb: own("/nonResourceAttributes/verb"),
            path: own("/nonResourceAttributes/path"),
            ..Attributes::default()
        };
    }
    Attributes {
        verb: own("/resourceAttributes/verb"),
        group: own("/resourceAttributes/group"),
        version: own("/resourceAttributes/version"),
        resource: own("/resourceAttributes/resource"),
        subresource: own("/resourceAttributes/subresource"),
        namespace: own("/resourceAttributes/namespace"),
        name: own("/resourceAttributes/name"),
        path: String::new(),
    }
}
