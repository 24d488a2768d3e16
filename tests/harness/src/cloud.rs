//! The enrolment side of a CloudCore: the real server on a port of its own, its Secrets in [`Objects`].

use std::time::{Duration, SystemTime};

use beehive::Env;
use cloud_hub::{Enrolment, EnrolmentServer, Vault};

use crate::Objects;

/// A running enrolment server. Must be made inside an actix system.
pub struct EnrolmentCloud {
    /// The server.
    pub server: EnrolmentServer,
    /// Its CA.
    pub ca_der: Vec<u8>,
    /// The key of its tokens.
    pub token_key: pki::TokenKey,
}

impl EnrolmentCloud {
    /// Starts one on 127.0.0.1.
    pub async fn start(objects: &Objects, env: &Env) -> Self {
        let vault = Vault::new(objects.client());
        let authority = vault.authority(env).await.unwrap();
        let token_key = vault.token_key(env).await.unwrap();
        let (chain, key) =
            Vault::server_certificate(&authority, vec!["127.0.0.1".parse().unwrap()], vec![], env).unwrap();
        let ca_der = authority.cert_der().to_vec();
        let enrolment = Enrolment {
            authority,
            token_key: token_key.clone(),
            vault,
            certificate_life: Duration::from_secs(86_400),
        };
        let server =
            EnrolmentServer::start("127.0.0.1:0".parse().unwrap(), &chain, &key, enrolment, env).unwrap();
        EnrolmentCloud { server, ca_der, token_key }
    }

    /// A whole token that ends `lifetime` seconds from now.
    pub fn token(&self, lifetime: i64, node: Option<&str>) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        self.token_key.mint(&self.ca_der, now.saturating_add_signed(lifetime), "t1", node).unwrap()
    }
}
