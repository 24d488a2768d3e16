//! Verbs of KubeEdge's keadm that this one does not have.

/// Each verb, and what does its work here.
const ABSENT: [(&str, &str); 12] = [
    ("init", "apply the manifests in cloud/deploy with kubectl, or run `cloudcore --standalone`"),
    ("deprecated", "there are no older ways to install"),
    ("manifest", "the manifests of CloudCore are in cloud/deploy"),
    (
        "check",
        "nothing is checked before joining; edgecore names in its log what it misses on this machine (`journalctl -u edgecore`)",
    ),
    (
        "diagnose",
        "`keadm store` and `keadm sync` look into a node, and `systemctl kill -s USR1 edgecore` writes its state into its log",
    ),
    ("debug", "`keadm store` looks into the node's store, and `keadm sync` compares a node with the cloud"),
    (
        "config",
        "`edgecore --defaultconfig` and `cloudcore --defaultconfig` print the annotated settings; nothing is pulled",
    ),
    (
        "batch",
        "run `keadm join` on each machine; one token is good for as many as `keadm gettoken --uses` says",
    ),
    ("upgrade", "exchange the program and restart its unit: the store is kept"),
    ("rollback", "put the earlier program back and restart its unit: it reads the store of the next release"),
    ("backup", "the cluster holds what a node should do: nothing on the node has to be saved"),
    (
        "ctl",
        "use kubectl; `keadm store` shows what this node holds without the cloud, and `keadm ctl unhold-upgrade` is here",
    ),
];

/// Why there is no such verb, and what to do instead.
pub fn absent(verb: &str) -> String {
    match ABSENT.iter().find(|(name, _)| *name == verb) {
        Some((_, instead)) => format!("there is no `keadm {verb}` here: {instead}"),
        None => format!("there is no `keadm {verb}`; `keadm help` lists the verbs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_of_kubeedge_is_named_with_what_does_its_work() {
        assert!(absent("init").contains("cloudcore --standalone"));
        assert!(absent("check").contains("journalctl -u edgecore"));
        assert_eq!(absent("jion"), "there is no `keadm jion`; `keadm help` lists the verbs");
    }
}
