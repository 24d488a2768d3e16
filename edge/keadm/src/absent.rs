//! Verbs of KubeEdge's keadm that this one does not have.

/// Each verb, and what does its work here.
const ABSENT: [(&str, &str); 6] = [
    ("deprecated", "there are no older ways to install"),
    ("check", "`keadm debug check` looks for what stops this machine from being a node"),
    ("diagnose", "`keadm debug diagnose node` and `keadm debug diagnose pod NAME` say why one is not well"),
    ("collect", "`keadm debug collect` packs what somebody else needs to find a fault"),
    ("get", "`keadm debug get pods` lists what this node holds"),
    (
        "batch",
        "run `keadm join` on each machine; one token is good for as many as `keadm gettoken --uses` says",
    ),
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
        "there is no `keadm ctl {verb}` here. `keadm ctl` has `call device`, `confirm`, `page` and `unhold-upgrade`. For pods and devices use \
         kubectl; what this node holds while the cloud is away show `keadm debug get` and `keadm ctl page`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_of_kubeedge_is_named_with_what_does_its_work() {
        assert!(absent("batch").contains("--uses"));
        for verb in ["check", "diagnose", "collect", "get"] {
            assert!(absent(verb).contains(&format!("`keadm debug {verb}")), "{verb}");
        }
        assert_eq!(absent("jion"), "there is no `keadm jion`; `keadm help` lists the verbs");
    }

    #[test]
    fn a_verb_of_ctl_is_named() {
        let told = absent_of_ctl("get");
        assert!(
            told.starts_with("there is no `keadm ctl get` here. ") && told.contains("use kubectl"),
            "{told}"
        );
    }
}
