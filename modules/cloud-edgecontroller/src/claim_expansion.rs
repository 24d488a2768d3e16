//! Claims whose volumes are made larger on nodes: their status, as a kubelet writes it
//! (`pkg/volume/util/resize_util.go`). A node says how far it is; which size it may be is the claim's own word.

use apimachinery::{PodReferences, Quantity};
use contract::NodeName;
use contract::parsed::{ClaimId, Expansion};
use fairshare::ReportSender;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Api, Patch, PatchParams};
use kubewatch::status_code;
use serde_json::{Value, json};

use crate::error::NodeReportError;
use crate::last_status;
use crate::status::{NodeReportWriter, Outcome, WRITE_TRIES};

/// Those of a claim's conditions that are about its size.
const OF_SIZE: [&str; 4] =
    ["Resizing", "FileSystemResizePending", "ControllerResizeError", "NodeResizeError"];
const PENDING: &str = "NodeResizePending";
const IN_PROGRESS: &str = "NodeResizeInProgress";

impl NodeReportWriter {
    /// Writes how far a claim's volume is.
    pub(crate) async fn claim_expansion(
        &self,
        from: &ReportSender,
        id: &ClaimId,
        size: &str,
        said: &Expansion,
    ) -> Result<Outcome, NodeReportError> {
        if !self.has_claim(&from.node, id) {
            return Ok(Outcome::Refused("the size of a claim that no pod of the node has"));
        }
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), id.namespace.as_str());
        for _ in 0..WRITE_TRIES {
            let Some(claim) = claims.get_opt(id.name.as_str()).await? else { return Ok(Outcome::Done) };
            if claim.metadata.uid.as_deref() != Some(id.uid.as_str()) {
                return Ok(Outcome::Done);
            }
            let patch = match patch_of(&json!(claim), size, said, &last_status::now(&self.env)) {
                Ok(Some(patch)) => patch,
                Ok(None) => return Ok(Outcome::Done),
                Err(why) => return Ok(Outcome::Refused(why)),
            };
            match claims.patch_status(id.name.as_str(), &PatchParams::default(), &Patch::Merge(&patch)).await
            {
                Ok(_) => return Ok(Outcome::Done),
                Err(error) if status_code(&error) == Some(409) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(NodeReportError::Contended)
    }

    /// Whether a pod that is bound to the node has the claim.
    fn has_claim(&self, node: &NodeName, id: &ClaimId) -> bool {
        let pods = self.pods.borrow();
        pods.objects.iter().any(|(key, pod)| {
            key.namespace == id.namespace.as_str()
                && pod.value().pointer("/spec/nodeName").and_then(Value::as_str) == Some(node.as_str())
                && PodReferences::of_pod(&key.name, &pod.value()["spec"]).claims.contains(id.name.as_str())
        })
    }
}

/// What is written of a claim; `None`: nothing that is not there already.
fn patch_of(claim: &Value, size: &str, said: &Expansion, now: &str) -> Result<Option<Value>, &'static str> {
    let status = &claim["status"];
    let asked = status.pointer("/allocatedResources/storage");
    let asked = asked.or_else(|| claim.pointer("/spec/resources/requests/storage"));
    let amount = |text: Option<&Value>| text?.as_str()?.parse::<Quantity>().ok();
    let state = status.pointer("/allocatedResourceStatuses/storage").and_then(Value::as_str);
    let is_open = matches!(state, None | Some(PENDING | IN_PROGRESS));
    let mut patch =
        json!({"metadata": {"resourceVersion": claim["metadata"]["resourceVersion"]}, "status": {}});
    match said {
        Expansion::InProgress if state == Some(PENDING) => {
            patch["status"]["allocatedResourceStatuses"] = json!({"storage": IN_PROGRESS});
        }
        Expansion::InProgress => return Ok(None),
        Expansion::Finished => {
            let reached = size.parse::<Quantity>().ok();
            if reached.is_none() || reached != amount(asked) {
                return Err("a size of a claim that nobody asked for");
            }
            let has_it = amount(status.pointer("/capacity/storage")) == reached;
            if has_it && state.is_none() {
                return Ok(None);
            }
            patch["status"]["capacity"] = json!({"storage": asked});
            patch["status"]["allocatedResourceStatuses"] = json!({"storage": null});
            patch["status"]["conditions"] = conditions(status, |_| false);
        }
        Expansion::Infeasible(why) | Expansion::Failed(why) => {
            if !is_open {
                return Ok(None);
            }
            if matches!(said, Expansion::Infeasible(_)) {
                patch["status"]["allocatedResourceStatuses"] = json!({"storage": "NodeResizeInfeasible"});
            }
            let mut all = conditions(status, |kind| kind != "NodeResizeError");
            if let Some(all) = all.as_array_mut() {
                all.push(json!({"type": "NodeResizeError", "status": "True", "lastTransitionTime": now,
                    "message": format!("failed to expand pvc with {why}")}));
            }
            patch["status"]["conditions"] = all;
        }
    }
    Ok(Some(patch))
}

/// The conditions but those of the size that do not stay.
fn conditions(status: &Value, stays: impl Fn(&str) -> bool) -> Value {
    let all = status["conditions"].as_array().cloned().unwrap_or_default();
    let kept = all.into_iter().filter(|one| {
        let kind = one["type"].as_str().unwrap_or_default();
        !OF_SIZE.contains(&kind) || stays(kind)
    });
    Value::Array(kept.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(state: Value) -> Value {
        json!({
            "metadata": {"resourceVersion": "7"},
            "spec": {"resources": {"requests": {"storage": "3Gi"}}},
            "status": {"capacity": {"storage": "1Gi"}, "allocatedResources": {"storage": "2Gi"},
                "allocatedResourceStatuses": state,
                "conditions": [{"type": "FileSystemResizePending", "status": "True"}, {"type": "Other", "status": "True"}]},
        })
    }

    fn pending() -> Value {
        claim(json!({"storage": PENDING}))
    }

    #[test]
    fn what_has_become_larger_is_told_once_and_waits_for_nothing_more() {
        let begun = patch_of(&pending(), "2Gi", &Expansion::InProgress, "t").unwrap().unwrap();
        assert_eq!(begun["status"], json!({"allocatedResourceStatuses": {"storage": IN_PROGRESS}}));
        assert_eq!(begun["metadata"]["resourceVersion"], "7");
        let done = patch_of(&pending(), "2048Mi", &Expansion::Finished, "t").unwrap().unwrap();
        assert_eq!(
            done["status"],
            json!({"capacity": {"storage": "2Gi"}, "allocatedResourceStatuses": {"storage": null},
                "conditions": [{"type": "Other", "status": "True"}]})
        );
        let mut whole = claim(json!({}));
        whole["status"]["capacity"]["storage"] = json!("2Gi");
        assert_eq!(patch_of(&whole, "2Gi", &Expansion::Finished, "t"), Ok(None));
        assert_eq!(patch_of(&whole, "2Gi", &Expansion::InProgress, "t"), Ok(None));
    }

    #[test]
    fn a_node_gives_no_claim_a_size_that_nobody_asked_for() {
        for size in ["3Gi", "1Ti", "", "x"] {
            assert!(patch_of(&pending(), size, &Expansion::Finished, "t").is_err(), "{size}");
        }
        // An older resizer says nothing of what it gives.
        let mut older = claim(json!({}));
        older["status"].as_object_mut().unwrap().remove("allocatedResources");
        assert!(patch_of(&older, "3Gi", &Expansion::Finished, "t").unwrap().is_some());
    }

    #[test]
    fn what_can_never_be_is_told_with_the_drivers_words() {
        let said = Expansion::Infeasible("rpc error: code = OutOfRange".to_owned());
        let told = patch_of(&pending(), "2Gi", &said, "t").unwrap().unwrap();
        assert_eq!(told["status"]["allocatedResourceStatuses"], json!({"storage": "NodeResizeInfeasible"}));
        let all = told["status"]["conditions"].as_array().unwrap();
        assert_eq!(all.len(), 3, "the controller's own stay");
        assert_eq!(all[2]["message"], "failed to expand pvc with rpc error: code = OutOfRange");
        let failed = patch_of(&pending(), "2Gi", &Expansion::Failed("x".into()), "t").unwrap().unwrap();
        assert!(failed["status"].get("allocatedResourceStatuses").is_none());
        let gone = claim(json!({"storage": "NodeResizeInfeasible"}));
        assert_eq!(patch_of(&gone, "2Gi", &said, "t"), Ok(None));
    }
}
