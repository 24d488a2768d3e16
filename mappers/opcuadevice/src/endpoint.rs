//! Which of the endpoints that a server offers is taken, and by which kind of login. Pure.
//!
//! The list comes without any security: all that is taken from it is what a trusted certificate, or the policy that the Device
//! names, makes good.

use opcua_crypto::SecurityPolicy;
use opcua_types::{EndpointDescription, MessageSecurityMode, UserTokenPolicy, UserTokenType};

use crate::address::{Address, Login};

/// 12 of what a server offers are named.
const NAMED_MAX: usize = 12;

/// The endpoint that the Device means, at the address that it has, with the one kind of login that is used.
///
/// # Errors
/// A sentence that says what the server offers, and what to write.
pub(crate) fn choose(
    address: &Address,
    offered: &[EndpointDescription],
) -> Result<(EndpointDescription, UserTokenType), String> {
    let is_meant = |endpoint: &&EndpointDescription| {
        endpoint.security_mode == address.mode
            && SecurityPolicy::from_uri(endpoint.security_policy_uri.as_ref()) == address.policy
            && endpoint.endpoint_url.as_ref().starts_with("opc.tcp:")
    };
    let mut logins = None;
    for endpoint in offered.iter().filter(is_meant) {
        match login(address, endpoint) {
            Ok(policy) => {
                let kind = policy.token_type;
                let endpoint = EndpointDescription {
                    // What a server calls itself may lead nowhere from here.
                    endpoint_url: address.url.as_str().into(),
                    user_identity_tokens: Some(vec![policy]),
                    ..endpoint.clone()
                };
                return Ok((endpoint, kind));
            }
            Err(reason) => logins = logins.or(Some(reason)),
        }
    }
    Err(logins.unwrap_or_else(|| not_offered(address, offered)))
}

/// The token that is used at this endpoint.
fn login(address: &Address, endpoint: &EndpointDescription) -> Result<UserTokenPolicy, String> {
    let tokens = endpoint.user_identity_tokens.as_deref().unwrap_or_default();
    let of = |kind: UserTokenType| tokens.iter().filter(move |token| token.token_type == kind);
    match &address.login {
        Login::Any => {
            let certificate = || of(UserTokenType::Certificate).find(|_| address.certificate.is_some());
            of(UserTokenType::Anonymous).next().or_else(certificate).cloned().ok_or_else(|| {
                format!(
                    "the server takes nobody without a name here ({}); write `userName` and `password`",
                    kinds(tokens)
                )
            })
        }
        Login::User(..) => {
            let mut users = of(UserTokenType::UserName).peekable();
            if users.peek().is_none() {
                return Err(format!("the server takes no user here ({}); remove `userName`", kinds(tokens)));
            }
            let is_safe = |token: &&UserTokenPolicy| is_encrypted(address, token, endpoint);
            match users.find(is_safe) {
                Some(token) => Ok(token.clone()),
                None if address.mode == MessageSecurityMode::SignAndEncrypt || address.is_insecure => {
                    // The channel encrypts it, or the Device says that nothing has to.
                    of(UserTokenType::UserName).find(|token| token_policy(address, token) == SecurityPolicy::None).cloned().ok_or_else(
                        || "the server wants passwords encrypted by a policy that is not known here".to_owned(),
                    )
                }
                None => Err(
                    "the server would have the password in the clear; write `securityMode` SignAndEncrypt, or `insecure: true`"
                        .to_owned(),
                ),
            }
        }
    }
}

/// Whether the password is encrypted for the server's certificate.
fn is_encrypted(address: &Address, token: &UserTokenPolicy, endpoint: &EndpointDescription) -> bool {
    let policy = token_policy(address, token);
    !matches!(policy, SecurityPolicy::None | SecurityPolicy::Unknown)
        && (!policy.is_deprecated() || address.is_insecure)
        && !endpoint.server_certificate.is_null_or_empty()
}

/// The policy of a password: the token's own, or else the channel's (Part 4, UserTokenPolicy).
fn token_policy(address: &Address, token: &UserTokenPolicy) -> SecurityPolicy {
    if token.security_policy_uri.is_empty() {
        address.policy
    } else {
        SecurityPolicy::from_uri(token.security_policy_uri.as_ref())
    }
}

fn kinds(tokens: &[UserTokenPolicy]) -> String {
    let mut named: Vec<&str> = tokens
        .iter()
        .map(|token| match token.token_type {
            UserTokenType::Anonymous => "anybody",
            UserTokenType::UserName => "users",
            UserTokenType::Certificate => "certificates",
            UserTokenType::IssuedToken => "issued tokens",
        })
        .collect();
    named.sort_unstable();
    named.dedup();
    if named.is_empty() { "nobody".to_owned() } else { named.join(", ") }
}

fn not_offered(address: &Address, offered: &[EndpointDescription]) -> String {
    let mut named: Vec<String> = offered
        .iter()
        .map(|endpoint| {
            let policy = endpoint.security_policy_uri.as_ref();
            let policy: String = policy.rsplit('#').next().unwrap_or_default().chars().take(40).collect();
            format!("{policy} with {:?}", endpoint.security_mode)
        })
        .collect();
    named.sort_unstable();
    named.dedup();
    named.truncate(NAMED_MAX);
    let there = if named.is_empty() { "nothing".to_owned() } else { named.join(", ") };
    format!(
        "the server does not offer {} with {:?}; it offers {there}: write one as `securityPolicy` and `securityMode`",
        address.policy, address.mode
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use framework::{Scalar, Settings};

    fn address(more: &[(&str, &str)]) -> Address {
        let pairs = [&[("url", "opc.tcp://192.0.2.7:4840")], more].concat();
        let pairs = pairs.into_iter().map(|(key, value)| (key, Scalar::Text(value.to_owned())));
        Address::read(&Settings::from_pairs(pairs)).unwrap()
    }

    fn token(kind: UserTokenType, policy: SecurityPolicy) -> UserTokenPolicy {
        let uri = if policy == SecurityPolicy::Unknown { "" } else { policy.to_uri() };
        UserTokenPolicy {
            policy_id: format!("{kind:?}-{policy:?}").into(),
            token_type: kind,
            security_policy_uri: uri.into(),
            ..Default::default()
        }
    }

    fn endpoint(
        policy: SecurityPolicy,
        mode: MessageSecurityMode,
        tokens: Vec<UserTokenPolicy>,
    ) -> EndpointDescription {
        EndpointDescription {
            endpoint_url: "opc.tcp://inner.name:4840/".into(),
            security_policy_uri: policy.to_uri().into(),
            security_mode: mode,
            user_identity_tokens: Some(tokens),
            server_certificate: vec![1].into(),
            ..Default::default()
        }
    }

    const USER: [(&str, &str); 2] = [("userName", "op"), ("password", "p")];

    #[test]
    fn the_devices_own_address_and_policy_count() {
        let anybody = || vec![token(UserTokenType::Anonymous, SecurityPolicy::Unknown)];
        let offered = [
            endpoint(SecurityPolicy::None, MessageSecurityMode::None, anybody()),
            endpoint(SecurityPolicy::Basic256Sha256, MessageSecurityMode::Sign, anybody()),
        ];
        let (found, kind) = choose(&address(&[]), &offered).unwrap();
        assert_eq!(found.endpoint_url.as_ref(), "opc.tcp://192.0.2.7:4840");
        assert_eq!(kind, UserTokenType::Anonymous);
        let wanted = address(&[("securityPolicy", "Basic256Sha256")]);
        let refusal = choose(&wanted, &offered).unwrap_err();
        assert!(refusal.contains("Basic256Sha256 with Sign,"), "{refusal}");
        assert!(refusal.contains("not offer Basic256Sha256 with SignAndEncrypt"), "{refusal}");
        assert!(choose(&wanted, &[]).unwrap_err().contains("it offers nothing"));
    }

    #[test]
    fn a_password_goes_encrypted_or_not_at_all() {
        let with = |mode: &'static str, insecure: bool| {
            let mut pairs =
                vec![("securityPolicy", "Basic256Sha256"), ("securityMode", mode), USER[0], USER[1]];
            pairs.extend(insecure.then_some(("insecure", "true")));
            address(&pairs)
        };
        let clear = token(UserTokenType::UserName, SecurityPolicy::None);
        let safe = token(UserTokenType::UserName, SecurityPolicy::Unknown);
        let both = |mode| endpoint(SecurityPolicy::Basic256Sha256, mode, vec![clear.clone(), safe.clone()]);
        let taken = |found: (EndpointDescription, UserTokenType)| found.0.user_identity_tokens.unwrap();
        for (name, mode) in
            [("Sign", MessageSecurityMode::Sign), ("SignAndEncrypt", MessageSecurityMode::SignAndEncrypt)]
        {
            let found = choose(&with(name, false), &[both(mode)]).unwrap();
            assert_eq!(taken(found), std::slice::from_ref(&safe), "whatever comes first");
        }
        let bare = |mode| endpoint(SecurityPolicy::Basic256Sha256, mode, vec![clear.clone()]);
        let refusal = choose(&with("Sign", false), &[bare(MessageSecurityMode::Sign)]).unwrap_err();
        assert!(refusal.contains("in the clear"), "{refusal}");
        choose(&with("SignAndEncrypt", false), &[bare(MessageSecurityMode::SignAndEncrypt)]).unwrap();
        choose(&with("Sign", true), &[bare(MessageSecurityMode::Sign)]).unwrap();
        // An attacker's list without a certificate has nothing to encrypt for.
        let mut empty = both(MessageSecurityMode::Sign);
        empty.server_certificate = Vec::new().into();
        choose(&with("Sign", false), &[empty]).unwrap_err();
    }

    #[test]
    fn whom_a_server_takes_is_said() {
        let users = endpoint(
            SecurityPolicy::None,
            MessageSecurityMode::None,
            vec![token(UserTokenType::UserName, SecurityPolicy::Unknown)],
        );
        assert!(choose(&address(&[]), &[users]).unwrap_err().contains("write `userName`"));
        let anybody = endpoint(
            SecurityPolicy::Basic256Sha256,
            MessageSecurityMode::SignAndEncrypt,
            vec![token(UserTokenType::Anonymous, SecurityPolicy::Unknown)],
        );
        let user = address(&[("securityPolicy", "Basic256Sha256"), USER[0], USER[1]]);
        assert!(choose(&user, &[anybody]).unwrap_err().contains("remove `userName`"));
        let certificates = endpoint(
            SecurityPolicy::Basic256Sha256,
            MessageSecurityMode::SignAndEncrypt,
            vec![token(UserTokenType::Certificate, SecurityPolicy::Unknown)],
        );
        let ours =
            [("securityPolicy", "Basic256Sha256"), ("certificate", "/c.der"), ("privateKey", "/k.pem")];
        assert_eq!(choose(&address(&ours), &[certificates]).unwrap().1, UserTokenType::Certificate);
    }
}
