//! Why a pod does not begin again although somebody on the node asks for it (`keadm ctl restart pod`). Pure.

use crate::pod::parsed_pod::ParsedPod;
use crate::pod::plan::Intent;
use crate::pod::restart_policy::begins_always;

/// Why a pod cannot begin again, for who asks.
///
/// # Errors
/// That.
pub(crate) fn check(pod: &ParsedPod, intent: &Intent) -> Result<(), String> {
    match intent {
        Intent::Run if pod.is_terminating() => return Err("it is being deleted".to_owned()),
        Intent::Run => {}
        Intent::Terminate => return Err("it is being deleted".to_owned()),
        Intent::Fail { reason, .. } => return Err(format!("it has failed ({reason})")),
        Intent::Hold { reason, .. } => return Err(format!("it is held ({reason})")),
    }
    let mut main = pod.spec().containers.iter();
    match main.find(|container| !begins_always(pod, container)) {
        Some(container) => Err(format!(
            "its policy would not begin container {} again (restartPolicy is not Always): delete the pod, if another is to be made",
            container.name
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::parsed_pod::tests::pod;

    #[test]
    fn a_pod_that_would_not_begin_again_is_refused_with_the_container() {
        let check = |spec: Value, intent: &Intent| check(&pod(spec), intent).unwrap_err();
        let once =
            |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "c", "image": "x"}]});
        for policy in ["Never", "OnFailure"] {
            let said = check(once(policy), &Intent::Run);
            assert!(said.contains("would not begin container c again"), "{said}");
        }
        let failed = Intent::Fail { reason: "Evicted".to_owned(), message: String::new() };
        assert_eq!(check(once("Always"), &failed), "it has failed (Evicted)");
        assert_eq!(check(once("Always"), &Intent::Terminate), "it is being deleted");
        assert_eq!(super::check(&pod(once("Always")), &Intent::Run), Ok(()));
        let own = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "x", "restartPolicy": "Always"}]});
        assert_eq!(super::check(&pod(own), &Intent::Run), Ok(()));
    }
}
