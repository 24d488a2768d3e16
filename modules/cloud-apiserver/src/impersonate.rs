//! `kubectl --as`: acting as somebody else, for whoever may `impersonate` them.

use http::HeaderMap;
use kubeapi::{Attributes, User};

use crate::access::AccessControl as _;
use crate::authenticator::Authenticator;

/// 32 groups that a request may name.
const GROUPS_MAX: usize = 32;
const ACCOUNT: &str = "system:serviceaccount:";

/// Where the rights to act with an id or an extra are.
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Why a request does not act as somebody else.
#[derive(Debug)]
pub(crate) enum ImpersonationError {
    /// The right that is missing.
    Missing(Box<Attributes>),
    /// The headers say nobody that could be acted as.
    Headers(String),
}

/// What the headers ask for. Whoever says one of them and is not understood must not go on as himself.
struct ImpersonatedUser {
    name: String,
    groups: Vec<String>,
    uid: String,
    /// (key, value)
    extras: Vec<(String, String)>,
}

fn impersonated_user(headers: &HeaderMap) -> Result<Option<ImpersonatedUser>, String> {
    let of = |wanted: &str| -> Result<Vec<String>, String> {
        let values = headers.get_all(wanted).iter();
        values
            .map(|value| match value.to_str() {
                Ok(text) if !text.is_empty() => Ok(text.to_owned()),
                _ => Err(format!("{wanted} is empty or no plain text")),
            })
            .collect()
    };
    let mut extras = Vec::new();
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix("impersonate-extra-") {
            extras.extend(of(name.as_str())?.into_iter().map(|value| (key.to_owned(), value)));
        }
    }
    let (mut names, groups, uids) =
        (of("impersonate-user")?, of("impersonate-group")?, of("impersonate-uid")?);
    if groups.len() + extras.len() > GROUPS_MAX {
        return Err(format!("a request acts with {GROUPS_MAX} groups and extras at the most"));
    }
    if names.len() > 1 || uids.len() > 1 {
        return Err("Impersonate-User and Impersonate-Uid are said once".to_owned());
    }
    let uid = uids.into_iter().next().unwrap_or_default();
    match names.pop() {
        Some(name) => Ok(Some(ImpersonatedUser { name, groups, uid, extras })),
        None if groups.is_empty() && extras.is_empty() && uid.is_empty() => Ok(None),
        None => Err("groups, an id or extras without an Impersonate-User".to_owned()),
    }
}

/// Whom the headers of a request of `user` name, if anybody.
pub(crate) async fn acting(
    authenticator: &Authenticator,
    headers: &HeaderMap,
    user: &User,
) -> Result<Option<User>, ImpersonationError> {
    let Some(ImpersonatedUser { name, mut groups, uid, extras }) =
        impersonated_user(headers).map_err(ImpersonationError::Headers)?
    else {
        return Ok(None);
    };
    let account = name.strip_prefix(ACCOUNT).and_then(|account| account.split_once(':'));
    let mut rights = vec![match account {
        Some((namespace, account)) => right("serviceaccounts", namespace, account),
        None => right("users", "", &name),
    }];
    rights.extend(groups.iter().map(|group| right("groups", "", group)));
    let authentication = |resource: &str, subresource: &str, name: &str| {
        let of = Attributes {
            group: AUTHENTICATION.to_owned(),
            subresource: subresource.to_owned(),
            ..*right(resource, "", name)
        };
        Box::new(of)
    };
    rights.extend(extras.iter().map(|(key, value)| authentication("userextras", key, value)));
    if !uid.is_empty() {
        rights.push(authentication("uids", "", &uid));
    }
    for right in rights {
        if !authenticator.authorize(user, &right).await {
            return Err(ImpersonationError::Missing(right));
        }
    }
    if let Some((namespace, _)) = account
        && groups.is_empty()
    {
        groups.push("system:serviceaccounts".to_owned());
        groups.push(format!("system:serviceaccounts:{namespace}"));
    }
    let known = ["system:authenticated", "system:unauthenticated"];
    if !groups.iter().any(|group| known.contains(&group.as_str())) {
        let anonymous = name == "system:anonymous";
        groups.push(known[usize::from(anonymous)].to_owned());
    }
    Ok(Some(User { name, groups, uid }))
}

fn right(resource: &str, namespace: &str, name: &str) -> Box<Attributes> {
    Box::new(Attributes {
        verb: "impersonate".to_owned(),
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..Attributes::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn refused(headers: &[(&'static str, &[u8])]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        match impersonated_user(&map) {
            Err(what) => what,
            Ok(impersonated_user) => {
                panic!("{:?}", impersonated_user.map(|impersonated_user| impersonated_user.name))
            }
        }
    }

    #[test]
    fn who_is_not_understood_does_not_go_on_as_himself() {
        let told = refused(&[("impersonate-user", b"\xff\xfe")]);
        assert!(told.contains("no plain text"), "{told}");
        assert!(refused(&[("impersonate-user", b"")]).contains("empty"));
        assert!(refused(&[("impersonate-group", b"g")]).contains("without an Impersonate-User"));
        assert!(refused(&[("impersonate-extra-scopes", b"v")]).contains("without an Impersonate-User"));
        assert!(refused(&[("impersonate-user", b"a"), ("impersonate-user", b"b")]).contains("once"));
        let many: Vec<(&'static str, &[u8])> = std::iter::once(("impersonate-user", &b"a"[..]))
            .chain(std::iter::repeat_n(("impersonate-group", &b"g"[..]), GROUPS_MAX + 1))
            .collect();
        assert!(refused(&many).contains("at the most"));
        assert!(impersonated_user(&HeaderMap::new()).unwrap().is_none());
    }
}
