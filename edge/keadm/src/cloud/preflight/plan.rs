//! What each check finds, from what the cluster says.

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use nodechecks::Finding;
use serde_json::Value;

use super::nodes::NO_PODS;
use crate::cloud::chart_args::NO_ADDRESS;
use crate::cloud::found::{FoundCloudCore, KUBEEDGES_SECRETS, Outside};

/// Pod Security's levels, the strictest first.
const LEVELS: [&str; 3] = ["restricted", "baseline", "privileged"];
const LEVEL_LABEL: &str = "pod-security.kubernetes.io/enforce";
/// Of the oldest Kubernetes that the chart is for; Chart.yaml says the same.
const OLDEST: [u64; 2] = [1, 30];

/// Whether the version is one that the chart is for; `has_policies`: whether anything bounds CloudCore's account there.
pub(crate) fn api_server_version(version: &str, is_stand_alone: bool, has_policies: bool) -> Finding {
    const CHECK: &str = "ApiServerVersion";
    let digits = version.trim_start_matches('v');
    let mut parts = digits.split(['.', '-', '+']).map(str::parse::<u64>);
    let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) else {
        return Finding::failed(CHECK, format!("`{}` is no version of Kubernetes", version.escape_debug()));
    };
    if is_stand_alone {
        return Finding::failed(
            CHECK,
            "this is `cloudcore --standalone`, which has CloudCore within: nothing is to be installed, go on with `keadm gettoken`",
        );
    }
    if [major, minor] < OLDEST {
        return Finding::failed(
            CHECK,
            format!("{version} is older than v{}.{}: upgrade the cluster first", OLDEST[0], OLDEST[1]),
        );
    }
    if !has_policies {
        return Finding::warned(
            CHECK,
            format!(
                "{version} without the admission policies: whoever has CloudCore's token may do all that its ClusterRoles say"
            ),
        );
    }
    Finding::passed(CHECK, version)
}

/// What the user lacks.
pub(crate) fn rights(denied: &[String]) -> Finding {
    const CHECK: &str = "Rights";
    if denied.is_empty() {
        return Finding::passed(CHECK, "this user may install");
    }
    Finding::failed(
        CHECK,
        format!(
            "this user may not {}: use the kubeconfig of an administrator of the cluster",
            denied.join(", ")
        ),
    )
}

/// Definitions of KubeEdge's that hold objects in a version which is not read any more.
/// `is_beside`: KubeEdge's CloudCore runs, and its definitions stay as they are.
pub(crate) fn definitions(found: &[CustomResourceDefinition], is_beside: bool) -> Finding {
    const CHECK: &str = "Definitions";
    let is_old = |definition: &&CustomResourceDefinition| {
        let stored = definition.status.as_ref().and_then(|status| status.stored_versions.as_ref());
        let wanted = crd::manifests().into_iter().find(|ours| ours.metadata.name == definition.metadata.name);
        let Some(wanted) = wanted else { return false };
        let ours: Vec<&str> =
            wanted.spec.versions.iter().filter(|one| one.storage).map(|one| &*one.name).collect();
        stored.is_some_and(|stored| stored.iter().any(|version| !ours.contains(&version.as_str())))
    };
    let old: Vec<&str> = found.iter().filter(is_old).filter_map(|one| one.metadata.name.as_deref()).collect();
    if old.is_empty() && is_beside {
        return beside(found);
    }
    if old.is_empty() {
        return Finding::passed(CHECK, format!("{} of ours are there", found.len()));
    }
    Finding::failed(
        CHECK,
        format!(
            "{} {} objects of an older version (status.storedVersions): save them (`kubectl get {} -A -o yaml`), write them as v1beta1, `kubectl delete crd {}`, then init and apply them",
            old.join(", "),
            if old.len() == 1 { "holds" } else { "hold" },
            old.join(","),
            old.join(" ")
        ),
    )
}

/// Whether CloudCore can work by KubeEdge's definitions.
fn beside(found: &[CustomResourceDefinition]) -> Finding {
    const CHECK: &str = "Definitions";
    let theirs = found.iter().filter(|definition| crd::is_kubeedges(definition));
    let (mut stay, mut faults) = (0, Vec::new());
    for theirs in theirs {
        let ours = crd::manifests().into_iter().find(|ours| ours.metadata.name == theirs.metadata.name);
        let Some(ours) = ours else { continue };
        match crd::stands_in(theirs, &ours) {
            Ok(()) => stay += 1,
            Err(why) => faults.push(format!("{} {why}", theirs.metadata.name.as_deref().unwrap_or_default())),
        }
    }
    if faults.is_empty() {
        return Finding::passed(
            CHECK,
            format!("{stay} of KubeEdge's stay as they are, while its CloudCore runs"),
        );
    }
    Finding::failed(
        CHECK,
        format!("{}: bring KubeEdge to 1.22 or 1.23 first, with its definitions", faults.join(", ")),
    )
}

/// Whether there is a CloudCore already, and where. `secrets` are those of [`KUBEEDGES_SECRETS`] that the namespace has, `outside` is KubeEdge's
/// that has no Deployment; `is_forced`: one of ours is to take its own place.
pub(crate) fn installed(
    found: &[FoundCloudCore],
    (secrets, outside): (&[&str], Option<&Outside>),
    namespace: &str,
    is_forced: bool,
) -> Finding {
    const CHECK: &str = "Installed";
    let named = |one: &FoundCloudCore| format!("{}/{} ({})", one.namespace, one.name, one.image);
    if let Some(other) = found.iter().find(|one| one.is_ours && one.namespace != namespace) {
        return Finding::failed(
            CHECK,
            format!(
                "CloudCore is in the namespace {of} ({image}), and a cluster has one: `--namespace={of} --force` installs over it, `keadm reset cloud` takes it away",
                of = other.namespace,
                image = other.image
            ),
        );
    }
    let theirs: Vec<&FoundCloudCore> = found.iter().filter(|one| !one.is_ours).collect();
    if let Some(kubeedges) = theirs.iter().find(|one| one.namespace == namespace) {
        return Finding::failed(
            CHECK,
            format!(
                "the Deployment {} is not of this chart, but KubeEdge's: `--namespace=kubehive` installs CloudCore beside it, and nodes move over one by one (edge/keadm/FROM-KUBEEDGE.md)",
                named(kubeedges)
            ),
        );
    }
    let outside = outside.map(|outside| (outside, outside.signs()));
    if !secrets.is_empty() {
        let whose = match &outside {
            Some((outside, signs)) if outside.has_nodes() && namespace == helmchart::NAMESPACE => {
                format!(
                    "KubeEdge's CloudCore runs outside of the cluster ({signs}), and the namespace {namespace} has its CA"
                )
            }
            _ => format!(
                "the namespace {namespace} has KubeEdge's Secrets ({}), and its CA",
                secrets.join(", ")
            ),
        };
        return Finding::failed(
            CHECK,
            format!(
                "{whose}: `--namespace=kubehive` installs CloudCore beside it, and nodes move over one by one (edge/keadm/FROM-KUBEEDGE.md); where KubeEdge's CloudCore is gone for good (`systemctl disable --now cloudcore` on its machine), `kubectl -n {namespace} delete secret casecret {}`",
                KUBEEDGES_SECRETS.join(" ")
            ),
        );
    }
    let beside = match (theirs.first(), &outside) {
        (Some(kubeedges), _) => format!(", beside KubeEdge's: {}", named(kubeedges)),
        (None, Some((_, signs))) => format!(", beside KubeEdge's outside of the cluster ({signs})"),
        (None, None) => String::new(),
    };
    let is_ended = outside.as_ref().is_some_and(|(outside, _)| outside.secrets.is_empty());
    match found.iter().find(|one| one.is_ours) {
        None if theirs.is_empty() && outside.is_none() => Finding::passed(CHECK, "no CloudCore is there"),
        // Nothing of its is in the way here, and it may have ended a moment ago: its nodes are Ready until their Leases are over.
        None if is_ended => Finding::warned(
            CHECK,
            format!(
                "none of ours is there{beside}, whose Secrets are gone: if it runs on, end it first (`systemctl disable --now cloudcore` on its machine), or its nodes have two"
            ),
        ),
        None => Finding::passed(CHECK, format!("none of ours is there{beside}")),
        Some(ours) if is_forced => Finding::passed(CHECK, format!("{} is replaced{beside}", ours.image)),
        Some(ours) => Finding::failed(
            CHECK,
            format!(
                "CloudCore is there ({}): --force installs over it, with the values that are given now and no others",
                ours.image
            ),
        ),
    }
}

/// Whether the namespace lets the pods in, if it is there and says a level.
pub(crate) fn pod_security(found: Option<&Namespace>, wanted: &Value, replicas: u64) -> Finding {
    const CHECK: &str = "PodSecurity";
    if replicas == 0 {
        return Finding::passed(CHECK, NO_PODS);
    }
    let needed =
        wanted.pointer("/metadata/labels/pod-security.kubernetes.io~1enforce").and_then(Value::as_str);
    let needed = needed.unwrap_or("privileged");
    let level = found.and_then(|found| found.metadata.labels.as_ref()?.get(LEVEL_LABEL));
    let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
    let rank = |level: &str| LEVELS.iter().position(|one| *one == level);
    match level {
        Some(level) if rank(level) < rank(needed) => Finding::failed(
            CHECK,
            format!(
                "the namespace {name} allows {} pods, and these are {needed}: `kubectl label namespace {name} {LEVEL_LABEL}={needed} --overwrite`, or without cloudCore.hostNetWork, hostPorts and hostPath volumes",
                level.escape_debug()
            ),
        ),
        Some(level) => Finding::passed(CHECK, format!("the namespace allows {}", level.escape_debug())),
        None => Finding::passed(CHECK, format!("the namespace will allow {needed}")),
    }
}

/// Whether the pods have ports of their machines.
pub(crate) fn is_on_host(values: &Value) -> bool {
    ["/cloudCore/hostNetWork", "/cloudCore/hostPorts"]
        .iter()
        .any(|pointer| values.pointer(pointer).and_then(Value::as_bool) == Some(true))
}

/// Addresses by which no other machine reaches this one.
pub(crate) fn advertised(values: &Value) -> Finding {
    const CHECK: &str = "AdvertiseAddress";
    let addresses = values.pointer("/cloudCore/modules/cloudHub/advertiseAddress").and_then(Value::as_array);
    let addresses: Vec<&str> = addresses.into_iter().flatten().filter_map(Value::as_str).collect();
    let is_own = |address: &&&str| {
        address
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback() || address.is_unspecified())
    };
    if addresses.is_empty() {
        return Finding::failed(CHECK, NO_ADDRESS);
    }
    match addresses.iter().find(is_own) {
        Some(address) => Finding::warned(
            CHECK,
            format!("{address} leads each machine to itself: nodes elsewhere do not get here by it"),
        ),
        None => Finding::passed(CHECK, addresses.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use nodechecks::Grade;

    use super::*;
    use crate::debug::testing::grade;
    use serde_json::json;

    #[test]
    fn old_servers_and_the_stand_alone_are_no_place_for_the_chart() {
        use Grade::{Failed, Passed, Warned};
        for (version, stand_alone, policies, wanted, word) in [
            ("v1.36.2", false, true, Passed, "v1.36.2"),
            ("v1.30.0-gke.1", false, true, Passed, "gke"),
            ("1.31+", false, false, Warned, "token"),
            ("v1.29.9", false, true, Failed, "older"),
            ("v1.36.0+kubehive.0.1.0", true, false, Failed, "gettoken"),
            ("latest", false, true, Failed, "no version"),
        ] {
            grade(&api_server_version(version, stand_alone, policies), wanted, word);
        }
    }

    #[test]
    fn objects_of_an_older_version_stop_it() {
        let definition = |name: &str, stored: Value| {
            let mut ours =
                crd::manifests().into_iter().find(|one| one.metadata.name.as_deref() == Some(name)).unwrap();
            ours.status = Some(serde_json::from_value(json!({ "storedVersions": stored })).unwrap());
            ours
        };
        let device = "devices.devices.kubeedge.io";
        grade(&definitions(&[], false), Grade::Passed, "0");
        grade(&definitions(&[definition(device, json!(["v1beta1"]))], false), Grade::Passed, "1");
        for stored in [json!(["v1alpha2"]), json!(["v1alpha2", "v1beta1"])] {
            grade(
                &definitions(&[definition(device, stored)], true),
                Grade::Failed,
                &format!("kubectl delete crd {device}"),
            );
        }
    }

    #[test]
    fn a_cloudcore_that_is_there_is_replaced_only_on_purpose_and_kubeedges_never() {
        let of = |namespace: &str, is_ours| FoundCloudCore {
            namespace: namespace.to_owned(),
            name: "cloudcore".to_owned(),
            image: "x:1".to_owned(),
            is_ours,
        };
        let (ours, theirs) = (|namespace| of(namespace, true), of("kubeedge", false));
        let check =
            |found: &[FoundCloudCore], namespace, forced| installed(found, (&[], None), namespace, forced);
        grade(&check(&[], "kubeedge", false), Grade::Passed, "no CloudCore");
        grade(&check(&[ours("kubeedge")], "kubeedge", false), Grade::Failed, "--force");
        grade(&check(&[ours("kubeedge")], "kubeedge", true), Grade::Passed, "x:1 is replaced");
        let both = [theirs.clone(), ours("hive")];
        for forced in [false, true] {
            let found = check(std::slice::from_ref(&theirs), "kubeedge", forced);
            grade(&found, Grade::Failed, "kubeedge/cloudcore (x:1) is not of this chart, but KubeEdge's");
            grade(&found, Grade::Failed, "`--namespace=kubehive` installs CloudCore beside it");
            // Two of ours would have one register of nodes, and two CAs.
            let found = check(&[ours("kubeedge")], "hive", forced);
            grade(&found, Grade::Failed, "`--namespace=kubeedge --force`");
            grade(&check(&both, "kubeedge", forced), Grade::Failed, "is in the namespace hive");
        }
        let beside = "beside KubeEdge's: kubeedge/cloudcore (x:1)";
        grade(&check(std::slice::from_ref(&theirs), "hive", false), Grade::Passed, beside);
        grade(&check(&both, "hive", true), Grade::Passed, beside);
        grade(&check(&both, "hive", false), Grade::Failed, "--force");
        // Its Deployment alone is gone: its CA is none for ours.
        let found = installed(&[], (&["tokensecret"], None), "kubeedge", true);
        grade(&found, Grade::Failed, "KubeEdge's Secrets (tokensecret)");
        grade(
            &found,
            Grade::Failed,
            "kubectl -n kubeedge delete secret casecret cloudcoresecret tokensecret",
        );
    }

    #[test]
    fn a_cloudcore_of_kubeedges_outside_of_the_cluster_is_said_by_name_with_what_to_do() {
        let secrets: &[&str] = &["cloudcoresecret", "tokensecret"];
        let runs = Outside::testing(&KUBEEDGES_SECRETS, &["old-1"], 2);
        let signs = "(Secrets cloudcoresecret, tokensecret; Ready by it: old-1)";
        let over = installed(&[], (secrets, Some(&runs)), "kubeedge", true);
        grade(&over, Grade::Failed, &format!("KubeEdge's CloudCore runs outside of the cluster {signs}"));
        grade(&over, Grade::Failed, "`--namespace=kubehive` installs CloudCore beside it");
        grade(&over, Grade::Failed, "kubectl -n kubeedge delete secret casecret cloudcoresecret tokensecret");
        let beside = installed(&[], (&[], Some(&runs)), "kubehive", false);
        grade(
            &beside,
            Grade::Passed,
            &format!("none of ours is there, beside KubeEdge's outside of the cluster {signs}"),
        );
        // No node is its any more.
        let left = Outside::testing(&KUBEEDGES_SECRETS, &[], 0);
        grade(
            &installed(&[], (secrets, Some(&left)), "kubeedge", true),
            Grade::Failed,
            "KubeEdge's Secrets (cloud",
        );
        // Somebody has deleted its Secrets, as the guide says, and its nodes are Ready still.
        let ended = Outside::testing(&[], &["old-1"], 1);
        grade(&installed(&[], (&[], Some(&ended)), "kubeedge", false), Grade::Warned, "end it first");
    }

    #[test]
    fn beside_kubeedges_cloudcore_its_definitions_have_to_do() {
        let theirs = |name: &str, version: &str| {
            let mut one =
                crd::manifests().into_iter().find(|one| one.metadata.name.as_deref() == Some(name)).unwrap();
            one.metadata.labels = None;
            for found in one.spec.versions.iter_mut().filter(|found| found.storage) {
                found.name = version.to_owned();
            }
            one
        };
        let device = "devices.devices.kubeedge.io";
        let found = [theirs(device, "v1beta1"), theirs("rules.rules.kubeedge.io", "v1")];
        grade(&definitions(&found, true), Grade::Passed, "2 of KubeEdge's stay");
        grade(
            &definitions(&[theirs(device, "v1beta2")], true),
            Grade::Failed,
            "devices.devices.kubeedge.io has no version v1beta1",
        );
        // Without it they are exchanged.
        grade(&definitions(&[theirs(device, "v1beta2")], false), Grade::Passed, "1 of ours");
        // Ours of another release is exchanged, too.
        grade(&definitions(&crd::manifests(), true), Grade::Passed, "0 of KubeEdge's");
    }

    #[test]
    fn a_namespace_that_is_stricter_than_the_pods_is_named() {
        let found = |level: &str| -> Namespace {
            serde_json::from_value(json!({ "metadata": { "labels": { LEVEL_LABEL: level } } })).unwrap()
        };
        let (plain, host) = (
            helmchart::namespace(&json!({}), "hive"),
            helmchart::namespace(&json!({"cloudCore": {"hostPorts": true}}), "hive"),
        );
        grade(&pod_security(None, &host, 2), Grade::Passed, "privileged");
        grade(&pod_security(Some(&found("restricted")), &plain, 2), Grade::Passed, "restricted");
        grade(&pod_security(Some(&found("privileged")), &plain, 2), Grade::Passed, "privileged");
        grade(&pod_security(Some(&found("restricted")), &host, 0), Grade::Passed, "no pod is asked for");
        for level in ["restricted", "baseline"] {
            grade(
                &pod_security(Some(&found(level)), &host, 2),
                Grade::Failed,
                "kubectl label namespace hive pod-security.kubernetes.io/enforce=privileged --overwrite",
            );
        }
    }

    #[test]
    fn an_address_leads_other_machines_here() {
        let of = |addresses: Value| {
            advertised(&json!({"cloudCore": {"modules": {"cloudHub": {"advertiseAddress": addresses}}}}))
        };
        grade(&of(json!([])), Grade::Failed, "--advertise-address is missing");
        grade(&of(json!(["192.0.2.1", "::1"])), Grade::Warned, "::1");
        grade(&of(json!(["192.0.2.1"])), Grade::Passed, "192.0.2.1");
    }
}
