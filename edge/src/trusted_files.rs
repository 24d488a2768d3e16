//! The node's own files at start: nobody else can exchange what `edgecore` trusts, nor read what is secret.
//!
//! Whoever may write to the settings, to a CA, to a password file, or to a folder on the way to one of them, decides what a
//! process of root does. So each of them is looked at by the rules of `modules/trustedfiles`.

use std::path::{Path, PathBuf};

use config::edge::EdgeCore as Settings;
use edge_hub::IdentityFiles;
use trustedfiles::{ALL, KEY, TrustCheck, TrustedEntry, UntrustedFile, WRITE};

/// The key of the store, whose files are made by edgecore: none of them is a link.
const STORE: &str = "database.dataSource";

/// Every path among the settings that decides what the node does or is secret, and the settings' own. Not among them are
/// pods' folders, which their module looks after, sockets, which say by themselves who listens, the host's resolver file,
/// and the token of the kubelet API on the node, which EdgeStream makes anew at each start.
fn trusted(settings: &Settings, file: &Path) -> Vec<TrustedEntry> {
    let store = &settings.database.data_source;
    let beside = |end: &str| {
        let mut name = store.clone().into_os_string();
        name.push(end);
        PathBuf::from(name)
    };
    let (hub, bus) = (&settings.modules.edge_hub, &settings.modules.event_bus);
    let services = &settings.modules.service_bus;
    let renewed = IdentityFiles::renewed_beside(&hub.tls_cert_file);
    let static_pods = settings.modules.edged.tailored_kubelet_config.static_pod_path.clone();
    let entries = [
        ("--config", file.to_owned(), WRITE),
        (STORE, store.clone(), ALL),
        (STORE, beside("-wal"), ALL),
        (STORE, beside("-shm"), ALL),
        (STORE, beside(".key"), ALL),
        ("modules.edgeHub.tlsCaFile", hub.tls_ca_file.clone(), WRITE),
        ("modules.edgeHub.tlsCertFile", hub.tls_cert_file.clone(), WRITE),
        ("modules.edgeHub.tlsPrivateKeyFile", hub.tls_private_key_file.clone(), ALL),
        // A renewal that a power cut has left in part.
        ("modules.edgeHub.tlsCertFile", renewed, ALL),
        // Whoever writes there has the node run anything.
        ("modules.edged.tailoredKubeletConfig.staticPodPath", static_pods, WRITE),
        ("modules.eventBus.passwordFile", bus.password_file.clone(), WRITE),
        ("modules.eventBus.aclFile", bus.acl_file.clone(), WRITE),
        ("modules.serviceBus.tlsCertFile", services.tls_cert_file.clone(), WRITE),
        ("modules.serviceBus.tlsPrivateKeyFile", services.tls_private_key_file.clone(), KEY),
        ("modules.eventBus.tls.certFile", bus.tls.cert_file.clone(), WRITE),
        ("modules.eventBus.tls.keyFile", bus.tls.key_file.clone(), KEY),
        ("modules.eventBus.tls.clientCaFile", bus.tls.client_ca_file.clone(), WRITE),
        ("modules.eventBus.tls.crlFile", bus.tls.crl_file.clone(), WRITE),
        ("modules.eventBus.eventBusTLS.tlsMqttCAFile", bus.external_tls.tls_mqtt_ca_file.clone(), WRITE),
        ("modules.eventBus.eventBusTLS.tlsMqttCertFile", bus.external_tls.tls_mqtt_cert_file.clone(), WRITE),
        (
            "modules.eventBus.eventBusTLS.tlsMqttPrivateKeyFile",
            bus.external_tls.tls_mqtt_private_key_file.clone(),
            KEY,
        ),
    ];
    let set = entries.into_iter().filter(|(_, path, _)| !path.as_os_str().is_empty());
    set.map(|(key, path, closed)| TrustedEntry { key, path, closed, may_be_link: key != STORE }).collect()
}

/// Looks at every path that the node trusts, the settings in `file` first, and at the folders above, and closes what
/// others could read or exchange. Answers what was repaired, a sentence each, also when something cannot be.
pub fn secure_trusted_files(settings: &Settings, file: &Path) -> (Vec<String>, Result<(), UntrustedFile>) {
    let mut check = TrustCheck::closing(Some(&settings.modules.device_twin.dmi_sock_path));
    let outcome = trusted(settings, file).iter().try_for_each(|trusted| check.path(trusted));
    (check.into_repaired(), outcome)
}

#[cfg(test)]
mod tests;
