//! `keadm reset`: a machine is no node any more, and its name is free.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use beehive::Env;
use config::edge::EdgeCore;
use config::parse_host_port;
use edge_store::{HeldStore, StoreError, StoreInspector};
use http::{Request, StatusCode};
use http_body_util::Full;
use pkcs11key::TokenKey;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::config_location::ConfigLocation;
use crate::debug::check;
use crate::files::is_there;
use crate::https::{HttpsRequest, ServerTrust, certified_key, exchange_within};
use crate::logind;
use crate::machine::{self, Machine};
use crate::node_socket::is_shown;

/// 20 s for a name to be given back: CloudCore looks for up to 13 whether somebody else is linked under it.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(20);

/// Gives the name back to the cloud and removes what `join` wrote. A name that is another machine's is given back by nobody here, whatever
/// `force` says.
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
        Err(error) if force => say(format!("the name was not given back ({error:#}); it stays taken there")),
        Err(error) => return Err(not_given_back(error)),
    }
    forget_key_in_token(&settings, say);
    let mut files =
        vec![hub.tls_private_key_file.clone(), hub.tls_cert_file.clone(), hub.tls_ca_file.clone()];
    // A renewal that was cut off leaves its key beside the certificate, whole or in part.
    files.extend(check::identity_files(&settings).leftovers());
    files.push(machine::file(&settings));
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
    // What an update of the settings left of those before.
    let mut before = config.file.clone().into_os_string();
    before.push(".before");
    files.push(before.into());
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
    logind::forget(&Env::real(), say).await
}

/// What `join` and renewals have made in a token goes with the files that name it.
fn forget_key_in_token(settings: &EdgeCore, say: &mut dyn FnMut(String)) {
    let stored = check::identity_files(settings).look();
    let Ok(Some(key)) = stored.map_or(Ok(None), |stored| TokenKey::of_pem(&stored.key)) else { return };
    let token = &key.token().token;
    match key.destroy_others().and_then(|()| key.destroy()) {
        Ok(()) => say(format!("removed the key `{}` in the token `{token}`", key.name())),
        Err(error) => say(format!("the key `{}` stays in the token: {error}", key.name())),
    }
}

/// With the cure, unless the cloud's own words have it.
pub(crate) fn not_given_back(error: anyhow::Error) -> anyhow::Error {
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
        Err(StoreError::InUse { path, by }) => bail!(
            "{by} has {} open, which reset removes: if that is edgecore, stop it first (`systemctl disable --now edgecore`)",
            path.display()
        ),
        Err(error) => Err(error.into()),
    }
}

/// The name of this machine, as a node has it that is given none.
///
/// # Errors
/// When the kernel does not say it.
pub fn host_name() -> Result<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").context("cannot read this host's name")?;
    Ok(name.trim().to_lowercase())
}

/// Why the name in the certificate is another machine's, which has come here with a copied disk: edgecore would not start under it, and whoever runs
/// under it elsewhere would lose his link. `None`: it is this node's. `told`: the settings' name, empty if they have none; `host`: the
/// machine's; `stored`: the one whose store lies here; `differs`: by what this is not the machine that has joined ([`Machine::differs`]).
fn is_of_another(
    certified: &str,
    told: &str,
    host: &str,
    stored: Option<&str>,
    differs: Option<&str>,
) -> Option<String> {
    let why = match (told, stored) {
        ("", _) if host != certified => {
            format!("this machine is `{host}`, and edgecore.yaml has no hostnameOverride")
        }
        (told, _) if !told.is_empty() && told != certified => format!("edgecore.yaml says `{told}`"),
        (_, Some(of)) if of != certified => format!("the store here is of `{of}`"),
        _ => format!("this is not the machine that has joined with it: its {} is another", differs?),
    };
    Some(format!(
        "the name `{certified}` was not given back: the certificate here is of `{certified}`, and {why}; it is another machine's, from whose disk these files were \
         copied. If no machine has that name any more, free it in the cluster: `keadm free {certified}`"
    ))
}

/// By the pair that edgecore would show: where a renewal was cut off, what is in place may be none. Answers what is to be said of it.
async fn give_back_of(settings: &EdgeCore) -> Result<String> {
    let hub = &settings.modules.edge_hub;
    let stored = check::identity_files(settings).look()?;
    let authorities = CertificateDer::pem_slice_iter(stored.authorities.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("cannot read {}", hub.tls_ca_file.display()))?;
    let certificate = CertificateDer::from_pem_slice(stored.certificate.as_bytes())
        .with_context(|| format!("cannot read {}", hub.tls_cert_file.display()))?;
    let identity = certified_key(certificate.clone(), &stored.key)
        .with_context(|| format!("cannot read {}", hub.tls_private_key_file.display()))?;
    let certified = pki::node_of_certificate(&certificate)
        .with_context(|| format!("{} is no node's", hub.tls_cert_file.display()))?;
    let store = &settings.database.data_source;
    let of_store = is_there(store).then(|| StoreInspector::open(store).ok()?.node()).flatten();
    let told = &settings.modules.edged.hostname_override;
    let host = if told.is_empty() { host_name()? } else { String::new() };
    let (own, noted) = (Machine::here(), Machine::noted(&machine::file(settings)));
    let differs = own.differs(&noted);
    if let Some(words) = is_of_another(&certified, told, &host, of_store.as_deref(), differs) {
        return Ok(words);
    }
    let authorities = authorities.iter().map(|der| der.to_vec()).collect();
    give_back(&hub.http_server, authorities, identity).await
}

/// Tells the cloud that the node of this identity is none any more. Answers what it says.
pub(crate) async fn give_back(
    server: &str,
    authorities: Vec<Vec<u8>>,
    identity: CertifiedKey,
) -> Result<String> {
    let address = server.strip_prefix("https://").unwrap_or(server);
    let (host, port) = parse_host_port(address).map_err(anyhow::Error::msg)?;
    let request = Request::delete("/edge.crt").body(Full::default())?;
    let trust = ServerTrust::Authorities(authorities);
    let ask = HttpsRequest { host, port, trust, identity: Some(identity), request };
    let answer = exchange_within(ask, GIVEN_BACK_WITHIN).await?;
    match answer.status {
        StatusCode::OK | StatusCode::NOT_FOUND => Ok(told(address, answer.status, &answer.body)),
        status => bail!("{}", told(address, status, &answer.body)),
    }
}

/// What the server said, made harmless for a terminal.
pub(crate) fn told(at: &str, status: StatusCode, body: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(body).chars().filter(|c| is_shown(*c)).take(1000).collect();
    if text.is_empty() {
        format!("CloudCore at {at} answered {status} and said no more: look at its log")
    } else {
        text
    }
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

    #[test]
    fn a_name_is_another_machines_by_the_settings_the_host_or_the_store() {
        let of = |told, host, stored| is_of_another("edge-1", told, host, stored, None);
        let copied = is_of_another("edge-1", "edge-1", "", Some("edge-1"), Some("machine-id"));
        for own in [of("edge-1", "x", None), of("edge-1", "", Some("edge-1")), of("", "edge-1", None)] {
            assert_eq!(own, None);
        }
        for (other, words) in [
            (of("edge-2", "edge-1", None), "edgecore.yaml says `edge-2`"),
            (of("", "edge-2", Some("edge-1")), "this machine is `edge-2`"),
            (of("edge-1", "", Some("golden")), "the store here is of `golden`"),
            (copied, "its machine-id is another"),
        ] {
            let said = other.unwrap();
            assert!(said.contains(words) && said.contains("`keadm free edge-1`"), "{said}");
        }
    }
}
