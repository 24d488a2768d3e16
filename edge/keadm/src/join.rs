//! `keadm join`: a machine becomes a node.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use beehive::Env;
use config::Defect;
use config::edge::EdgeCore;
use contract::NodeName;
use edge_store::{StoreError, StoreInspector};
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use pkcs11key::{TokenKey, TokenUri};
use pki::{JoinToken, NodeRequest};
use rustls_pki_types::CertificateDer;
use serde_json::Value;

use crate::config_location::ConfigLocation;
use crate::debug::check;
use crate::endpoints::{CloudPorts, Endpoints};
use crate::files::{is_there, try_write, write};
use crate::https::{HttpsRequest, ServerTrust, certified_key, exchange};
use crate::machine::{self, Machine};
use crate::reset::{give_back, not_given_back, told};

/// 3 s for a TCP port to answer: two round trips of the worst link that is used, and a lost packet.
const PORT_ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// 16 KiB: more than any file that joining writes.
const FILE_MAX: usize = 16 << 10;

/// Above the values in `edgecore.yaml`.
const HEAD: &str = "\
# Written by `keadm join`. What does not stand here is as this release of edgecore has it: `edgecore --defaultconfig` prints all of it,
# with what each value means. Add here what is to be otherwise, then restart edgecore.
";
/// What stands there whatever the defaults are.
const JOINED: [&str; 6] = [
    "apiVersion",
    "kind",
    "modules.edged.hostnameOverride",
    "modules.edgeHub.httpServer",
    "modules.edgeHub.quic.server",
    "modules.edgeHub.websocket.server",
];

/// What a node joins with.
#[derive(Debug, Clone)]
pub struct Join {
    /// Where CloudCore is.
    pub cloud: CloudPorts,
    /// The token.
    pub token: String,
    /// The node's name.
    pub node: String,
    /// Where `edgecore.yaml` is written.
    pub config: ConfigLocation,
    /// `a.b.c=value` into `edgecore.yaml`.
    pub set: Vec<String>,
    /// The PKCS#11 token that makes and keeps the key (RFC 7512); `None`: it is made here, and lies in a file.
    pub key_uri: Option<String>,
}

/// Makes the key here, gets the certificate, writes the files, and says what it did, a line each.
///
/// # Errors
/// A sentence with the cure. No file is left behind then, and the name is given back where the cloud had given it.
pub async fn join(order: &Join, say: &mut dyn FnMut(String)) -> Result<()> {
    let plan = Enrolment::plan(order, EdgeCore::default(), say)?;
    check::before_join(&plan.settings, check::Joins::Anew, &Env::real(), say).await;
    plan.enrol(say).await?;
    say(format!(
        "node `{}` has joined; start edgecore: `systemctl enable --now edgecore`, or where systemd is not `edgecore --config {}`",
        plan.node,
        order.config.file.display()
    ));
    Ok(())
}

/// A join that nothing on this machine stands against.
pub(crate) struct Enrolment<'a> {
    order: &'a Join,
    pub(crate) node: NodeName,
    token: JoinToken,
    endpoints: Endpoints,
    /// Where the key is made, if that is a PKCS#11 token.
    key_in: Option<TokenUri>,
    pub(crate) settings: EdgeCore,
    /// `edgecore.yaml`.
    text: String,
}

impl<'a> Enrolment<'a> {
    /// Looks whether everything can be done. `base`: the settings that are changed where joining knows better.
    pub(crate) fn plan(
        order: &'a Join,
        base: EdgeCore,
        say: &mut dyn FnMut(String),
    ) -> Result<Enrolment<'a>> {
        let node = NodeName::parse(&order.node).context("--edgenode-name is not usable")?;
        let token = JoinToken::parse(&order.token)?;
        let endpoints = order.cloud.endpoints()?;
        let Settings { settings, text, warnings } = settings(order, base, &node, &endpoints)?;
        if let Some(path) = check::written(&settings, &order.config.file).first() {
            bail!("{} is there already: run `keadm reset` first, or move it away", path.display());
        }
        check_store(&settings.database.data_source, &node)?;
        let key_in = order.key_uri.as_deref().map(TokenUri::parse).transpose().context("--key-uri")?;
        let plan = Enrolment { order, node, token, endpoints, key_in, settings, text };
        // The token is used up by asking: first what can fail here.
        for (path, _) in plan.places() {
            try_write(path, FILE_MAX)?;
        }
        warnings.into_iter().for_each(&mut *say);
        Ok(plan)
    }

    /// What was asked for.
    pub(crate) fn order(&self) -> &Join {
        self.order
    }

    /// What is written, and for whom.
    fn places(&self) -> [(&PathBuf, u32); 4] {
        let hub = &self.settings.modules.edge_hub;
        [
            (&hub.tls_private_key_file, 0o600),
            (&hub.tls_cert_file, 0o644),
            (&hub.tls_ca_file, 0o644),
            (&self.order.config.file, 0o640),
        ]
    }

    /// Makes the key, asks the cloud and writes the files.
    pub(crate) async fn enrol(&self, say: &mut dyn FnMut(String)) -> Result<()> {
        // The join's token is used up by asking, so the key is there before.
        let Some(token) = &self.key_in else {
            return self.enrol_by(NodeRequest::new(self.node.as_str())?, say).await;
        };
        let name = format!("kubehive {}", self.node);
        let key = TokenKey::make(token, &name, Env::real().random_id())?;
        say(format!("the token `{}` has made the key, as `{name}`", token.token));
        let enrolled = match NodeRequest::signed_by(self.node.as_str(), &key, key.pem()) {
            Ok(request) => self.enrol_by(request, say).await,
            Err(error) => Err(error.into()),
        };
        if enrolled.is_err()
            && let Err(error) = key.destroy()
        {
            say(format!("the key stays in the token: {error}"));
        }
        enrolled
    }

    async fn enrol_by(&self, request: NodeRequest, say: &mut dyn FnMut(String)) -> Result<()> {
        let Enrolment { order, node, token, endpoints, settings, text, .. } = self;
        let hub = &settings.modules.edge_hub;
        let ask = Request::get("/edge.crt")
            .header("Authorization", format!("Bearer {}", token.jwt))
            .header("NodeName", node.as_str())
            .body(Full::new(Bytes::from(request.csr_der.clone())))?;
        let trust = ServerTrust::Pin(token.ca_pin.clone());
        let (host, port) = (endpoints.host.clone(), order.cloud.cert);
        let answer = exchange(HttpsRequest { host, port, trust, identity: None, request: ask }).await?;
        let at = format!("{}:{}", endpoints.host, order.cloud.cert);
        if answer.status != StatusCode::OK {
            bail!("{}", told(&at, answer.status, &answer.body));
        }
        say(format!("CloudCore's CA has the hash that the token pins ({}…)", &token.ca_pin[..12]));
        let named =
            pki::node_of_certificate(&answer.body).with_context(|| {
                format!("CloudCore at {at} signed no certificate for `{node}`: is --certport the port of its enrolment (10002, or the Service's)?")
            })?;
        if named != node.as_str() {
            bail!(
                "CloudCore at {at} signed for `{named}` and not for `{node}`: nothing was written; look at CloudCore's log, and free the name there (`keadm free {named}`)"
            );
        }
        let texts = [
            request.key_pem.clone(),
            pki::pem_of("CERTIFICATE", &answer.body),
            pki::pem_of("CERTIFICATE", &answer.ca_der),
            text.clone(),
        ];
        if let Err(error) = write_all(&self.places(), &texts, say) {
            let given_back = async {
                let identity = certified_key(CertificateDer::from(answer.body.clone()), &request.key_pem)?;
                give_back(&hub.http_server, vec![answer.ca_der.clone()], identity).await
            };
            let told = match given_back.await {
                Ok(_) => "the name was given back; print another token with `keadm gettoken`".to_owned(),
                Err(error) => not_given_back(error).to_string(),
            };
            return Err(error.context(format!("the node has not joined, and {told}")));
        }
        if let Err(error) = note_machine(settings) {
            say(format!(
                "that this machine has joined is not noted ({error:#}): on a copy of its disk, `keadm reset` may give back its name"
            ));
        }
        order.config.leave_link(settings).into_iter().for_each(&mut *say);
        say_ports(settings, say).await;
        Ok(())
    }
}

/// Remembers which machine this is, for a reset on a copy of its disk. What a node of before left there is none of this one's.
fn note_machine(settings: &EdgeCore) -> Result<()> {
    let (file, machine) = (machine::file(settings), Machine::here());
    match fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => write(&file, &machine.text(), 0o600),
    }
}

/// All of them, or none.
fn write_all(places: &[(&PathBuf, u32)], texts: &[String], say: &mut dyn FnMut(String)) -> Result<()> {
    for (at, ((path, mode), text)) in places.iter().zip(texts).enumerate() {
        if let Err(error) = write(path, text, *mode) {
            for (written, _) in places.iter().take(at) {
                if let Err(error) = fs::remove_file(written) {
                    say(format!("{} stays: {error}; remove it by hand", written.display()));
                }
            }
            return Err(error);
        }
        say(format!("wrote {}", path.display()));
    }
    Ok(())
}

/// Refuses the store of another node, which a disk image has brought along, and KubeEdge's, while somebody looks: edgecore would not
/// start on it.
fn check_store(path: &Path, node: &NodeName) -> Result<()> {
    let of = match is_there(path).then(|| StoreInspector::open(path)) {
        Some(Err(error @ StoreError::OfKubeEdge { .. })) => return Err(error.into()),
        Some(Ok(store)) => store.node(),
        Some(Err(_)) | None => None,
    };
    match of {
        Some(of) if of != node.as_str() => {
            Err(StoreError::OtherNode { path: path.to_owned(), of, node: node.to_string() }.into())
        }
        _ => Ok(()),
    }
}

/// Which ports the link will use, and whether the one of them answers that can be asked without being a node.
async fn say_ports(settings: &EdgeCore, say: &mut dyn FnMut(String)) {
    let hub = &settings.modules.edge_hub;
    if !hub.websocket.enable {
        return say(format!("the link: QUIC at {} (UDP)", hub.quic.server));
    }
    let (quic, websocket) = (&hub.quic.server, &hub.websocket.server);
    say(format!("the link: QUIC at {quic} (UDP), and where that is blocked WebSocket at {websocket} (TCP)"));
    let first = websocket.split(',').next().unwrap_or_default().trim().to_owned();
    let answered = tokio::time::timeout(PORT_ANSWERS_WITHIN, tokio::net::TcpStream::connect(&first)).await;
    if !matches!(answered, Ok(Ok(_))) {
        say(format!(
            "nothing answers at {first} (TCP) now: if CloudCore runs, the port in --cloudcore-ipport is not WebSocket's (see --hub-protocol), or it is blocked"
        ));
    }
}

/// What a node is to have.
struct Settings {
    settings: EdgeCore,
    /// `edgecore.yaml`.
    text: String,
    /// A sentence for everything that is taken otherwise.
    warnings: Vec<String>,
}

/// `base`, what joining knows, then `--set`.
fn settings(order: &Join, base: EdgeCore, node: &NodeName, endpoints: &Endpoints) -> Result<Settings> {
    let mut settings = base;
    settings.modules.edged.hostname_override = node.as_str().to_owned();
    settings.modules.edge_hub.http_server.clone_from(&endpoints.https);
    settings.modules.edge_hub.quic.server.clone_from(&endpoints.quic);
    settings.modules.edge_hub.websocket.server.clone_from(&endpoints.websocket);
    let mut settings = settings.with(pairs(&order.set)?).map_err(|defect| not_set(&defect))?;
    let warnings = settings.take_counterparts();
    order.config.check(&settings)?;
    if let Some(defect) = settings.defects_here().first() {
        bail!("`{}` {}", defect.key, defect.what);
    }
    let set = pairs(&order.set)?;
    let named = JOINED.into_iter().chain(set.into_iter().map(|(key, _)| key));
    let named: BTreeSet<Vec<String>> = named.map(config::key_parts).collect();
    let defaults = serde_json::to_value(EdgeCore::default())?;
    let said = said(&mut Vec::new(), &serde_json::to_value(&settings)?, Some(&defaults), &named);
    let text = format!("{HEAD}{}", serde_saphyr::to_string(&said.unwrap_or_default())?);
    Ok(Settings { settings, text, warnings })
}

/// What of the settings stands in the file: what is otherwise than by default, and each value that was named, be it the default. What
/// does not stand there is the release's own, so that the next one may have another default, or none of that name.
fn said(
    at: &mut Vec<String>,
    own: &Value,
    default: Option<&Value>,
    named: &BTreeSet<Vec<String>>,
) -> Option<Value> {
    match (own, default) {
        (Value::Object(own), Some(Value::Object(default))) if !default.is_empty() => {
            let mut parts = serde_json::Map::new();
            for (name, own) in own {
                at.push(name.clone());
                if let Some(part) = said(at, own, default.get(name), named) {
                    parts.insert(name.clone(), part);
                }
                at.pop();
            }
            (!parts.is_empty()).then_some(Value::Object(parts))
        }
        (own, Some(default)) if own == default && !named.contains(at) => None,
        (own, _) => Some(own.clone()),
    }
}

/// What stands on both sides of each `--set`.
pub(crate) fn pairs(set: &[String]) -> Result<Vec<(&str, &str)>> {
    set.iter()
        .map(|pair| pair.split_once('=').with_context(|| format!("--set {pair} is not key=value")))
        .collect()
}

fn not_set(defect: &Defect) -> anyhow::Error {
    anyhow::anyhow!("--set: `{}` {}", defect.key, defect.what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(set: &[&str]) -> Result<EdgeCore> {
        let set: Vec<String> = set.iter().map(|pair| (*pair).to_owned()).collect();
        EdgeCore::default().with(pairs(&set)?).map_err(|defect| not_set(&defect))
    }

    #[test]
    fn one_bound_of_eviction_that_is_set_keeps_the_others() {
        let mut wanted = EdgeCore::default();
        let kubelet = &mut wanted.modules.edged.tailored_kubelet_config;
        kubelet.eviction_hard.memory_available = "200Mi".parse().unwrap();
        let key = "modules.edged.tailoredKubeletConfig";
        for pair in [
            r"evictionHard.memory\.available=200Mi",
            r#"evictionHard={"memory.available": "200Mi"}"#,
            r#"={"evictionHard": {"memory.available": "200Mi"}}"#,
        ] {
            let dot = if pair.starts_with('=') { "" } else { "." };
            assert_eq!(with(&[&format!("{key}{dot}{pair}")]).unwrap(), wanted, "{pair}");
        }
        // Of lists that are empty by default one can be given, too.
        let kubelet = &mut wanted.modules.edged.tailored_kubelet_config;
        kubelet.eviction_soft.memory_available = Some("300Mi".parse().unwrap());
        kubelet.eviction_soft_grace_period.memory_available = Some("90s".parse().unwrap());
        wanted.modules.edged.node_labels =
            [("a/b".to_owned(), "1".to_owned()), ("c".to_owned(), "d".to_owned())].into();
        let soft = [
            format!(r"{key}.evictionHard.memory\.available=200Mi"),
            format!(r#"{key}.evictionSoft={{"memory.available": "300Mi"}}"#),
            format!(r"{key}.evictionSoftGracePeriod.memory\.available=90s"),
            "modules.edged.nodeLabels.a/b=1".to_owned(),
            r#"modules.edged.nodeLabels={"a/b": "1", "c": "d"}"#.to_owned(),
        ];
        let soft: Vec<&str> = soft.iter().map(String::as_str).collect();
        assert_eq!(with(&soft).unwrap(), wanted);
        for (pair, words) in [
            (r"evictionHard.memory\.free=1", "memory.free` is no setting"),
            (r#"evictionHard={"memory.free": "1"}"#, "memory.free` is no setting"),
            (r"evictionSoft.memory\.free=1", "memory.free"),
            (r"evictionHard.memory\.available=lots", "no bound"),
        ] {
            let error = format!("{:#}", with(&[&format!("{key}.{pair}")]).unwrap_err());
            assert!(error.contains(words), "{pair}: {error}");
        }
    }

    #[test]
    fn the_file_says_what_is_otherwise_and_what_was_named_and_leaves_the_rest_to_the_release() {
        let pairs = [
            "modules.edgeHub.heartbeat=10",
            "modules.eventBus.mqttMode=2",
            r"modules.edged.tailoredKubeletConfig.evictionHard.memory\.available=200Mi",
            "modules.edged.nodeLabels.a/b=1",
            "database.dataSource=/var/lib/other.db",
        ];
        let order = Join {
            cloud: CloudPorts::new("192.0.2.1:10000", 10002),
            token: String::new(),
            node: "edge-1".to_owned(),
            config: PathBuf::from("/etc/kubehive/edgecore.yaml").into(),
            set: pairs.map(str::to_owned).to_vec(),
            key_uri: None,
        };
        assert_eq!(EdgeCore::default().modules.edge_hub.heartbeat, 10, "named, and the default");
        let node = NodeName::parse("edge-1").unwrap();
        let Settings { settings, text, .. } =
            super::settings(&order, EdgeCore::default(), &node, &order.cloud.endpoints().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("edgecore.yaml");
        fs::write(&file, &text).unwrap();
        assert_eq!(EdgeCore::load(&file).unwrap(), settings);
        let values = text.strip_prefix(HEAD).unwrap();
        let read: Value = serde_saphyr::from_str(values).unwrap();
        let wanted = serde_json::json!({
            "apiVersion": "edgecore.config.kubeedge.io/v1alpha2",
            "kind": "EdgeCore",
            "database": { "dataSource": "/var/lib/other.db" },
            "modules": {
                "edgeHub": {
                    "heartbeat": 10,
                    "httpServer": "https://192.0.2.1:10002",
                    "quic": { "server": "192.0.2.1:10001" },
                    "websocket": { "server": "192.0.2.1:10000" },
                },
                "edged": {
                    "hostnameOverride": "edge-1",
                    "nodeLabels": { "a/b": "1" },
                    "tailoredKubeletConfig": { "evictionHard": { "memory.available": "200Mi" } },
                },
                "eventBus": { "mqttMode": 2 },
            },
        });
        assert_eq!(read, wanted, "{values}");
    }

    #[test]
    fn what_is_no_pair_is_named() {
        assert!(with(&["modules.edgeHub.heartbeat"]).unwrap_err().to_string().contains("is not key=value"));
    }
}
