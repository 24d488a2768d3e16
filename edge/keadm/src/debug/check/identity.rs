//! What the node is by its files: `edgecore.yaml`, its certificate, key and CAs, or the token that it would join with. What is judged
//! is pure.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use beehive::Env;
use config::edge::EdgeCore;
use edge_hub::{IdentityFiles, StoredIdentity};
use nodechecks::Finding;
use nodechecks::clock::{self, time};
use pkcs11key::TokenKey;
use pki::JoinToken;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

const CONFIGURATION: &str = "Configuration";
const CERTIFICATE: &str = "NodeCertificate";
const KEY: &str = "NodeKey";
const TOKEN: &str = "Token";
/// So many sentences of a file's defects are shown.
const DEFECTS_MAX: usize = 20;
/// 4,000 letters of what is wrong with a file are shown.
const WORDS_MAX: usize = 4000;
/// 1 MiB of a file that is wrong is read again.
const BROKEN_MAX: u64 = 1 << 20;

/// The settings of `edgecore.yaml`, or the defaults; and what is to be said of the file.
pub(crate) fn configuration(file: &Path) -> (EdgeCore, bool, Finding) {
    let shown = file.display();
    if !crate::files::is_there(file) {
        let says = format!(
            "{shown} is not there: this machine has not joined (`keadm join`), or the file lies elsewhere (--config); what follows is looked at \
             with the defaults"
        );
        return (EdgeCore::default(), false, Finding::warned(CONFIGURATION, says));
    }
    match EdgeCore::load_with_warnings(file) {
        Ok((settings, warnings)) if let Err(why) = edge_containermanager::fits(&settings.modules.edged) => {
            let words = format!(
                "edgecore does not start with it: modules.edged.tailoredKubeletConfig and this machine do not fit together: {}",
                crate::store::plain(&why)
            );
            let said = warnings.into_iter().take(DEFECTS_MAX).map(|warning| format!("; {warning}"));
            (settings, true, Finding::failed(CONFIGURATION, words + &said.collect::<String>()))
        }
        Ok((settings, warnings)) if warnings.is_empty() => (
            settings,
            true,
            Finding::passed(CONFIGURATION, format!("{shown} is one that edgecore starts with")),
        ),
        Ok((settings, warnings)) => {
            let said: Vec<String> = warnings.into_iter().take(DEFECTS_MAX).collect();
            (settings, true, Finding::warned(CONFIGURATION, format!("{shown}: {}", said.join("; "))))
        }
        Err(error) => {
            let mut text = format!("{:#}", anyhow::Error::from(error)).replace('\n', "; ");
            text.truncate(text.char_indices().nth(WORDS_MAX).map_or(text.len(), |(at, _)| at));
            let words = format!(
                "edgecore does not start with it: {}; what follows is looked at with the defaults, and in its own store",
                crate::store::plain(&text)
            );
            (of_broken(file), false, Finding::failed(CONFIGURATION, words))
        }
    }
}

/// The defaults, with the store and the name of a file that is otherwise wrong: what the node holds can be looked at all the same.
fn of_broken(file: &Path) -> EdgeCore {
    let mut settings = EdgeCore::default();
    let is_small =
        std::fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.len() < BROKEN_MAX);
    let text = if is_small { std::fs::read_to_string(file).unwrap_or_default() } else { String::new() };
    let Ok(document) = config::yaml_document(&text) else { return settings };
    let text = |pointer: &str| document.pointer(pointer).and_then(|value| value.as_str());
    if let Some(store) = text("/database/dataSource").filter(|path| path.starts_with('/')) {
        settings.database.data_source = PathBuf::from(store);
    }
    if let Some(name) = text("/modules/edged/hostnameOverride") {
        settings.modules.edged.hostname_override = name.to_owned();
    }
    settings
}

/// Where the node's certificate, key and CAs lie.
pub(crate) fn identity_files(settings: &EdgeCore) -> IdentityFiles {
    let hub = &settings.modules.edge_hub;
    IdentityFiles {
        certificate: hub.tls_cert_file.clone(),
        key: hub.tls_private_key_file.clone(),
        authorities: hub.tls_ca_file.clone(),
    }
}

/// The CAs of a file.
pub(super) fn authorities(pem: &str) -> Vec<Vec<u8>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).map(|der| der.to_vec()).collect()
}

/// Whether the token signs that has the node's key; `None`: the key lies in a file.
pub(super) async fn key_in_token(pem: &str, env: &Env) -> Option<Finding> {
    let key = match TokenKey::of_pem(pem) {
        Ok(key) => key?,
        Err(error) => return Some(Finding::failed(KEY, error.to_string())),
    };
    let says = format!("the token `{}` signs with `{}`", key.token().token, key.name());
    let signed = env.blocking(move || key.sign(b"keadm debug check").map(drop)).await;
    Some(match signed {
        Ok(Ok(())) => Finding::passed(KEY, says),
        Ok(Err(error)) => Finding::failed(KEY, error.to_string()),
        Err(fault) => Finding::failed(KEY, fault.reason),
    })
}

/// The node's certificate against its key, its CA, its name and the clock.
pub(super) fn certificate(
    settings: &EdgeCore,
    stored: Result<&StoredIdentity, String>,
    now: SystemTime,
) -> Vec<Finding> {
    let hub = &settings.modules.edge_hub;
    let again = "`keadm reset --force` and join again with a token that is bound to the node's name (`keadm gettoken --edgenode-name`)";
    let stored = match stored {
        Ok(stored) => stored,
        Err(why) => {
            return vec![Finding::failed(
                CERTIFICATE,
                format!("{why}: put the file back from a backup, or {again}"),
            )];
        }
    };
    let failed = |says: String| vec![Finding::failed(CERTIFICATE, says)];
    let file = hub.tls_cert_file.display();
    let Ok(der) = CertificateDer::from_pem_slice(stored.certificate.as_bytes()) else {
        return failed(format!("{file} holds no certificate: {again}"));
    };
    let (Ok(validity), Ok(is_pair)) = (pki::validity_of(&der), pki::is_pair(&der, &stored.key)) else {
        return failed(format!("{file} or {} cannot be read: {again}", hub.tls_private_key_file.display()));
    };
    if !is_pair {
        return failed(format!(
            "{file} is not of the key in {}: {again}",
            hub.tls_private_key_file.display()
        ));
    }
    let authorities = authorities(&stored.authorities);
    if !authorities.iter().any(|authority| pki::is_signed_by(&der, authority)) {
        return failed(format!(
            "{file} is of no CA in {}: the files are of two clusters; {again}",
            hub.tls_ca_file.display()
        ));
    }
    let name = pki::node_of_certificate(&der).unwrap_or_default();
    let told = &settings.modules.edged.hostname_override;
    if !told.is_empty() && *told != name {
        return failed(format!(
            "it is of the node `{name}`, and modules.edged.hostnameOverride is `{told}`: write that name there, or {again}"
        ));
    }
    let mut findings: Vec<Finding> = clock::behind(now, validity.not_before).into_iter().collect();
    let until = time(validity.not_after);
    let left = validity.not_after.duration_since(now).ok();
    findings.push(match left {
        None => Finding::failed(
            CERTIFICATE,
            format!(
                "that of `{name}` ended at {until}: edgecore gets a new one as soon as it reaches CloudCore, within 90 days (edgeCertGraceDuration); after \
                 that {again}"
            ),
        ),
        Some(_) if now > validity.renew_at(1.0) => {
            let why = match hub.rotate_certificates {
                true => "edgecore renews it over its link: is there one (`keadm debug diagnose node`)?",
                false => "modules.edgeHub.rotateCertificates is false: whoever replaces the files is late",
            };
            Finding::warned(CERTIFICATE, format!("that of `{name}` ends at {until}: {why}"))
        }
        Some(_) => Finding::passed(CERTIFICATE, format!("of `{name}`, until {until}")),
    });
    findings
}

/// A token from a file: whether it is whole and not over.
pub(super) fn token(read: Result<String, String>, now: SystemTime) -> (Finding, Option<JoinToken>) {
    let text = match read {
        Ok(text) => text,
        Err(why) => return (Finding::failed(TOKEN, why), None),
    };
    let parsed = JoinToken::parse(&text).and_then(|token| Ok((token.unverified_claims()?, token)));
    let (claims, token) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return (Finding::failed(TOKEN, error.to_string()), None),
    };
    let ends = UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp)).unwrap_or(UNIX_EPOCH);
    let of = claims
        .node
        .map(|node| format!(", for the name `{}`", crate::store::plain(&node)))
        .unwrap_or_default();
    let found = match ends.duration_since(now) {
        Ok(_) => Finding::passed(
            TOKEN,
            format!("whole, until {}{of}; whether it was used up or withdrawn CloudCore knows", time(ends)),
        ),
        Err(_) => Finding::failed(
            TOKEN,
            format!(
                "it ended at {}, by this machine's clock ({}): print a new one with `keadm gettoken`",
                time(ends),
                time(now)
            ),
        ),
    };
    (found, Some(token))
}

/// Those of the files that `join` writes which are there.
pub(crate) fn written(settings: &EdgeCore, config: &Path) -> Vec<PathBuf> {
    let hub = &settings.modules.edge_hub;
    let renewed = IdentityFiles::renewed_beside(&hub.tls_cert_file);
    let all = [config, &hub.tls_cert_file, &hub.tls_private_key_file, &hub.tls_ca_file, &renewed];
    all.into_iter().filter(|path| crate::files::is_there(path)).map(Path::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use nodechecks::Grade::{Failed, Passed, Warned};
    use pki::{Authority, NodeRequest, TokenKey};

    use super::*;
    use crate::debug::testing::grade;

    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(2_000_000_000)
    }

    fn identity(authority: &Authority, node: &str) -> StoredIdentity {
        let request = NodeRequest::new(node).unwrap();
        let issued = authority.sign_node(&request.csr_der, node, now(), 30 * DAY, [1; 16]).unwrap();
        StoredIdentity {
            certificate: pki::pem_of("CERTIFICATE", &issued.der),
            key: request.key_pem,
            authorities: authority.cert_pem().to_owned(),
        }
    }

    #[test]
    fn settings_that_the_machine_does_not_fit_to_are_none_that_edgecore_starts_with() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("edgecore.yaml");
        let found = |list: &str| {
            let text = format!(
                "modules: {{edged: {{tailoredKubeletConfig: {{reservedSystemCPUs: \"{list}\"}}}}}}\n"
            );
            std::fs::write(&file, text).unwrap();
            configuration(&file)
        };
        // 4095: the last that can be named.
        let (settings, has_joined, finding) = found("4095");
        grade(&finding, Failed, "no CPU 4095 that is on");
        assert!(has_joined && settings.modules.edged.tailored_kubelet_config.reserved_system_cpus == "4095");
        assert!(!found("0").2.says.contains("no CPU"));
    }

    #[test]
    fn a_nodes_certificate_has_to_fit_key_ca_name_and_clock() {
        let mut settings = EdgeCore::default();
        settings.modules.edged.hostname_override = "edge-1".to_owned();
        let (authority, other) =
            (Authority::create(now(), [2; 16]).unwrap(), Authority::create(now(), [3; 16]).unwrap());
        let well = identity(&authority, "edge-1");
        let look = |stored: &StoredIdentity, at| certificate(&settings, Ok(stored), at);
        let [found] = &look(&well, now())[..] else { panic!("one") };
        grade(found, Passed, "of `edge-1`, until ");
        grade(&look(&well, now() + 28 * DAY)[0], Warned, "diagnose node");
        grade(&look(&well, now() + 31 * DAY)[0], Failed, "ended at ");
        grade(&look(&well, UNIX_EPOCH)[0], Failed, "the clock is behind");
        grade(&look(&identity(&authority, "edge-2"), now())[0], Failed, "of the node `edge-2`");
        let mixed = StoredIdentity { key: identity(&authority, "edge-1").key, ..well.clone() };
        grade(&look(&mixed, now())[0], Failed, "is not of the key");
        let foreign = StoredIdentity { authorities: other.cert_pem().to_owned(), ..well.clone() };
        grade(&look(&foreign, now())[0], Failed, "two clusters");
        let torn = StoredIdentity { certificate: "-----BEGIN".to_owned(), ..well };
        grade(&look(&torn, now())[0], Failed, "holds no certificate");
        grade(
            &certificate(&settings, Err("x is gone".to_owned()), now())[0],
            Failed,
            "x is gone: put the file back",
        );
    }

    #[test]
    fn a_token_that_is_torn_or_over_is_told_before_it_is_used() {
        let mint = |exp: u64, node| TokenKey::new(&[1; 32]).unwrap().mint(b"ca", exp, "id", node).unwrap();
        let good = mint(2_000_000_100, Some("edge-1"));
        let (found, parsed) = token(Ok(good.clone()), now());
        grade(&found, Passed, "for the name `edge-1`");
        assert_eq!(parsed.unwrap().ca_pin, pki::pin_of(b"ca"));
        grade(&token(Ok(good[1..].to_owned()), now()).0, Failed, "paste it whole");
        grade(&token(Ok(mint(1_999_999_999, None)), now()).0, Failed, "print a new one");
        grade(&token(Err("no such file".to_owned()), now()).0, Failed, "no such file");
    }

    /// The file is really wrong.
    #[test]
    fn a_file_that_edgecore_does_not_start_with_is_told_with_its_defects() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("edgecore.yaml");
        let (_, is_read, found) = configuration(&file);
        grade(&found, Warned, "has not joined");
        assert!(!is_read);
        std::fs::write(&file, "modules: {edgeHub: {heartbeet: 7}}\ndatabase: {dataSource: /x/y.db}").unwrap();
        let (settings, _, found) = configuration(&file);
        grade(&found, Failed, "heartbeet");
        assert_eq!(
            settings.database.data_source,
            Path::new("/x/y.db"),
            "its store is looked at all the same"
        );
        std::fs::write(&file, ": {{{").unwrap();
        grade(&configuration(&file).2, Failed, "edgecore does not start");
    }
}
