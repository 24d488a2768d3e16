//! What is right for what a node says of itself when its Node is made: labels and taints. What CloudCore would leave out is refused
//! here, by name, where somebody can still mend it.

use apimachinery::names::{is_label_value, is_qualified_name};
use apimachinery::node_label::{EDGE_ROLES, LABELS_MAX, TAINTS_MAX, check_node_label};

use crate::edge::Edged;
use crate::error::Defect;

const LABELS: &str = "modules.edged.nodeLabels";
const TAINTS: &str = "modules.edged.tailoredKubeletConfig.registerWithTaints";
const VALUE: &str =
    "at most 63 letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit";
/// CloudCore gives each node its name, and the roles of KubeEdge's.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// What is wrong there.
pub(crate) fn defects(edged: &Edged, defects: &mut Vec<Defect>) {
    let labels = &edged.node_labels;
    if labels.len() > LABELS_MAX {
        defects.push(Defect::new(
            LABELS,
            format!("has {} labels; at most {LABELS_MAX} are taken", labels.len()),
        ));
    }
    for (key, value) in
        labels.iter().filter(|(key, value)| !(EDGE_ROLES.contains(&key.as_str()) && value.is_empty()))
    {
        let what = match check_node_label(key) {
            Err(why) => format!("has `{}`, which {why}", key.escape_debug()),
            Ok(()) if !is_label_value(value) => {
                format!("has `{key}` with the value `{}`, not {VALUE}", value.escape_debug())
            }
            Ok(()) if key == HOSTNAME && *value != edged.hostname_override => {
                format!("has `{HOSTNAME}`, which is the node's name: set modules.edged.hostnameOverride")
            }
            Ok(()) => continue,
        };
        defects.push(Defect::new(LABELS, what));
    }
    let taints = &edged.tailored_kubelet_config.register_with_taints;
    if taints.len() > TAINTS_MAX {
        defects.push(Defect::new(
            TAINTS,
            format!("has {} taints; at most {TAINTS_MAX} are taken", taints.len()),
        ));
    }
    for taint in taints {
        if !is_qualified_name(&taint.key) {
            let what =
                format!("has the key `{}`, not [prefix/]name, a name of {VALUE}", taint.key.escape_debug());
            defects.push(Defect::new(TAINTS, what));
        }
        if !is_label_value(&taint.value) {
            let what = format!(
                "has `{}` with the value `{}`, not {VALUE}",
                taint.key.escape_debug(),
                taint.value.escape_debug()
            );
            defects.push(Defect::new(TAINTS, what));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::{Taint, TaintEffect};

    fn wrong(labels: &[(&str, &str)], taints: &[(&str, &str)]) -> Vec<String> {
        let taint = |(key, value): &(&str, &str)| Taint {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
            effect: TaintEffect::NoSchedule,
        };
        let mut edged = Edged {
            hostname_override: "edge-1".to_owned(),
            node_labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ..Edged::default()
        };
        edged.tailored_kubelet_config.register_with_taints = taints.iter().map(taint).collect();
        let mut found = Vec::new();
        defects(&edged, &mut found);
        found.into_iter().map(|defect| format!("{} {}", defect.key, defect.what)).collect()
    }

    #[test]
    fn labels_and_taints_that_cloudcore_would_leave_out_are_refused_by_name() {
        let labels = [
            ("hall", "7"),
            ("topology.kubernetes.io/zone", "a"),
            ("node-role.kubernetes.io/edge", ""),
            ("kubernetes.io/hostname", "edge-1"),
        ];
        assert_eq!(wrong(&labels, &[("dedicated", "press"), ("example.com/x", "")]), Vec::<String>::new());
        for (key, value, words) in [
            ("kubernetes.io/rack", "1", "has `kubernetes.io/rack`, which is Kubernetes' own"),
            ("node-role.kubernetes.io/control-plane", "", "is Kubernetes' own"),
            ("node-role.kubernetes.io/edge", "x", "is Kubernetes' own"),
            ("kubehive.io/own", "", "an administrator's"),
            ("bad label", "x", "has `bad label`, which is no label's key"),
            ("hall", "a b", "has `hall` with the value `a b`"),
            ("kubernetes.io/hostname", "other", "hostnameOverride"),
        ] {
            let found = wrong(&[(key, value)], &[]);
            assert!(
                found.len() == 1 && found[0].starts_with(LABELS) && found[0].contains(words),
                "{found:?}"
            );
        }
        assert!(
            wrong(&[], &[("dedi cated", "")])[0].starts_with(&format!("{TAINTS} has the key `dedi cated`"))
        );
        assert!(wrong(&[], &[("a", "b c")])[0].contains("has `a` with the value `b c`"));
        let many: Vec<String> = (0..65).map(|number| format!("l{number}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|key| (key.as_str(), "")).collect();
        assert_eq!(wrong(&many, &many[..33]).len(), 2);
    }
}
