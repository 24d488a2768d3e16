//! Who is an API server, the words of a refusal, and which ports of nodes without a link stay open. Pure. What a path needs stands in [`nodecalls::route`].

use nodecalls::Needs;

use crate::credentials::User;

/// Whether a caller is an API server, which speaks for all its users: by the name in its client certificate, or as one of the group
/// that may do everything. Any other certificate of the cluster's CA is a user's.
pub(crate) fn is_api_server(user: &User, by_certificate: bool, names: &[String]) -> bool {
    by_certificate
        && (names.contains(&user.name) || user.groups.iter().any(|group| group == "system:masters"))
}

/// Whether the port of a node without a link stays open, or is opened again after a restart: while the node's Node says it, so that an API
/// server comes there, and the register has the node. `is_ours`: what the register says, if it is known by now; `is_open`: whether the
/// port is open already, because the node had a link here.
pub(crate) fn keeps(port: u16, said: Option<u16>, is_ours: Option<bool>, is_open: bool) -> bool {
    said == Some(port) && is_ours.unwrap_or(is_open)
}

/// The text of a 403, as a kubelet writes it.
pub(crate) fn forbidden(user: &str, needs: &Needs) -> String {
    let Needs { verb, subresources } = needs;
    let subresources = subresources.join(" ");
    format!("Forbidden (user={user}, verb={verb}, resource=nodes, subresource(s)=[{subresources}])\n")
}

/// The text of a 500 when nobody can say whether the user may, as a kubelet writes it.
pub(crate) fn not_authorized(user: &str, verb: &str, subresource: &str) -> String {
    format!("Authorization error (user={user}, verb={verb}, resource=nodes, subresource={subresource})\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_alone_makes_no_api_server() {
        let names = ["kube-apiserver-kubelet-client".to_owned()];
        let user = |name: &str, group: &str| User {
            name: name.to_owned(),
            groups: vec![group.to_owned()],
            ..User::default()
        };
        assert!(is_api_server(&user("kube-apiserver-kubelet-client", "g"), true, &names));
        assert!(is_api_server(&user("admin", "system:masters"), true, &names));
        assert!(!is_api_server(&user("mallory", "system:nodes"), true, &names));
        // A token may name anybody.
        assert!(!is_api_server(&user("kube-apiserver-kubelet-client", "system:masters"), false, &names));
    }

    #[test]
    fn a_port_stays_while_its_node_is_ours_and_says_it() {
        assert!(
            keeps(12_000, Some(12_000), Some(true), true) && keeps(12_000, Some(12_000), Some(true), false)
        );
        // Another CloudCore has taken the node, or it is deleted; its name is revoked.
        assert!(!keeps(12_000, Some(12_001), Some(true), true) && !keeps(12_000, None, Some(true), true));
        assert!(!keeps(12_000, Some(12_000), Some(false), true));
        // The register is not known yet: what had a link a moment ago was in it.
        assert!(keeps(12_000, Some(12_000), None, true) && !keeps(12_000, Some(12_000), None, false));
    }

    #[test]
    fn a_refusal_has_a_kubelets_words() {
        let needs = Needs { verb: "get", subresources: vec!["pods", "proxy"] };
        let text = forbidden("kate", &needs);
        assert_eq!(text, "Forbidden (user=kate, verb=get, resource=nodes, subresource(s)=[pods proxy])\n");
        let text = not_authorized("kate", "get", "pods");
        assert_eq!(text, "Authorization error (user=kate, verb=get, resource=nodes, subresource=pods)\n");
    }
}
