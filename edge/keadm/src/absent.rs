//! Verbs of KubeEdge's keadm that this one does not have.

/// Each verb, and what does its work here.
const ABSENT: [(&str, &str); 4] = [
    ("deprecated", "there are no older ways to install"),
    (
        "check",
        "`keadm join` looks at the files that it writes and at CloudCore's ports before it changes anything; what edgecore misses on this machine \
         (runtime, CNI, cgroups) stands in its log (`journalctl -u edgecore`) and in the Node's condition Ready (`kubectl describe node`)",
    ),
    (
        "diagnose",
        "`keadm store` and `keadm sync` look into a node, and `systemctl kill -s USR1 edgecore` writes its state into its log (`journalctl -u edgecore`)",
    ),
    ("debug", "`keadm store` looks into the node's store, and `keadm sync` compares a node with the cloud"),
];

/// Why there is no such verb, and what to do instead.
pub fn absent(verb: &str) -> String {
    match ABSENT.iter().find(|(name, _)| *name == verb) {
        Some((_, instead)) => format!("there is no `keadm {verb}` here: {instead}"),
        None => format!("there is no `keadm {verb}`; `keadm help` lists the verbs"),
    }
}

/// Why `keadm ctl` has no such verb, and what to do instead.
pub fn absent_of_ctl(verb: &str) -> String {
    let verb = verb.escape_debug();
    format!(
        "there is no `keadm ctl {verb}` here. `keadm ctl` has `get`, `describe`, `logs`, `exec`, `restart`, `edit`, `call device`, `confirm`, `page` \
         and `unhold-upgrade`. For anything else of a pod or a device use kubectl"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_of_kubeedge_is_named_with_what_does_its_work() {
        assert!(
            absent("check").contains("journalctl -u edgecore")
                && absent("check").contains("`keadm join` looks at")
        );
        assert_eq!(absent("jion"), "there is no `keadm jion`; `keadm help` lists the verbs");
    }

    #[test]
    fn a_verb_of_ctl_is_named() {
        let told = absent_of_ctl("attach");
        assert!(
            told.starts_with("there is no `keadm ctl attach` here. ") && told.contains("use kubectl"),
            "{told}"
        );
    }
}
