//! Kinds by their names.

use kube::api::{Api, ApiResource, DynamicObject};

/// A kind by its names. The plural is the kind's name in small letters with an `s` (`es` after `s`, `ies` for `y`).
pub fn resource(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let small = kind.to_ascii_lowercase();
    let plural = match (small.ends_with('s'), small.strip_suffix('y')) {
        (true, _) => format!("{small}es"),
        (_, Some(stem)) => format!("{stem}ies"),
        (false, None) => format!("{small}s"),
    };
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        plural,
    }
}

/// Objects of a kind by its names, in a namespace or in all.
pub fn objects(
    client: kube::Client,
    api_version: &str,
    kind: &str,
    namespace: Option<&str>,
) -> Api<DynamicObject> {
    let resource = resource(api_version, kind);
    match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    }
}
