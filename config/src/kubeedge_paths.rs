//! KubeEdge's places of the node's keys and certificates, and what they mean here.
//!
//! KubeEdge keeps them in the folder that its mappers mount (`/etc/kubeedge/ca`, `/etc/kubeedge/certs`), most of them as
//! root and writable: a mapper could read the node's key there, and put a CA of its own in. Its users' files name these
//! places all the same, so such a setting is understood as the file's counterpart in a folder of the node alone. Nothing
//! is looked up for that: a link or a file in the mappers' folder decides nothing.

use std::path::{Component, Path, PathBuf};

use crate::edge::{EdgeCore, ExternalTls};
use crate::mappers::{FOLDER, lexical};

/// Folders of KubeEdge's below `/etc/kubeedge` whose files lie in one folder here.
const KUBEEDGES: [&str; 2] = ["ca", "certs"];

/// Where the node's own configuration lies: [`crate::edge::DEFAULT_PATH`].
const OWN: &str = "/etc/kubehive";

/// Every setting that names a key, a certificate, or whom to trust.
fn trusted(settings: &mut EdgeCore) -> [(&'static str, &mut PathBuf); 12] {
    let (hub, services) = (&mut settings.modules.edge_hub, &mut settings.modules.service_bus);
    let (tls, external) = (&mut settings.modules.event_bus.tls, &mut settings.modules.event_bus.external_tls);
    [
        ("modules.edgeHub.tlsCaFile", &mut hub.tls_ca_file),
        ("modules.edgeHub.tlsCertFile", &mut hub.tls_cert_file),
        ("modules.edgeHub.tlsPrivateKeyFile", &mut hub.tls_private_key_file),
        ("modules.eventBus.tls.certFile", &mut tls.cert_file),
        ("modules.eventBus.tls.keyFile", &mut tls.key_file),
        ("modules.eventBus.tls.clientCaFile", &mut tls.client_ca_file),
        ("modules.eventBus.tls.crlFile", &mut tls.crl_file),
        ("modules.eventBus.eventBusTLS.tlsMqttCAFile", &mut external.tls_mqtt_ca_file),
        ("modules.eventBus.eventBusTLS.tlsMqttCertFile", &mut external.tls_mqtt_cert_file),
        ("modules.eventBus.eventBusTLS.tlsMqttPrivateKeyFile", &mut external.tls_mqtt_private_key_file),
        ("modules.serviceBus.tlsCertFile", &mut services.tls_cert_file),
        ("modules.serviceBus.tlsPrivateKeyFile", &mut services.tls_private_key_file),
    ]
}

/// Exchanges every one of them that lies below the mappers' folder for its counterpart, and answers a sentence for each.
/// One without a counterpart stays, and is a defect: where the node's own folder is the mappers', too, and where two
/// different files would become one.
pub(crate) fn take(settings: &mut EdgeCore) -> Vec<String> {
    let external = &mut settings.modules.event_bus.external_tls;
    if !external.enable {
        // KubeEdge's file has places there that nobody reads.
        *external = ExternalTls::default();
    }
    let folder = lexical(&settings.modules.device_twin.dmi_sock_path);
    let own = own_folder(&settings.database.data_source);
    if !folder.is_absolute() || own.starts_with(&folder) {
        return Vec::new();
    }
    let mut taken: Vec<(PathBuf, PathBuf)> = Vec::new();
    let mut said = Vec::new();
    for (key, path) in trusted(settings) {
        let old = lexical(path);
        let Some(new) = counterpart(&old, &folder, &own) else { continue };
        if taken.iter().any(|(before, after)| *after == new && *before != old) {
            continue;
        }
        said.push(format!(
            "`{key}` is `{}`, below the folder that mappers mount ({FOLDER}): it means `{}`, and nothing is read from \
             there",
            path.display(),
            new.display()
        ));
        path.clone_from(&new);
        taken.push((old, new));
    }
    said.extend(take_static_pods(settings, &folder));
    said
}

/// Whoever writes a static pod's file runs what it likes: KubeEdge has that folder among the mappers', too.
fn take_static_pods(settings: &mut EdgeCore, folder: &Path) -> Option<String> {
    let path = &mut settings.modules.edged.tailored_kubelet_config.static_pod_path;
    let new = Path::new(OWN).join(lexical(path).strip_prefix(folder).ok()?.file_name()?);
    if new.starts_with(folder) {
        return None;
    }
    let said = format!(
        "`modules.edged.tailoredKubeletConfig.staticPodPath` is `{}`, below the folder that mappers mount ({FOLDER}): it \
         means `{}`, and nothing is read from there",
        path.display(),
        new.display()
    );
    *path = new;
    Some(said)
}

/// `pki` beside the node's store.
fn own_folder(store: &Path) -> PathBuf {
    lexical(store.parent().unwrap_or(Path::new(""))).join("pki")
}

/// The rule: `FOLDER/certs/server.key` is `server.key` in the node's own folder, `FOLDER/mqtt/server.key` is
/// `mqtt/server.key` there.
fn counterpart(path: &Path, folder: &Path, own: &Path) -> Option<PathBuf> {
    let below = path.strip_prefix(folder).ok()?;
    let mut parts = below.components();
    let first = parts.next()?;
    let kubeedges = |part: Component<'_>| KUBEEDGES.iter().any(|name| part.as_os_str() == *name);
    let rest = parts.as_path();
    let plain = if kubeedges(first) && !rest.as_os_str().is_empty() { rest } else { below };
    Some(own.join(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load;

    /// The paths of the file that KubeEdge's own `edgecore --defaultconfig` prints, with KubeEdge's values of these keys.
    const KUBEEDGE: &str = "
apiVersion: edgecore.config.kubeedge.io/v1alpha2
kind: EdgeCore
database: {dataSource: /var/lib/kubeedge/edgecore.db}
modules:
  edged:
    rootDirectory: /var/lib/kubelet
    podSandboxImage: kubeedge/pause:3.6
    tailoredKubeletConfig:
      podLogsDir: /var/log/pods
      containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
      cgroupDriver: cgroupfs
      clusterDomain: cluster.local
      resolvConf: /etc/resolv.conf
  edgeHub:
    heartbeat: 15
    httpServer: https://cloud.example:10002
    tlsCaFile: /etc/kubeedge/ca/rootCA.crt
    tlsCertFile: /etc/kubeedge/certs/server.crt
    tlsPrivateKeyFile: /etc/kubeedge/certs/server.key
    websocket: {enable: true, server: 'cloud.example:10000'}
    quic: {server: 'cloud.example:10001'}
  deviceTwin: {dmiSockPath: /etc/kubeedge/}
";

    fn parsed(text: &str) -> EdgeCore {
        load::parse(Path::new("edgecore.yaml"), text, crate::kubeedge::EDGECORE).unwrap().config
    }

    #[test]
    fn kubeedges_own_file_works_and_reads_nothing_where_mappers_write() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("edgecore.yaml");
        std::fs::write(&file, KUBEEDGE).unwrap();
        let (settings, said) = EdgeCore::load_with_warnings(&file).unwrap();
        let (hub, default) = (&settings.modules.edge_hub, EdgeCore::default());
        let ours = &default.modules.edge_hub;
        assert_eq!(hub.tls_ca_file, ours.tls_ca_file);
        assert_eq!(hub.tls_cert_file, ours.tls_cert_file);
        assert_eq!(hub.tls_private_key_file, ours.tls_private_key_file);
        assert_eq!(said.len(), 3, "{said:?}");
        for words in
            ["tlsPrivateKeyFile", "/etc/kubeedge/certs/server.key", "/var/lib/kubeedge/pki/server.key"]
        {
            assert!(said[2].contains(words), "{words}: {said:?}");
        }
        assert_eq!(EdgeCore::load(&file).unwrap(), settings);
        let again = serde_saphyr::to_string(&settings).unwrap();
        std::fs::write(&file, again).unwrap();
        assert_eq!(EdgeCore::load_with_warnings(&file).unwrap(), (settings, Vec::new()), "said once");
    }

    #[test]
    fn every_key_and_trust_of_the_settings_has_a_counterpart() {
        let mut settings = EdgeCore::default();
        settings.modules.event_bus.external_tls.enable = true;
        for (at, (_, path)) in trusted(&mut settings).into_iter().enumerate() {
            *path = PathBuf::from(format!("/etc/./kubeedge//mqtt/../certs/{at}.pem"));
        }
        assert_eq!(settings.defects().len(), 12, "not without it: {:?}", settings.defects());
        let said = take(&mut settings);
        assert_eq!(said.len(), 12);
        assert_eq!(settings.modules.event_bus.tls.crl_file, Path::new("/var/lib/kubeedge/pki/6.pem"));
        // What is left has nothing to do with places.
        let left: Vec<String> = settings.defects().into_iter().map(|defect| defect.key).collect();
        assert_eq!(left, [] as [String; 0]);
        // Every file of the settings that is named as KubeEdge names keys and certificates is in the table.
        let tree = serde_json::to_string(&EdgeCore::default()).unwrap();
        let named = [
            "CaFile\"",
            "CAFile\"",
            "caFile\"",
            "CertFile\"",
            "certFile\"",
            "KeyFile\"",
            "keyFile\"",
            "crlFile\"",
        ];
        assert_eq!(named.iter().map(|end| tree.matches(end).count()).sum::<usize>(), 12, "{tree}");
    }

    #[test]
    fn other_folders_keep_their_names_so_that_two_files_stay_two() {
        let mut settings = EdgeCore::default();
        settings.modules.edge_hub.tls_cert_file = PathBuf::from("/etc/kubeedge/certs/server.crt");
        settings.modules.event_bus.tls.cert_file = PathBuf::from("/etc/kubeedge/mqtt/server.crt");
        take(&mut settings);
        let broker = &settings.modules.event_bus.tls.cert_file;
        assert_eq!(broker, Path::new("/var/lib/kubeedge/pki/mqtt/server.crt"));

        let mut settings = EdgeCore::default();
        settings.modules.edge_hub.tls_ca_file = PathBuf::from("/etc/kubeedge/ca/a.crt");
        settings.modules.edge_hub.tls_cert_file = PathBuf::from("/etc/kubeedge/certs/a.crt");
        assert_eq!(take(&mut settings).len(), 1);
        let keys: Vec<String> = settings.defects().into_iter().map(|defect| defect.key).collect();
        assert_eq!(keys, ["modules.edgeHub.tlsCertFile"]);
    }

    #[test]
    fn no_counterpart_lies_below_the_folder_itself() {
        for folder in ["/", "/var", "/var/lib/kubeedge/", "/var/lib/kubeedge/pki"] {
            let mut settings = EdgeCore::default();
            settings.modules.device_twin.dmi_sock_path = PathBuf::from(folder);
            assert_eq!(take(&mut settings), [] as [String; 0]);
            assert!(
                settings.defects().iter().any(|defect| defect.key.ends_with("tlsPrivateKeyFile")),
                "{folder}"
            );
        }
    }

    #[test]
    fn static_pods_are_not_where_mappers_write() {
        let text = "{modules: {edged: {tailoredKubeletConfig: {staticPodPath: /etc/kubeedge/manifests}}}}";
        let mut settings = parsed(text);
        assert_eq!(settings.defects().len(), 1);
        assert_eq!(take(&mut settings).len(), 1);
        let path = &settings.modules.edged.tailored_kubelet_config.static_pod_path;
        assert_eq!((path.as_path(), settings.defects()), (Path::new("/etc/kubehive/manifests"), vec![]));
        let mut elsewhere = parsed("{modules: {edged: {tailoredKubeletConfig: {staticPodPath: /etc/own}}}}");
        assert!(take(&mut elsewhere).is_empty() && elsewhere.defects().is_empty());
    }

    #[test]
    fn nothing_else_is_moved() {
        let text = "{database: {dataSource: /etc/kubeedge/edgecore.db}, modules: {eventBus: {passwordFile: \
                    /etc/kubeedge/passwords}}}";
        let mut settings = parsed(text);
        assert_eq!(take(&mut settings), [] as [String; 0]);
        assert_eq!(settings, parsed(text));
        assert_eq!(settings.defects().len(), 2);
    }
}
