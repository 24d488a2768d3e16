//! Verbs of KubeEdge's keadm that this one does not have.

/// Each verb, and what does its work here.
const ABSENT: [(&str, &str); 11] = [
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
        "there is no `keadm ctl {verb}` here, `keadm ctl call device` and `keadm ctl unhold-upgrade` alone: use kubectl; `keadm store` shows what this node holds without the cloud"
    )
}

/// Why `keadm reset` takes no such word.
///
/// # Errors
/// The words, for all but `edge`.
pub fn reset_of(side: &str) -> Result<(), String> {
    match side {
        "edge" => Ok(()),
        "cloud" => Err(
            "there is no `keadm reset cloud` here: delete what was applied of cloud/deploy with kubectl, or end `cloudcore --standalone`"
                .to_owned(),
        ),
        other => Err(format!(
            "`keadm reset {}`: it is `keadm reset`, or `keadm reset edge` as with KubeEdge",
            other.escape_debug()
        )),
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

    #[test]
    fn a_verb_of_ctl_is_named_and_a_reset_is_of_this_machine() {
        let told = absent_of_ctl("get");
        assert!(
            told.starts_with("there is no `keadm ctl get` here, ") && told.contains("use kubectl"),
            "{told}"
        );
        assert_eq!(reset_of("edge"), Ok(()));
        assert!(reset_of("cloud").unwrap_err().contains("cloud/deploy"));
        assert!(reset_of("egde").unwrap_err().contains("`keadm reset egde`"));
    }
}
