//! The pods of the soak, and what is true inside them by the word of `ctr` and `/proc`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use testhost::TestHost;

use crate::kubectl::said;

/// The container's name, the Deployment's and the service account's.
pub(crate) const APP: &str = "app";
pub(crate) const SETTINGS: &str = "settings";
pub(crate) const SECRET: &str = "password";
const ACCOUNT: &str = "system:serviceaccount:default:app";
const FILES: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What pods need, at version `round`.
pub(crate) fn needs(round: u64) -> Vec<Value> {
    let login = STANDARD.encode(r#"{"auths":{"registry.test":{"auth":"YTpi"}}}"#);
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": APP}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": SETTINGS}, "data": settings(round)}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "data": secret(round)}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "registry"},
            "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": login}}),
    ]
}

/// The config map's data.
pub(crate) fn settings(round: u64) -> Value {
    json!({"round": round.to_string()})
}

/// The secret's data.
pub(crate) fn secret(round: u64) -> Value {
    json!({"word": STANDARD.encode(format!("word-{round}"))})
}

/// A Deployment of such pods.
pub(crate) fn deployment(replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": APP},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": APP}},
            "template": {"metadata": {"labels": {"app": APP}}, "spec": spec()},
        },
    })
}

/// One more such pod.
pub(crate) fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "extra"}}, "spec": spec()})
}

/// What such a pod is made of.
pub(crate) fn spec() -> Value {
    json!({
        "nodeSelector": {"node-role.kubernetes.io/edge": ""},
        "serviceAccountName": APP,
        "imagePullSecrets": [{"name": "registry"}],
        "terminationGracePeriodSeconds": 1,
        "volumes": [
            {"name": "settings", "configMap": {"name": SETTINGS}},
            {"name": "secret", "secret": {"secretName": SECRET}},
            {"name": "account", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [
                    {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
            ]}},
        ],
        "containers": [{
            "name": APP,
            "image": testhost::BUSYBOX,
            "command": ["sleep", "1000000"],
            "env": [
                {"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
                {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "ROUND", "valueFrom": {"configMapKeyRef": {"name": SETTINGS, "key": "round"}}},
                {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": SECRET, "key": "word"}}},
            ],
            "volumeMounts": [
                {"name": "settings", "mountPath": "/etc/settings"},
                {"name": "secret", "mountPath": "/etc/secret"},
                {"name": "account", "mountPath": FILES},
            ],
        }],
    })
}

/// A container of the soak that runs, with what its first process sees.
#[derive(Debug, Clone)]
pub(crate) struct RunningContainer {
    pub(crate) container: String,
    pub(crate) pod: String,
    pub(crate) uid: String,
    root: PathBuf,
    env: BTreeMap<String, String>,
}

impl RunningContainer {
    fn of(container: &str, pid: &str) -> Result<RunningContainer> {
        let process = Path::new("/proc").join(pid);
        let environment = std::fs::read(process.join("environ")).context("read the environment")?;
        let env: BTreeMap<String, String> = String::from_utf8_lossy(&environment)
            .split('\0')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let named = |name: &str| env.get(name).cloned().with_context(|| format!("{container} has no {name}"));
        Ok(RunningContainer {
            container: container.to_owned(),
            pod: named("POD_NAME")?,
            uid: named("POD_UID")?,
            root: process.join("root"),
            env,
        })
    }

    /// A file as the container sees it.
    pub(crate) fn file(&self, path: &str) -> Result<String> {
        let at = self.root.join(path.trim_start_matches('/'));
        std::fs::read_to_string(at).with_context(|| format!("{path} in {}", self.pod))
    }

    /// The version of the config map that is mounted.
    pub(crate) fn round(&self) -> Result<String> {
        self.file("/etc/settings/round")
    }

    /// Fails unless the files are of version `round`, and the token is this pod's.
    pub(crate) fn check_files(&self, round: u64) -> Result<()> {
        let is = |what: &str, is: &str, should: &str| {
            if is == should {
                Ok(())
            } else {
                bail!("{what} of {} is {is:?} instead of {should:?}", self.pod)
            }
        };
        is("the config map's file", &self.round()?, &round.to_string())?;
        is("the secret's file", &self.file("/etc/secret/word")?, &format!("word-{round}"))?;
        is("the namespace file", &self.file(&format!("{FILES}/namespace"))?, "default")?;
        if !self.file(&format!("{FILES}/ca.crt"))?.contains("BEGIN CERTIFICATE") {
            bail!("ca.crt of {} holds no certificate", self.pod);
        }
        let claims = self.claims()?;
        is("the token's account", claims["sub"].as_str().unwrap_or_default(), ACCOUNT)?;
        let bound = claims.pointer("/kubernetes.io/pod/uid").and_then(Value::as_str).unwrap_or_default();
        is("the token's pod", bound, &self.uid)
    }

    /// Fails unless the environment is of version `round`.
    pub(crate) fn check_env(&self, round: u64) -> Result<()> {
        for (name, should) in [("ROUND", round.to_string()), ("WORD", format!("word-{round}"))] {
            let is = self.env.get(name).map(String::as_str).unwrap_or_default();
            if is != should {
                bail!("{name} of {} is {is:?} instead of {should:?}", self.pod);
            }
        }
        Ok(())
    }

    /// When the token ends, in seconds since 1970.
    pub(crate) fn token_ends(&self) -> Result<u64> {
        self.claims()?["exp"].as_u64().with_context(|| format!("the token of {} has no end", self.pod))
    }

    fn claims(&self) -> Result<Value> {
        let token = self.file(&format!("{FILES}/token"))?;
        let body = token.split('.').nth(1).with_context(|| format!("the token of {} is none", self.pod))?;
        let json = URL_SAFE_NO_PAD.decode(body).with_context(|| format!("the token of {}", self.pod))?;
        serde_json::from_slice(&json).with_context(|| format!("the token of {}", self.pod))
    }
}

async fn ctr(host: &TestHost, args: &[&str]) -> Result<String> {
    let mut command = host.ctr();
    command.args(args);
    said(&mut tokio::process::Command::from(command), "").await
}

/// The soak's containers that run, by pod.
pub(crate) async fn running(host: &TestHost) -> Result<Vec<RunningContainer>> {
    let ours = format!("labels.\"io.kubernetes.container.name\"=={APP}");
    let ours = ctr(host, &["containers", "list", "--quiet", &ours]).await?;
    let tasks = ctr(host, &["tasks", "list"]).await?;
    let mut found = Vec::new();
    for line in tasks.lines() {
        let mut words = line.split_whitespace();
        let (Some(id), Some(pid), Some("RUNNING")) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        if ours.lines().any(|known| known == id) {
            found.push(RunningContainer::of(id, pid)?);
        }
    }
    found.sort_by(|one, other| one.pod.cmp(&other.pod));
    Ok(found)
}

/// How many sandboxes and how many containers of ours the runtime remembers, ended ones included.
pub(crate) async fn remembered(host: &TestHost) -> Result<(usize, usize)> {
    let of = async |kind: &str| {
        let filter = format!("labels.\"io.cri-containerd.kind\"=={kind}");
        let list = ctr(host, &["containers", "list", "--quiet", &filter]).await?;
        anyhow::Ok(list.lines().filter(|line| !line.is_empty()).count())
    };
    Ok((of("sandbox").await?, of("container").await?))
}
