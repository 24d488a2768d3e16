//! CloudCore from here: whether its ports answer, whom its certificate is for and of, and what that says of this machine's clock.
//! What is judged is pure.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use beehive::Env;
use beehive::link::Dialer as _;
use beehive::link::quic_dialer::QuicDialer;
use config::edge::EdgeCore;
use config::parse_host_port;
use edge_hub::StoredIdentity;
use nodechecks::Finding;
use nodechecks::clock::{CLOCK, time};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::names;
use crate::store::plain;

const PORTS: &str = "CloudCore";
const QUIC: &str = "Quic";
const CERTIFICATE: &str = "CloudCoreCertificate";
/// 3 s for a port to answer: two round trips of the worst link that is used, and a lost packet. A firewall that drops shows so.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);
/// 3 s more to see the certificate.
const SHOWN_WITHIN: Duration = Duration::from_secs(3);
/// 6 s for a link over QUIC: nothing comes back from one that is blocked.
const QUIC_WITHIN: Duration = Duration::from_secs(6);
/// So many servers are asked.
const SERVERS_MAX: usize = 8;

/// What CloudCore's certificate has to come from.
#[derive(Debug, Clone)]
pub(super) enum Trusted {
    /// One of these, which the node has.
    Authorities(Vec<Vec<u8>>),
    /// The one with this SHA-256, which a token pins.
    Pin(String),
    /// Nobody has said: whatever it shows.
    Anything,
}

/// A port of CloudCore's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    /// What is there, and which key names it.
    pub(super) what: &'static str,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Target { host, port, .. } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// CloudCore's TCP ports by these settings: enrolment's first.
pub(super) fn targets(settings: &EdgeCore) -> Vec<Target> {
    let hub = &settings.modules.edge_hub;
    let mut targets = Vec::new();
    let mut add = |address: &str, what| {
        if let Ok((host, port)) = parse_host_port(address.trim()) {
            targets.push(Target { host, port, what });
        }
    };
    add(hub.http_server.strip_prefix("https://").unwrap_or(&hub.http_server), "modules.edgeHub.httpServer");
    if hub.websocket.enable {
        hub.websocket.server.split(',').for_each(|server| add(server, "modules.edgeHub.websocket.server"));
    }
    targets.truncate(SERVERS_MAX);
    targets
}

/// The hosts of CloudCore that are names.
pub(super) fn host_names(targets: &[Target]) -> Vec<String> {
    let is_name = |host: &&String| host.parse::<std::net::IpAddr>().is_err();
    let mut names: Vec<String> = targets.iter().map(|target| &target.host).filter(is_name).cloned().collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// All that is found of it.
pub(super) async fn look(targets: &[Target], trusted: &Trusted, env: &Env) -> Vec<Finding> {
    if targets.is_empty() {
        let says = "not known before this machine joins: --cloud-hub-server HOST:10002 (or the NodePort, 30002) has it looked at";
        return vec![Finding::passed(PORTS, says)];
    }
    let seen = futures::future::join_all(targets.iter().map(|target| shown(target, env))).await;
    let mut findings = vec![ports(targets, &seen)];
    // Enrolment's comes first; they show the same.
    let first = targets.iter().zip(&seen).find_map(|(target, seen)| Some((target, seen.as_ref().ok()?)));
    if let Some((target, chain)) = first {
        let chain = chain.as_ref().map(Vec::as_slice).map_err(String::as_str);
        findings.extend(judge(target, chain, trusted, env.wall()));
    }
    findings
}

/// What is shown at a port; an inner error: it speaks, and no TLS.
type Seen = Result<Result<Vec<CertificateDer<'static>>, String>, String>;

fn ports(targets: &[Target], seen: &[Seen]) -> Finding {
    let silent = targets.iter().zip(seen).filter_map(|(target, seen)| {
        let why = seen.as_ref().err()?;
        Some(format!("{target} ({}): {why}", target.what))
    });
    let silent: Vec<String> = silent.collect();
    if silent.is_empty() {
        let all: Vec<String> = targets.iter().map(ToString::to_string).collect();
        return Finding::passed(PORTS, format!("TCP answers at {}", all.join(", ")));
    }
    let words = format!(
        "{}: does CloudCore run (`kubectl -n kubeedge get pods`), is the address one of a machine of the cluster, the port the Service's (30000 and 30002, or 10000 \
         and 10002), and does no firewall on the way drop it?",
        silent.join("; ")
    );
    // Where others answer the link is made by these.
    if silent.len() < targets.len() { Finding::warned(PORTS, words) } else { Finding::failed(PORTS, words) }
}

/// The certificates that a server shows. Nothing is said to it but that this end wants TLS.
async fn shown(target: &Target, env: &Env) -> Seen {
    let connect = async {
        let addresses = names::addresses(&target.host, env).await?;
        let addresses: Vec<SocketAddr> =
            addresses.into_iter().map(|ip| SocketAddr::new(ip, target.port)).collect();
        tokio::net::TcpStream::connect(addresses.as_slice()).await.map_err(|error| error.to_string())
    };
    let tcp = match env.timeout(ANSWERS_WITHIN, connect).await {
        Some(Ok(tcp)) => tcp,
        Some(Err(error)) => return Err(plain(&error)),
        None => return Err(format!("no answer within {} s", ANSWERS_WITHIN.as_secs())),
    };
    let recorder = Arc::new(Recorder::default());
    let tls = match recorder.client() {
        Ok(tls) => tls,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let Ok(name) = ServerName::try_from(target.host.clone()) else {
        return Ok(Err(format!("`{}` is no host name", plain(&target.host))));
    };
    let shake = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, tcp);
    let ended = env.timeout(SHOWN_WITHIN, shake).await;
    let chain = std::mem::take(&mut *recorder.chain.lock().unwrap_or_else(PoisonError::into_inner));
    if !chain.is_empty() {
        return Ok(Ok(chain));
    }
    Ok(Err(match ended {
        Some(Ok(_)) => "it shows no certificate".to_owned(),
        Some(Err(error)) => plain(&error.to_string()),
        None => format!("it says nothing within {} s", SHOWN_WITHIN.as_secs()),
    }))
}

/// Writes down what a server shows, and breaks off: it is trusted by nobody.
#[derive(Debug, Default)]
struct Recorder {
    chain: Mutex<Vec<CertificateDer<'static>>>,
}

impl Recorder {
    fn client(self: &Arc<Self>) -> Result<rustls::ClientConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Ok(rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(self) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth())
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let all = std::iter::once(leaf).chain(chain).map(|one| one.clone().into_owned());
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = all.collect();
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// What a server shows, held against whom is trusted, its name and the clock.
fn judge(
    target: &Target,
    chain: Result<&[CertificateDer<'static>], &str>,
    trusted: &Trusted,
    now: SystemTime,
) -> Vec<Finding> {
    let other = |why: String| {
        Finding::failed(
            CERTIFICATE,
            format!(
                "{target} is no CloudCore ({why}): is the port enrolment's (10002, or 30002), and no proxy between?"
            ),
        )
    };
    let chain = match chain {
        Ok([]) => return vec![other("it shows no certificate".to_owned())],
        Ok(chain) => chain,
        Err(why) => return vec![other(why.to_owned())],
    };
    let (leaf, above) = (&chain[0], &chain[1..]);
    let Ok(validity) = pki::validity_of(leaf) else {
        return vec![other("its certificate cannot be read".to_owned())];
    };
    let mut findings = vec![clock(validity.not_before, validity.not_after, now)];
    // One that is out of its time by this clock is judged in the middle of its life: what else is wrong is said, too.
    let at = if validity.holds(now) { now } else { validity.not_before + validity.life() / 2 };
    findings.push(match verify(target, leaf, above, trusted, at) {
        Ok(of) => Finding::passed(CERTIFICATE, format!("{target} shows one for {}{of}", target.host)),
        Err(finding) => finding,
    });
    findings
}

fn verify(
    target: &Target,
    leaf: &CertificateDer<'_>,
    above: &[CertificateDer<'static>],
    trusted: &Trusted,
    at: SystemTime,
) -> Result<&'static str, Finding> {
    let failed = |says: String| Finding::failed(CERTIFICATE, says);
    let (authorities, of): (Vec<CertificateDer<'static>>, &str) = match trusted {
        Trusted::Authorities(all) => {
            (all.iter().cloned().map(CertificateDer::from).collect(), ", of the CA that this node has")
        }
        Trusted::Pin(pin) => (
            above.iter().filter(|one| pki::pin_of(one) == *pin).cloned().collect(),
            ", of the CA that the token pins",
        ),
        Trusted::Anything => (
            above.last().into_iter().cloned().collect(),
            "; whose CA it is of the token tells (--token-file), or the node's own once it has joined",
        ),
    };
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        // One that is none is as good as absent.
        let _ = roots.add(authority);
    }
    let stranger = || {
        let cure = match trusted {
            Trusted::Pin(_) => {
                "print a new token with `keadm gettoken` in that cluster, or look at the address"
            }
            Trusted::Authorities(_) | Trusted::Anything => {
                "look at the address (modules.edgeHub); where CloudCore has a new CA since its Secret casecret was lost, `keadm reset --force` and join again"
            }
        };
        failed(format!(
            "{target} shows a certificate of another CA: it is not this cluster's CloudCore, or something reads along: {cure}"
        ))
    };
    if roots.is_empty() {
        return match trusted {
            // A server that shows its certificate alone.
            Trusted::Anything => Ok("; it shows no CA"),
            Trusted::Authorities(_) | Trusted::Pin(_) => Err(stranger()),
        };
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let name = ServerName::try_from(target.host.clone()).map_err(|error| failed(error.to_string()))?;
    let at = UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).unwrap_or_default());
    match verifier.verify_server_cert(leaf, above, &name, &[], at) {
        Ok(_) => Ok(of),
        Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            presented,
            ..
        })) => {
            let names: Vec<String> = presented.iter().map(|name| plain_name(name)).collect();
            Err(failed(no_such_name(target, &format!(" (it is for {})", names.join(", ")))))
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForName)) => {
            Err(failed(no_such_name(target, "")))
        }
        Err(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => Err(stranger()),
        Err(error) => Err(failed(format!("{target}: {error}: is it CloudCore's port?"))),
    }
}

/// Of `IpAddress(192.0.2.10)` and `DnsName("cloud.example")`, as rustls has them.
fn plain_name(presented: &str) -> String {
    let within = presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(presented);
    plain(within.trim_matches('"'))
}

fn no_such_name(target: &Target, names: &str) -> String {
    format!(
        "CloudCore's certificate is not for {}{names}: put it into modules.cloudHub.advertiseAddress of CloudCore (`keadm init --force \
         --advertise-address=…`; dnsNames for a name) and restart CloudCore, or name an address of these here",
        target.host
    )
}

/// This machine's clock against the life of a certificate of CloudCore's.
fn clock(from: SystemTime, until: SystemTime, now: SystemTime) -> Finding {
    let set = "set it (`timedatectl set-ntp true`, or `date -s`), and let something keep it (systemd-timesyncd, chrony)";
    if now < from {
        return Finding::failed(
            CLOCK,
            format!(
                "it says {}, and CloudCore's certificate began at {}: the clock is behind; {set}",
                time(now),
                time(from)
            ),
        );
    }
    if now > until {
        return Finding::failed(
            CLOCK,
            format!(
                "it says {}, and CloudCore's certificate ended at {}: the clock is ahead; {set}. If it is right, CloudCore has not renewed its own: \
                 look at its log",
                time(now),
                time(until)
            ),
        );
    }
    Finding::passed(CLOCK, format!("{}, within the life of CloudCore's certificate", time(now)))
}

/// Whether UDP passes: a handshake of QUIC, as the node, which says nothing more.
pub(super) async fn quic(
    settings: &EdgeCore,
    identity: Option<&StoredIdentity>,
    env: &Env,
) -> Option<Finding> {
    let server = settings.modules.edge_hub.quic.server.split(',').next()?.trim();
    let (host, port) = parse_host_port(server).ok()?;
    // Without a certificate nobody is let in.
    let identity = identity?;
    let dialer = identity.credentials().and_then(|credentials| QuicDialer::new(&host, port, &credentials));
    let dialer = match dialer {
        Ok(dialer) => dialer,
        Err(error) => return Some(Finding::warned(QUIC, format!("{server} was not asked: {error}"))),
    };
    // The dialer's own search for a name cannot be left behind: it begins once the name is known to be found.
    let dialled = env.timeout(QUIC_WITHIN, async {
        names::addresses(&host, env).await?;
        dialer.dial().await.map(drop).map_err(|error| error.to_string())
    });
    let why = match dialled.await {
        Some(Ok(())) => return Some(Finding::passed(QUIC, format!("UDP passes to {server}"))),
        Some(Err(why)) => plain(&why),
        None => format!("nothing within {} s", QUIC_WITHIN.as_secs()),
    };
    let instead = match settings.modules.edge_hub.websocket.enable {
        true => "the link goes by WebSocket (TCP) until it works, which is slower on bad lines",
        false => "and WebSocket is off (modules.edgeHub.websocket.enable): there is no link",
    };
    let words = format!(
        "{server} (UDP): {why}; {instead}: let UDP to that port pass, and check that it is QUIC's (10001, or 30001)"
    );
    Some(if settings.modules.edge_hub.websocket.enable {
        Finding::warned(QUIC, words)
    } else {
        Finding::failed(QUIC, words)
    })
}

#[cfg(test)]
mod tests;
