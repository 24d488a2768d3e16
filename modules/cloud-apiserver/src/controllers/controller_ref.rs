//! Taking objects under a controller, and letting them go.

use apimachinery::{Kind, NamespacedName};
use serde_json::{Value, json};

use super::ControllerContext;
use super::object::{list, text, uid, version};

fn patch(object: &Value, owners: Vec<Value>) -> Value {
    json!({ "metadata": { "uid": uid(object), "resourceVersion": version(object), "ownerReferences": owners } })
}

/// Makes `reference` the object's controller.
pub(super) async fn adopt(
    context: &ControllerContext,
    kind: &Kind,
    object: &Value,
    reference: &Value,
) -> Result<(), kube::Error> {
    let mut owners = list(object, "/metadata/ownerReferences").to_vec();
    owners.retain(|owner| owner["uid"] != reference["uid"]);
    owners.push(reference.clone());
    context.client.patch(kind, &NamespacedName::of(object), &patch(object, owners)).await
}

/// Takes the owner away from the object.
pub(super) async fn release(
    context: &ControllerContext,
    kind: &Kind,
    object: &Value,
    owner: &str,
) -> Result<(), kube::Error> {
    let mut owners = list(object, "/metadata/ownerReferences").to_vec();
    owners.retain(|known| text(known, "/uid") != owner);
    context.client.patch(kind, &NamespacedName::of(object), &patch(object, owners)).await
}
