//! Projected volumes: several sources in one folder, tokens of service accounts among them. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    PodSpec, ProjectedVolumeSource, ServiceAccountTokenProjection, VolumeProjection,
};

use super::payload::{MODE, PayloadBuilder, Source, SourceKind, from_downward, inside, mode_bits, select};
use crate::error::StepError;
use crate::pod::parsed_pod::{ParsedPod, all_of};
use crate::pod::sources::{Sources, bytes_of_map, bytes_of_secret};
use crate::runtime::fields::FieldValues;

/// Kubernetes' default life of a mounted token, in seconds.
const TOKEN_SECONDS: i64 = 3600;
/// A file for one user alone: the kubelet's mode of a token whose reader is known.
const FOR_ONE: u32 = 0o600;

/// A token that a pod mounts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TokenRequest {
    pub(crate) audience: String,
    pub(crate) seconds: i64,
}

/// The tokens at hand.
pub(crate) type Tokens = BTreeMap<TokenRequest, String>;

fn token_request_of(token: &ServiceAccountTokenProjection) -> TokenRequest {
    TokenRequest {
        audience: token.audience.clone().unwrap_or_default(),
        seconds: token.expiration_seconds.unwrap_or(TOKEN_SECONDS),
    }
}

/// The tokens that a pod mounts, each once.
pub(crate) fn token_requests(spec: &PodSpec) -> Vec<TokenRequest> {
    let projected = spec.volumes.iter().flatten().filter_map(|volume| volume.projected.as_ref());
    let sources = projected.flat_map(|projected| projected.sources.iter().flatten());
    let mut wants: Vec<TokenRequest> =
        sources.filter_map(|source| source.service_account_token.as_ref()).map(token_request_of).collect();
    wants.sort();
    wants.dedup();
    wants
}

/// The files of all sources; of two for one path the later one counts. What fails is told of all sources at once, as the
/// kubelet does.
pub(super) fn from_projected(
    pod: &ParsedPod,
    projected: &ProjectedVolumeSource,
    sources: &Sources,
    tokens: &Tokens,
    facts: &FieldValues,
    into: &mut PayloadBuilder<'_>,
) -> Result<(), StepError> {
    let mode = projected.default_mode.unwrap_or(MODE);
    let mut errors = Vec::new();
    for source in projected.sources.iter().flatten() {
        errors.extend(one(pod, source, mode, sources, tokens, facts, into).err());
    }
    joined(errors)
}

fn one(
    pod: &ParsedPod,
    source: &VolumeProjection,
    mode: i32,
    sources: &Sources,
    tokens: &Tokens,
    facts: &FieldValues,
    into: &mut PayloadBuilder<'_>,
) -> Result<(), StepError> {
    if let Some(map) = &source.config_map {
        let optional = map.optional.unwrap_or(false);
        if let Some(found) = sources.config_map(&map.name, optional)? {
            let what = Source { kind: SourceKind::ConfigMap, name: &map.name, optional, mode };
            select(&bytes_of_map(found), map.items.as_deref(), &what, into)?;
        }
    }
    if let Some(secret) = &source.secret {
        let optional = secret.optional.unwrap_or(false);
        if let Some(found) = sources.secret(&secret.name, optional)? {
            let what = Source { kind: SourceKind::Secret, name: &secret.name, optional, mode };
            select(&bytes_of_secret(found), secret.items.as_deref(), &what, into)?;
        }
    }
    if let Some(downward) = &source.downward_api {
        from_downward(pod, downward.items.iter().flatten(), mode, facts, into)?;
    }
    if let Some(token) = &source.service_account_token {
        let Some(text) = tokens.get(&token_request_of(token)) else {
            let account = pod.spec().service_account_name.clone().unwrap_or_else(|| "default".to_owned());
            return Err(StepError::Token { account, reason: "none has been granted yet".to_owned() });
        };
        let (mode, owner) = token_access(pod.spec(), mode);
        into.insert(inside(&token.path)?, text.as_bytes(), mode, owner)?;
    }
    Ok(())
}

/// One error as it is; several as `[a, b]`. What can never come outweighs what may.
fn joined(mut errors: Vec<StepError>) -> Result<(), StepError> {
    if errors.len() < 2 {
        return errors.pop().map_or(Ok(()), Err);
    }
    let texts: Vec<String> = errors.iter().map(StepError::to_string).collect();
    let text = format!("[{}]", texts.join(", "));
    let never = errors.iter().any(|error| matches!(error, StepError::Config(_)));
    Err(if never { StepError::Config(text) } else { StepError::Missing(text) })
}

/// A token is for the pod's own user or group alone where one is known, as in the kubelet: with an fsGroup the group may
/// read it too, by the rule for all files of such a volume.
fn token_access(spec: &PodSpec, mode: i32) -> (u32, Option<u32>) {
    let group = spec.security_context.as_ref().and_then(|pod| pod.fs_group);
    let user = only_user(spec);
    if user.is_some() || group.is_some() { (FOR_ONE, user) } else { (mode_bits(mode), None) }
}

/// The user that every container runs as, if the pod says so: the kubelet's `FsUserFrom`.
fn only_user(spec: &PodSpec) -> Option<u32> {
    let pod = spec.security_context.as_ref().and_then(|pod| pod.run_as_user);
    let own = all_of(spec).map(|container| container.security_context.as_ref()?.run_as_user);
    let debugging = spec.ephemeral_containers.iter().flatten();
    let debugging = debugging.map(|container| container.security_context.as_ref()?.run_as_user);
    let mut users: Vec<Option<i64>> = own.chain(debugging).map(|user| user.or(pod)).collect();
    users.dedup();
    match users.as_slice() {
        [Some(user)] => u32::try_from(*user).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::parsed_pod::tests::pod;

    #[test]
    fn a_token_is_for_the_pods_own_user_and_group() {
        let access = |spec| token_access(pod(spec).spec(), 0o644);
        assert_eq!(access(json!({})), (0o644, None));
        assert_eq!(access(json!({"securityContext": {"runAsUser": 5}})), (0o600, Some(5)));
        assert_eq!(access(json!({"securityContext": {"fsGroup": 7}})), (0o600, None));
        let both = json!({"securityContext": {"runAsUser": 5, "fsGroup": 7}});
        assert_eq!(access(both), (0o600, Some(5)), "the group doesn't take the owner away");
        let container = |name: &str, user: u32| json!({"name": name, "image": "x", "securityContext": {"runAsUser": user}});
        let two = json!({"containers": [container("a", 5), container("b", 6)]});
        assert_eq!(access(two), (0o644, None));
        let one = json!({"containers": [container("a", 5)], "initContainers": [container("b", 5)]});
        assert_eq!(access(one.clone()), (0o600, Some(5)));
        let mut debugged = one;
        debugged["ephemeralContainers"] = json!([container("c", 0)]);
        assert_eq!(access(debugged), (0o644, None));
    }
}
