//! What a CertificateSigningRequest says, what it is called, and when the next one is made. Pure.

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pki::{ServerSubject, SubjectAltNames};
use sha2::{Digest, Sha256};

/// Kubernetes' signer of kubelets' serving certificates.
pub(crate) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// What stands before the hash in the name of a request; the policy in `rbac-csr.yaml` holds CloudCore to it.
const NAME_PREFIX: &str = "kubehive-cloudcore-";
/// Who is named in a request: no Node has this name.
const SUBJECT: &str = "kubehive-cloudcore";
/// A kubelet's serving certificate may have exactly these, or these without `key encipherment` on newer servers
/// (ValidateKubeletServingCSR of pkg/apis/certificates).
const USAGES: [&str; 3] = ["digital signature", "key encipherment", "server auth"];

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nobody has said anything.
    Unapproved,
    /// It was approved, and the signer has not signed yet.
    Unsigned,
    /// It was denied, or the signer has failed: in whose words.
    Refused(String),
    /// It was signed: the chain as PEM.
    Signed(String),
}

/// Reads a request.
pub(crate) fn decision(found: &CertificateSigningRequest) -> Decision {
    let Some(status) = &found.status else { return Decision::Unapproved };
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let has = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind);
    if let Some(refused) = has("Denied").or_else(|| has("Failed")) {
        let words = refused.message.as_deref().or(refused.reason.as_deref()).unwrap_or("no reason is given");
        let words: String = words.chars().filter(|letter| !letter.is_control()).take(300).collect();
        return Decision::Refused(format!("{}: {words}", refused.type_));
    }
    match &status.certificate {
        Some(ByteString(chain)) if !chain.is_empty() => {
            Decision::Signed(String::from_utf8_lossy(chain).into_owned())
        }
        _ if has("Approved").is_some() => Decision::Unsigned,
        _ => Decision::Unapproved,
    }
}

/// In whose name a signer is asked.
pub(crate) fn subject(signer: &str) -> ServerSubject {
    if signer == KUBELET_SERVING {
        ServerSubject::Node(SUBJECT.to_owned())
    } else {
        ServerSubject::Plain(SUBJECT.to_owned())
    }
}

/// What the request of a key is called: another key, signer or address makes another name, and a restart the same.
pub(crate) fn name(key_id: &str, signer: &str, alt_names: &SubjectAltNames) -> String {
    let hash = Sha256::digest(format!("{key_id}\n{signer}\n{alt_names:?}").as_bytes());
    let hash: String = hash.iter().take(10).map(|byte| format!("{byte:02x}")).collect();
    format!("{NAME_PREFIX}{hash}")
}

/// The object.
pub(crate) fn object(name: &str, signer: &str, request_pem: String) -> CertificateSigningRequest {
    CertificateSigningRequest {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(request_pem.into_bytes()),
            signer_name: signer.to_owned(),
            usages: Some(USAGES.map(str::to_owned).into()),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn request(status: Value) -> CertificateSigningRequest {
        let spec = json!({ "request": "", "signerName": KUBELET_SERVING });
        serde_json::from_value(json!({ "metadata": { "name": "a" }, "spec": spec, "status": status }))
            .unwrap()
    }

    fn condition(kind: &str) -> Value {
        json!({ "conditions": [{ "type": kind, "status": "True", "message": "by hand\u{1b}[2J" }] })
    }

    #[test]
    fn what_was_decided_is_read_and_a_refusal_wins() {
        assert_eq!(decision(&request(Value::Null)), Decision::Unapproved);
        assert_eq!(decision(&request(json!({}))), Decision::Unapproved);
        assert_eq!(decision(&request(condition("Approved"))), Decision::Unsigned);
        for kind in ["Denied", "Failed"] {
            let mut status = condition(kind);
            status["certificate"] = "YQ==".into();
            assert_eq!(decision(&request(status)), Decision::Refused(format!("{kind}: by hand[2J")));
        }
        let mut status = condition("Approved");
        status["certificate"] = "YQ==".into();
        assert_eq!(decision(&request(status)), Decision::Signed("a".to_owned()));
    }

    #[test]
    fn a_request_has_one_name_for_each_key_signer_and_address() {
        let at = |address: &str| SubjectAltNames { addresses: vec![address.parse().unwrap()], names: vec![] };
        let first = name("k", "a.b/c", &at("192.0.2.1"));
        assert_eq!(first, name("k", "a.b/c", &at("192.0.2.1")));
        assert!(first.starts_with(NAME_PREFIX) && first.len() == NAME_PREFIX.len() + 20, "{first}");
        for other in [
            name("l", "a.b/c", &at("192.0.2.1")),
            name("k", "a.b/d", &at("192.0.2.1")),
            name("k", "a.b/c", &at("192.0.2.2")),
        ] {
            assert_ne!(first, other);
        }
        let object = object(&first, KUBELET_SERVING, "PEM".to_owned());
        let sent = serde_json::to_value(&object).unwrap();
        assert_eq!(
            (&sent["spec"]["request"], &sent["spec"]["usages"][2]),
            (&json!("UEVN"), &json!("server auth"))
        );
        assert_eq!(subject(KUBELET_SERVING), ServerSubject::Node(SUBJECT.to_owned()));
        assert_eq!(subject("a.b/c"), ServerSubject::Plain(SUBJECT.to_owned()));
    }
}
