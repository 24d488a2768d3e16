//! Verbs of KubeEdge's keadm that this one does not have.

/// Each verb, and what does its work here.
const ABSENT: [(&str, &str); 5] = [
    ("deprecated", "there are no older ways to install"),
    ("check", "`keadm debug check` looks for what stops this machine from being a node"),
    ("diagnose", "`keadm debug diagnose node` and `keadm debug diagnose pod NAME` say why one is not well"),
    ("collect", "`keadm debug collect` packs what somebody else needs to find a fault"),
    ("get", "`keadm debug get pods` lists what this node holds"),
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
         and `unhold-upgrade`. What this node holds besides lists `keadm debug get`; for anything else of a pod or a device use kubectl"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_of_kubeedge_is_named_with_what_does_its_work() {
        for verb in ["check", "diagnose", "collect", "get"] {
            assert!(absent(verb).contains(&format!("`keadm debug {verb}")), "{verb}");
        }
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
