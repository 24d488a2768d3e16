//! `kubectl --as`: acting as somebody else, for whoever may `impersonate` them.

use http::HeaderMap;
use kubeapi::{Attributes, Hooks as _, User};

use crate::authority::Gate;

/// 32 groups that a request may name.
const GROUPS_MAX: usize = 32;
const ACCOUNT: &str = "system:serviceaccount:";

/// Whom the headers of a request of `user` name, if anybody. The error is the right that is missing.
pub(crate) async fn acting(
    gate: &Gate,
    headers: &HeaderMap,
    user: &User,
) -> Result<Option<User>, Box<Attributes>> {
    let of = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter();
        values.filter_map(|value| value.to_str().ok()).map(str::to_owned).take(GROUPS_MAX).collect()
    };
    let extra = headers.keys().any(|name| name.as_str().starts_with("impersonate-extra-"));
    let (names, mut groups) = (of("impersonate-user"), of("impersonate-group"));
    let Some(name) = names.into_iter().next() else {
        // A group, an id or an extra without a user is not acted on, and not left out in silence either.
        let alone = !groups.is_empty() || extra || headers.contains_key("impersonate-uid");
        return if alone { Err(right("users", "", "")) } else { Ok(None) };
    };
    let account = name.strip_prefix(ACCOUNT).and_then(|account| account.split_once(':'));
    let mut rights = vec![match account {
        Some((namespace, account)) => right("serviceaccounts", namespace, account),
        None => right("users", "", &name),
    }];
    rights.extend(groups.iter().map(|group| right("groups", "", group)));
    if extra {
        rights.push(right("userextras", "", ""));
    }
    if let Some(uid) = of("impersonate-uid").first() {
        rights.push(right("uids", "", uid));
    }
    for right in rights {
        if !gate.authorize(user, &right).await {
            return Err(right);
        }
    }
    if let Some((namespace, _)) = account
        && groups.is_empty()
    {
        groups.push("system:serviceaccounts".to_owned());
        groups.push(format!("system:serviceaccounts:{namespace}"));
    }
    groups.push("system:authenticated".to_owned());
    let uid = of("impersonate-uid").into_iter().next().unwrap_or_default();
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
