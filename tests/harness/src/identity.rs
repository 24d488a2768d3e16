//! A node's certificate in files of its own, as `keadm join` writes them, for links that are no network paths in memory.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use beehive::Env;
use cloud_hub::SecretStore;
use config::edge::EdgeCore as Settings;
use edge_hub::{Endpoints, NamedServers, NodeCertificates};
use edge_store::Store;
use pkcs11key::{TokenKey, TokenUri};

use crate::enter;

/// Signs for `node` by the CA behind `client`, enters it into the register, and writes certificate, key and CA where `settings` say.
/// The key is made in `token`, if there is one.
pub async fn join(
    client: kube::Client,
    node: &str,
    (life, token): (Duration, Option<&TokenUri>),
    settings: &Settings,
    env: &Env,
) {
    let authority = SecretStore::new(client.clone()).authority(env).await.unwrap();
    let request = match token {
        None => pki::NodeRequest::new(node).unwrap(),
        Some(token) => {
            let key = TokenKey::make(token, node, env.random_id()).unwrap();
            pki::NodeRequest::signed_by(node, &key, key.pem()).unwrap()
        }
    };
    let issued = authority.sign_node(&request.csr_der, node, env.wall(), life, env.random_id()).unwrap();
    enter(client, node, &issued.serial, env.wall()).await;
    let hub = &settings.modules.edge_hub;
    let write = |path: &Path, text: &str| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(&hub.tls_private_key_file, &request.key_pem);
    write(&hub.tls_cert_file, &issued.pem);
    write(&hub.tls_ca_file, authority.cert_pem());
}

/// What `edgecore` makes of those files.
pub fn identity(
    settings: &Settings,
    store: &Store,
    env: &Env,
) -> (Endpoints, Rc<NodeCertificates>, NamedServers) {
    let identity = edge::Identity::read(settings).unwrap();
    let hub = &settings.modules.edge_hub;
    let kept = (store.clone(), edge_hub::kept_servers(store).unwrap());
    let certificates = NodeCertificates::new(
        identity.node,
        (identity.files, identity.stored),
        kept,
        hub.rotate_certificates,
    )
    .unwrap();
    let (quic, clock) = (hub.quic.server.as_str(), env.clock());
    let websocket = if hub.websocket.enable { hub.websocket.server.as_str() } else { "" };
    let endpoints = Endpoints::of_lists(quic, websocket, certificates.live(), &clock).unwrap();
    let named = NamedServers::by(quic, websocket, certificates.live(), &clock).unwrap();
    (endpoints, Rc::new(certificates), named)
}
