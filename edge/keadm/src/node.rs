//! `keadm join` and `keadm reset`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use config::edge::EdgeCore;
use config::parse_host_port;
use contract::NodeName;
use edge_hub::IdentityFiles;
use edge_store::{HeldStore, StoreError, StoreInspector};
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use pki::{JoinToken, NodeRequest};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

use crate::config_location::ConfigLocation;
use crate::endpoints::{CloudPorts, Endpoints};
use crate::files::{is_there, try_write, write};
use crate::https::{HttpsRequest, ServerTrust, exchange};

/// 3 s for a TCP port to answer: two round trips of the worst link that is used, and a lost packet.
const PORT_ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// 16 KiB: more than any file that joining writes.
const FILE_MAX: usize = 16 << 10;

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
}

/// Makes the key here, gets the certificate, writes the files, and says what it did, a line each.
///
/// # Errors
/// A sentence with the cure. No file is left behind then, and the name is given back where the cloud had given it.
pub async fn join(order: &Join, say: &mut dyn FnMut(String)) -> Result<()> {
    let plan = Enrolment::plan(order, EdgeCore::default(), say)?;
    plan.enrol(say).await?;
    say(format!("node `{}` has joined; start edgecore --config {}", plan.node, order.config.file.display()));
    Ok(())
}

/// A join that nothing on this machine stands against.
pub(crate) struct Enrolment<'a> {
    order: &'a Join,
    pub(crate) node: NodeName,
    token: JoinToken,
    endpoints: Endpoints,
    pub(crate) settings: EdgeCore,
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
        let (settings, warnings) = settings(order, base, &node, &endpoints)?;
        let hub = &settings.modules.edge_hub;
        let renewed = IdentityFiles::renewed_beside(&hub.tls_cert_file);
        let written = [&order.config.file, &hub.tls_cert_file, &hub.tls_private_key_file, &hub.tls_ca_file];
        for path in written.into_iter().chain([&renewed]) {
            if is_there(path) {
                bail!("{} is there already: run `keadm reset` first, or move it away", path.display());
            }
        }
        check_store(&settings.database.data_source, &node)?;
        let plan = Enrolment { order, node, token, endpoints, settings };
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

    /// Asks the cloud and writes the files.
    pub(crate) async fn enrol(&self, say: &mut dyn FnMut(String)) -> Result<()> {
        let Enrolment { order, node, token, endpoints, settings } = self;
        let hub = &settings.modules.edge_hub;
        let request = NodeRequest::new(node.as_str())?;
        let ask = Request::get("/edge.crt")
            .header("Authorization", format!("Bearer {}", token.jwt))
            .header("NodeName", node.as_str())
            .body(Full::new(Bytes::from(request.csr_der.clone())))?;
        let trust = ServerTrust::Pin(token.ca_pin.clone());
        let (host, port) = (endpoints.host.clone(), order.cloud.cert);
        let answer = exchange(HttpsRequest { host, port, trust, identity: None, request: ask }).await?;
        if answer.status != StatusCode::OK {
            bail!("{}", told(answer.status, &answer.body));
        }
        say(format!("CloudCore's CA has the hash that the token pins ({}…)", &token.ca_pin[..12]));
        let named =
            pki::node_of_certificate(&answer.body).context("CloudCore did not answer with a certificate")?;
        if named != node.as_str() {
            bail!("CloudCore answered with the certificate of `{named}`");
        }
        let texts = [
            request.key_pem.clone(),
            pki::pem_of("CERTIFICATE", &answer.body),
            pki::pem_of("CERTIFICATE", &answer.ca_der),
            serde_saphyr::to_string(settings)?,
        ];
        if let Err(error) = write_all(&self.places(), &texts, say) {
            let given_back = async {
                let key = PrivateKeyDer::from_pem_slice(request.key_pem.as_bytes())?;
                let identity = (vec![CertificateDer::from(answer.body.clone())], key);
                give_back(&hub.http_server, vec![answer.ca_der.clone()], identity).await
            };
            let told = match given_back.await {
                Ok(_) => "the name was given back; print another token with `keadm gettoken`".to_owned(),
                Err(error) => not_given_back(error).to_string(),
            };
            return Err(error.context(format!("the node has not joined, and {told}")));
        }
        order.config.leave_link(settings).into_iter().for_each(&mut *say);
        say_ports(settings, say).await;
        Ok(())
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

/// Gives the name back to the cloud and removes what `join` wrote.
///
/// # Errors
/// While an edgecore runs on the store. When the cloud cannot be reached and `force` is not set. The files stay then, so that it can be tried again. When
/// mappers or another user could have written the file, which says what is removed.
pub async fn reset(config: &ConfigLocation, force: bool, say: &mut dyn FnMut(String)) -> Result<()> {
    // Also what the file itself would hide.
    config.check(&EdgeCore::default())?;
    if !is_there(&config.file) {
        bail!(
            "{} is not there: this machine is no node, or was reset already; where the file lies elsewhere, name it with --config",
            config.file.display()
        );
    }
    config.check(&EdgeCore::load(&config.file)?)?;
    let settings = nodeupgrade::trusted_settings(&config.file, say)?;
    config.check(&settings)?;
    let hub = &settings.modules.edge_hub;
    // Until the end, so that no edgecore starts on what is being removed.
    let _held = hold_store(&settings.database.data_source)?;
    match give_back_of(&settings).await {
        Ok(words) => say(words),
        Err(error) if force => say(format!("the cloud was not told ({error:#}); the name stays taken there")),
        Err(error) => return Err(not_given_back(error)),
    }
    let mut files =
        vec![hub.tls_private_key_file.clone(), hub.tls_cert_file.clone(), hub.tls_ca_file.clone()];
    // A renewal that was cut off leaves its key beside the certificate, whole or in part.
    files.extend(identity_files(&settings).leftovers());
    // What the node held: the store, its log, copies that an interrupted start left, the key that its secrets are sealed with, and last the lock.
    for suffix in [
        "",
        "-wal",
        "-shm",
        ".salvage",
        ".mended",
        ".restored",
        // KubeEdge's database, while it is read.
        ".import",
        ".import-wal",
        ".import-shm",
        ".import-journal",
        ".replaced",
        ".replaced-wal",
        ".replaced.key",
        ".key",
        ".lock",
    ] {
        let mut file = settings.database.data_source.clone().into_os_string();
        file.push(suffix);
        files.push(file.into());
    }
    files.push(config.file.clone());
    for path in &files {
        match fs::remove_file(path) {
            Ok(()) => say(format!("removed {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot remove {}", path.display())),
        }
    }
    for folder in nodeupgrade::forget(&settings.database.data_source)? {
        say(format!("removed {}", folder.display()));
    }
    if let Some(link) = config.remove_link()? {
        say(format!("removed {}", link.display()));
    }
    Ok(())
}

/// With the cure, unless the cloud's own words have it.
fn not_given_back(error: anyhow::Error) -> anyhow::Error {
    let has_cure = error.to_string().contains("--force");
    error.context(if has_cure {
        "the name was not given back"
    } else {
        "the name was not given back; --force removes the files all the same"
    })
}

/// `None`: there is no store, nor a folder of it.
fn hold_store(path: &Path) -> Result<Option<HeldStore>> {
    if path.parent().is_none_or(|folder| !is_there(folder)) {
        return Ok(None);
    }
    match edge_store::hold(path) {
        Ok(held) => Ok(Some(held)),
        Err(StoreError::InUse { path }) => bail!(
            "edgecore runs on {}, which reset removes: stop it first (`systemctl disable --now edgecore`)",
            path.display()
        ),
        Err(error) => Err(error.into()),
    }
}

fn identity_files(settings: &EdgeCore) -> IdentityFiles {
    let hub = &settings.modules.edge_hub;
    IdentityFiles {
        certificate: hub.tls_cert_file.clone(),
        key: hub.tls_private_key_file.clone(),
        authorities: hub.tls_ca_file.clone(),
    }
}

/// By the pair that edgecore would show: where a renewal was cut off, what is in place may be none.
async fn give_back_of(settings: &EdgeCore) -> Result<String> {
    let hub = &settings.modules.edge_hub;
    let stored = identity_files(settings).look()?;
    let authorities = CertificateDer::pem_slice_iter(stored.authorities.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("cannot read {}", hub.tls_ca_file.display()))?;
    let certificate = CertificateDer::from_pem_slice(stored.certificate.as_bytes())
        .with_context(|| format!("cannot read {}", hub.tls_cert_file.display()))?;
    let key = PrivateKeyDer::from_pem_slice(stored.key.as_bytes())
        .with_context(|| format!("cannot read {}", hub.tls_private_key_file.display()))?;
    let authorities = authorities.iter().map(|der| der.to_vec()).collect();
    give_back(&hub.http_server, authorities, (vec![certificate], key)).await
}

/// Tells the cloud that the node of this identity is none any more. Answers what it says.
async fn give_back(
    server: &str,
    authorities: Vec<Vec<u8>>,
    identity: (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
) -> Result<String> {
    let address = server.strip_prefix("https://").unwrap_or(server);
    let (host, port) = parse_host_port(address).map_err(anyhow::Error::msg)?;
    let request = Request::delete("/edge.crt").body(Full::default())?;
    let trust = ServerTrust::Authorities(authorities);
    let answer = exchange(HttpsRequest { host, port, trust, identity: Some(identity), request }).await?;
    match answer.status {
        StatusCode::OK | StatusCode::NOT_FOUND => Ok(told(answer.status, &answer.body)),
        status => bail!("{}", told(status, &answer.body)),
    }
}

/// What the server said, made harmless for a terminal.
fn told(status: StatusCode, body: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(1000).collect();
    if text.is_empty() { format!("CloudCore answered {status}") } else { text }
}

/// `base`, what joining knows, then `--set`; and a sentence for everything that is taken otherwise.
fn settings(
    order: &Join,
    base: EdgeCore,
    node: &NodeName,
    endpoints: &Endpoints,
) -> Result<(EdgeCore, Vec<String>)> {
    let mut settings = base;
    settings.modules.edged.hostname_override = node.as_str().to_owned();
    settings.modules.edge_hub.http_server.clone_from(&endpoints.https);
    settings.modules.edge_hub.quic.server.clone_from(&endpoints.quic);
    settings.modules.edge_hub.websocket.server.clone_from(&endpoints.websocket);
    let mut tree = serde_json::to_value(&settings)?;
    let defaults = serde_json::to_value(EdgeCore::default())?;
    for pair in &order.set {
        set(&mut tree, &defaults, pair)?;
    }
    let mut settings: EdgeCore =
        serde_json::from_value(tree).context("--set gives a value of the wrong type")?;
    let warnings = settings.take_counterparts();
    order.config.check(&settings)?;
    if let Some(defect) = settings.defects_here().first() {
        bail!("`{}` {}", defect.key, defect.what);
    }
    Ok((settings, warnings))
}

/// One `--set`. As in a file, a section that is given in part keeps the rest; the keys of one that is empty by default, as labels, are
/// the user's own, and their values texts.
fn set(tree: &mut Value, defaults: &Value, pair: &str) -> Result<()> {
    let Some((key, value)) = pair.split_once('=') else { bail!("--set {pair} is not key=value") };
    let at = pointer(key);
    if let Some(config_location) = tree.pointer_mut(&at) {
        let given = match config_location {
            Value::String(_) => Value::from(value),
            _ => serde_json::from_str(value)
                .with_context(|| format!("--set {key}: `{value}` is not of its type"))?,
        };
        return lay(config_location, defaults.pointer(&at), given, key);
    }
    let (section, name) = at.rsplit_once('/').unwrap_or_default();
    match tree.pointer_mut(section) {
        Some(Value::Object(own)) if is_users(defaults.pointer(section)) => {
            own.insert(name.replace("~1", "/").replace("~0", "~"), Value::from(value));
            Ok(())
        }
        _ => bail!("--set {key}: edgecore.yaml has no such key"),
    }
}

fn is_users(default: Option<&Value>) -> bool {
    default.and_then(Value::as_object).is_some_and(serde_json::Map::is_empty)
}

fn lay(location: &mut Value, default: Option<&Value>, given: Value, key: &str) -> Result<()> {
    match (location, given) {
        (Value::Object(own), Value::Object(given)) if !is_users(default) => {
            for (name, value) in given {
                let Some(below) = own.get_mut(&name) else {
                    bail!("--set {key}: edgecore.yaml has no `{name}` there");
                };
                lay(below, default.and_then(|own| own.get(&name)), value, &format!("{key}.{name}"))?;
            }
        }
        (location, given) => *location = given,
    }
    Ok(())
}

/// The JSON pointer of a key as Helm writes it: dots between the parts, `\.` for a dot inside of one.
fn pointer(key: &str) -> String {
    let mut pointer = String::from("/");
    let mut letters = key.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => pointer.extend(letters.next()),
            '.' => pointer.push('/'),
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_about_a_name_that_was_not_given_back_is_said_once() {
        for cause in [
            "cannot reach c:10002",
            "this certificate was replaced: run `keadm reset --force`, then `keadm join`",
        ] {
            let words = daemon::sentence(&not_given_back(anyhow::anyhow!(cause)));
            assert!(words.ends_with(cause) && words.matches("--force").count() == 1, "{words}");
        }
    }

    fn with(pairs: &[&str]) -> Result<EdgeCore> {
        let defaults = serde_json::to_value(EdgeCore::default())?;
        let mut tree = defaults.clone();
        for pair in pairs {
            set(&mut tree, &defaults, pair)?;
        }
        Ok(serde_json::from_value(tree)?)
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
            (r"evictionHard.memory\.free=1", "no such key"),
            (r#"evictionHard={"memory.free": "1"}"#, "no `memory.free` there"),
            (r"evictionSoft.memory\.free=1", "memory.free"),
            (r"evictionHard.memory\.available=lots", "no bound"),
        ] {
            let error = format!("{:#}", with(&[&format!("{key}.{pair}")]).unwrap_err());
            assert!(error.contains(words), "{pair}: {error}");
        }
    }

    #[test]
    fn a_key_of_set_may_hold_dots() {
        assert_eq!(pointer("modules.edged.nodeIP"), "/modules/edged/nodeIP");
        assert_eq!(pointer("a.evictionHard.nodefs\\.available"), "/a/evictionHard/nodefs.available");
        assert_eq!(pointer("labels.x/y~z"), "/labels/x~1y~0z");
    }
}
