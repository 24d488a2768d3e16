//! What an answer of the API server says of its way to a kubelet endpoint, and what cures what is wrong. Pure.

use serde_json::Value;

/// Whether the API server reaches a port.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It does.
    Reached,
    /// CloudCore may not ask.
    NotAllowed,
    /// Nothing is known by it: the Node is new or gone, or the API server has no time.
    Unknown,
    /// It does not, or not as it should: in whose words, and what to do.
    Failed(String, &'static str),
}

const ADDRESS: &str = "the address that Nodes say first has to lead from the API server's host to this CloudCore, with the ports from modules.cloudStream.kubeletEndpoint.firstPort on: choose another kubeletEndpoint.address (pod, host, given, node), and open the ports (NetworkPolicy, firewall)";
const EGRESS: &str = "the API server sends calls of nodes through a tunnel (egress selector, konnectivity, K3s' agents) that does not end at this CloudCore: let it dial nodes itself (K3s: `--egress-selector-mode=disabled`; elsewhere no `cluster` entry in --egress-selector-config-file), or run the tunnel's agent beside CloudCore";
const CERTIFICATE: &str = "give the API server the CA of this certificate (--kubelet-certificate-authority; `kubectl get secret casecret -o jsonpath='{.data.cadata}' | base64 -d`, in its namespace, prints that of CloudCore), or have the cluster's CA sign it: modules.cloudStream.kubeletEndpoint.certificate.signerName";
const LOOPBACK: &str = "API servers pass no call on to a loopback or link-local address: set modules.cloudHub.advertiseAddress or kubeletEndpoint.address";
const CLIENT: &str = "the API server has to show a client certificate (--kubelet-client-certificate) of the CA that its --client-ca-file names";
const RIGHT: &str =
    "bind the user to ClusterRole system:kubelet-api-admin, and name it in modules.cloudStream.apiServers";
const ELSEWHERE: &str = "another program answers at that address and port: give this CloudCore an address of its own (modules.cloudStream.kubeletEndpoint.address)";

/// `status` and `body` are what the API server answered to `GET /api/v1/nodes/NODE/proxy/healthz`. `arrived`: whether a call of an API
/// server came in here meanwhile.
pub(crate) fn judge(status: u16, body: &str, arrived: bool) -> Verdict {
    if arrived {
        return Verdict::Reached;
    }
    let said: Option<Value> = serde_json::from_str(body).ok().filter(|said: &Value| said["kind"] == "Status");
    match said {
        Some(said) => of_api_server(status, said["message"].as_str().unwrap_or_default()),
        None => of_endpoint(status, body),
    }
}

/// The API server says it itself: the call did not get through.
fn of_api_server(status: u16, message: &str) -> Verdict {
    let has = |any: &[&str]| any.iter().any(|part| message.contains(part));
    let failed = |cure| Verdict::Failed(short(message), cure);
    match status {
        403 | 422 => Verdict::NotAllowed,
        401 | 404 | 429 => Verdict::Unknown,
        400 if has(&["address not allowed"]) => failed(LOOPBACK),
        _ if has(&["x509:", "certificate"]) => failed(CERTIFICATE),
        _ if has(&[
            "egress",
            "proxy error",
            "konnectivity",
            "tunnel",
            "remotedialer",
            "agent",
            "backend from",
        ]) =>
        {
            failed(EGRESS)
        }
        _ if has(&[
            "error trying to reach",
            "dial",
            "timeout",
            "refused",
            "no route",
            "unreachable",
            "EOF",
        ]) =>
        {
            failed(ADDRESS)
        }
        _ => Verdict::Unknown,
    }
}

/// Whoever is at the port has answered; calls that are known as an API server's arrive here and are seen before.
fn of_endpoint(status: u16, body: &str) -> Verdict {
    match status {
        401 => Verdict::Failed(format!("the port answered {}", short(body)), CLIENT),
        403 => Verdict::Failed(format!("the port answered {}", short(body)), RIGHT),
        _ => Verdict::Failed(format!("{status} was answered, and no call came in here"), ELSEWHERE),
    }
}

/// Words of others, for a line of the log.
fn short(text: &str) -> String {
    let text: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    text.trim().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(status: u16, message: &str) -> Verdict {
        judge(status, &json!({ "kind": "Status", "code": status, "message": message }).to_string(), false)
    }

    /// The words of API servers of Kubernetes 1.36 and of K3s.
    #[test]
    fn what_keeps_an_api_server_away_has_its_cure() {
        let cures = [
            (503, "error trying to reach service: dial tcp 10.42.0.9:12000: i/o timeout", ADDRESS),
            (
                503,
                "error trying to reach service: dial tcp 10.0.0.9:12000: connect: connection refused",
                ADDRESS,
            ),
            (
                503,
                "error trying to reach service: tls: failed to verify certificate: x509: certificate signed by unknown authority",
                CERTIFICATE,
            ),
            (
                503,
                "error trying to reach service: proxy error from 127.0.0.1:6443 while dialing 10.0.0.9:12000, code 502: 502 Bad Gateway",
                EGRESS,
            ),
            (503, "error trying to reach service: No agent available", EGRESS),
            (400, "address not allowed", LOOPBACK),
        ];
        for (status, message, cure) in cures {
            assert_eq!(of(status, message), Verdict::Failed(message.to_owned(), cure), "{message}");
        }
    }

    #[test]
    fn what_says_nothing_of_the_way_is_no_verdict() {
        let forbidden = "nodes \"a\" is forbidden: User \"system:serviceaccount:kubeedge:cloudcore\" cannot get resource \"nodes/proxy\"";
        assert_eq!(of(403, forbidden), Verdict::NotAllowed);
        assert_eq!(of(422, "ValidatingAdmissionPolicy 'x' denied request"), Verdict::NotAllowed);
        assert_eq!(of(404, "nodes \"a\" not found"), Verdict::Unknown);
        assert_eq!(of(500, "etcdserver: leader changed"), Verdict::Unknown);
    }

    #[test]
    fn who_answers_at_the_port_is_told_from_this_cloudcore() {
        assert_eq!(judge(200, "ok", true), Verdict::Reached);
        assert_eq!(judge(503, "the node has no room", true), Verdict::Reached, "the way is there");
        let cure = |status, body| match judge(status, body, false) {
            Verdict::Failed(_, cure) => cure,
            other => panic!("{other:?}"),
        };
        assert_eq!(cure(200, "ok"), ELSEWHERE);
        assert_eq!(cure(401, "Unauthorized"), CLIENT);
        assert_eq!(
            cure(403, "Forbidden (user=kate, verb=get, resource=nodes, subresource(s)=[healthz proxy])\n"),
            RIGHT
        );
    }
}
