//! Who this node is: what `keadm join` wrote.

use std::path::PathBuf;

use config::edge::EdgeCore as Settings;
use contract::NodeName;
use edge_hub::{FilesError, IdentityFiles, StoredIdentity};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;

/// Why the node does not know who it is.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// A file is not there, or is nothing that it should be.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The certificate is not a node's.
    #[error("`{path}` is not the certificate of a node ({reason}): run `keadm reset` and `keadm join`")]
    NotANode {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The config names another node than the certificate.
    #[error(
        "modules.edged.hostnameOverride is `{configured}`, and the certificate is of `{certified}`: make them one"
    )]
    OtherName {
        /// In the config.
        configured: String,
        /// In the certificate.
        certified: String,
    },
}

/// The node's name and what proves it.
pub struct Identity {
    /// The name in the certificate.
    pub node: NodeName,
    /// Where the certificate, its key and the CAs lie.
    pub files: IdentityFiles,
    /// What they hold.
    pub stored: StoredIdentity,
}

impl Identity {
    /// Reads the files that the settings name. A renewal that a power cut has left in part is finished.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn read(settings: &Settings) -> Result<Self, IdentityError> {
        let hub = &settings.modules.edge_hub;
        let files = IdentityFiles {
            certificate: hub.tls_cert_file.clone(),
            key: hub.tls_private_key_file.clone(),
            authorities: hub.tls_ca_file.clone(),
        };
        let stored = files.read()?;
        let not_a_node = |reason: String| IdentityError::NotANode { path: hub.tls_cert_file.clone(), reason };
        let der = CertificateDer::from_pem_slice(stored.certificate.as_bytes())
            .map_err(|error| not_a_node(error.to_string()))?;
        let certified = pki::node_of_certificate(&der).map_err(|error| not_a_node(error.to_string()))?;
        let configured = &settings.modules.edged.hostname_override;
        if !configured.is_empty() && *configured != certified {
            return Err(IdentityError::OtherName { configured: configured.clone(), certified });
        }
        let node = NodeName::parse(&certified).map_err(|error| not_a_node(error.to_string()))?;
        Ok(Identity { node, files, stored })
    }

    /// The common name of the node's certificate (Kubernetes' node authorizer).
    pub fn common_name(&self) -> String {
        format!("system:node:{}", self.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_machine_that_has_not_joined_is_told_to() {
        let mut settings = Settings::default();
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca");
        std::fs::write(&ca, "").unwrap();
        settings.modules.edge_hub.tls_ca_file = ca;
        settings.modules.edge_hub.tls_cert_file = PathBuf::from("/nowhere/server.crt");
        let error = Identity::read(&settings).err().unwrap().to_string();
        assert!(error.contains("/nowhere/server.crt") && error.contains("keadm join"), "{error}");
    }

    #[test]
    fn a_name_that_is_not_the_certificates_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let authority = pki::Authority::create(std::time::SystemTime::now(), [1; 16]).unwrap();
        let request = pki::NodeRequest::new("a").unwrap();
        let issued = authority
            .sign_node(
                &request.csr_der,
                "a",
                std::time::SystemTime::now(),
                std::time::Duration::from_secs(60),
                [2; 16],
            )
            .unwrap();
        let mut settings = Settings::default();
        let hub = &mut settings.modules.edge_hub;
        for (path, text, name) in [
            (&mut hub.tls_cert_file, &issued.pem, "crt"),
            (&mut hub.tls_private_key_file, &request.key_pem, "key"),
            (&mut hub.tls_ca_file, &authority.cert_pem().to_owned(), "ca"),
        ] {
            *path = folder.path().join(name);
            std::fs::write(path, text).unwrap();
        }
        assert_eq!(Identity::read(&settings).unwrap().common_name(), "system:node:a");
        settings.modules.edged.hostname_override = "b".to_owned();
        assert!(matches!(Identity::read(&settings), Err(IdentityError::OtherName { .. })));
        std::fs::write(&settings.modules.edge_hub.tls_cert_file, "nonsense").unwrap();
        assert!(matches!(Identity::read(&settings), Err(IdentityError::NotANode { .. })));
    }

    /// A node's key and certificate and its CA, in KubeEdge's folders below `folder`, or all in one.
    fn files(folder: &Path, apart: bool) -> [PathBuf; 3] {
        let (ca, certs) =
            if apart { (folder.join("ca"), folder.join("certs")) } else { (folder.into(), folder.into()) };
        let now = std::time::SystemTime::now();
        let authority = pki::Authority::create(now, [1; 16]).unwrap();
        let request = pki::NodeRequest::new("a").unwrap();
        let life = std::time::Duration::from_secs(60);
        let issued = authority.sign_node(&request.csr_der, "a", now, life, [2; 16]).unwrap();
        let places = [ca.join("rootCA.crt"), certs.join("server.crt"), certs.join("server.key")];
        for (path, text) in places.iter().zip([authority.cert_pem(), &issued.pem, &request.key_pem]) {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        places
    }

    #[test]
    fn a_ca_and_a_key_that_a_mapper_planted_are_never_read_and_its_links_never_followed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().canonicalize().unwrap();
        let (shared, own) = (path.join("kubeedge"), path.join("own"));
        let planted = files(&shared, true);
        let config = path.join("edgecore.yaml");
        let text = format!(
            "{{database: {{dataSource: {}}}, modules: {{deviceTwin: {{dmiSockPath: {}}}, edgeHub: {{tlsCaFile: {}, \
             tlsCertFile: {}, tlsPrivateKeyFile: {}}}}}}}",
            own.join("edgecore.db").display(),
            shared.display(),
            planted[0].display(),
            planted[1].display(),
            planted[2].display()
        );
        std::fs::write(&config, text).unwrap();
        let settings = Settings::load(&config).unwrap();
        let error = Identity::read(&settings).err().unwrap().to_string();
        assert!(error.contains(own.join("pki/rootCA.crt").to_str().unwrap()), "{error}");

        let genuine = files(&own.join("pki"), false);
        let text = |path: &Path| std::fs::read_to_string(path).unwrap();
        let read = |config: &Path| Identity::read(&Settings::load(config).unwrap()).unwrap().stored;
        let wanted = [text(&genuine[0]), text(&genuine[1]), text(&genuine[2])];
        assert_ne!(wanted[0], text(&planted[0]));
        let seen = read(&config);
        assert_eq!([seen.authorities, seen.certificate, seen.key], wanted);
        let elsewhere = files(&path.join("elsewhere"), false);
        for (planted, target) in planted.iter().zip(&elsewhere) {
            std::fs::remove_file(planted).unwrap();
            std::os::unix::fs::symlink(target, planted).unwrap();
        }
        let seen = read(&config);
        assert_eq!([seen.authorities, seen.certificate, seen.key], wanted);
        // Only the administrator can lead the node's own folder there, and that is refused.
        std::fs::rename(own.join("pki"), path.join("aside")).unwrap();
        std::os::unix::fs::symlink(shared.join("certs"), own.join("pki")).unwrap();
        let error = Settings::load(&config).unwrap_err().to_string();
        assert!(error.contains("3 wrong values"), "{error}");
    }
}
