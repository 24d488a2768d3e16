//! What CloudCore keeps, in Secrets of namespace `kubeedge`: the CA and the key of the join tokens.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use beehive::Env;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Api, ObjectMeta, PostParams};
use pki::{Authority, SubjectAltNames, TokenKey};

use crate::error::SecretError;

/// Where KubeEdge keeps its Secrets.
const NAMESPACE: &str = "kubeedge";
/// The CA (KubeEdge's name): `cadata`, `cakeydata`, both PEM.
const CA_SECRET: &str = "casecret";
/// The key of the join tokens: `tokenkey`, 32 random bytes.
const TOKEN_SECRET: &str = "tokenkeysecret";
/// How often a compare-and-swap is tried when others write, too.
const SWAP_TRIES: usize = 10;
/// A year, as KubeEdge's node certificates; the server's is made anew at each start.
const SERVER_LIFE: Duration = Duration::from_secs(365 * 86_400);

fn code_of(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// The Secrets of namespace `kubeedge`. Whoever comes first makes them; everybody else takes what is there.
#[derive(Clone)]
pub struct SecretStore {
    secrets: Api<Secret>,
    namespaces: Api<Namespace>,
}

type Data = BTreeMap<String, ByteString>;

impl SecretStore {
    /// The Secrets behind `client`.
    pub fn new(client: kube::Client) -> Self {
        SecretStore { secrets: Api::namespaced(client.clone(), NAMESPACE), namespaces: Api::all(client) }
    }

    /// The CA, made if there is none. However many CloudCores start together, all get the same one: creating a Secret
    /// that exists fails, and whoever fails reads.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub async fn authority(&self, env: &Env) -> Result<Authority, SecretError> {
        let secret = self
            .get_or_create(CA_SECRET, || {
                let authority = Authority::create(env.wall(), env.random_id())?;
                Ok(Data::from([
                    ("cadata".to_owned(), ByteString(authority.cert_pem().as_bytes().to_vec())),
                    ("cakeydata".to_owned(), ByteString(authority.key_pem().as_bytes().to_vec())),
                ]))
            })
            .await?;
        let text = |key: &'static str| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key));
            let text = bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
            text.ok_or(SecretError::Broken { secret: CA_SECRET, key })
        };
        Ok(Authority::from_pem(&text("cadata")?, &text("cakeydata")?)?)
    }

    /// The key of the join tokens, made if there is none.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub async fn token_key(&self, env: &Env) -> Result<TokenKey, SecretError> {
        let secret = self
            .get_or_create(TOKEN_SECRET, || {
                let mut key = env.random_id().to_vec();
                key.extend(env.random_id());
                Ok(Data::from([("tokenkey".to_owned(), ByteString(key))]))
            })
            .await?;
        let bytes = secret.data.as_ref().and_then(|data| data.get("tokenkey"));
        bytes
            .and_then(|bytes| TokenKey::new(&bytes.0))
            .ok_or(SecretError::Broken { secret: TOKEN_SECRET, key: "tokenkey" })
    }

    /// A server's chain for these addresses and names, and its key, both PEM. The CA stands in the chain, so that a node
    /// can find the one that its token pins.
    ///
    /// # Errors
    /// When a name is no DNS name.
    pub fn server_certificate(
        authority: &Authority,
        addresses: Vec<IpAddr>,
        names: Vec<String>,
        env: &Env,
    ) -> Result<(String, String), SecretError> {
        let alt_names = SubjectAltNames { addresses, names };
        let (cert, key) = authority.server(&alt_names, env.wall(), SERVER_LIFE, env.random_id())?;
        Ok((format!("{}{}", cert.pem, authority.cert_pem()), key))
    }

    /// The YAML that ships makes it, so that CloudCore's account has no right to: only who applied none comes here.
    async fn make_namespace(&self) -> Result<(), kube::Error> {
        let metadata = ObjectMeta { name: Some(NAMESPACE.to_owned()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        match self.namespaces.create(&PostParams::default(), &namespace).await {
            Ok(_) => Ok(()),
            Err(error) if code_of(&error) == Some(409) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn get_or_create(
        &self,
        name: &'static str,
        make: impl Fn() -> Result<Data, SecretError>,
    ) -> Result<Secret, SecretError> {
        let at = |source| match source {
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => SecretError::Undecodable(name),
            source => SecretError::Api { secret: name, source },
        };
        for _ in 0..SWAP_TRIES {
            if let Some(secret) = self.secrets.get_opt(name).await.map_err(at)? {
                return Ok(secret);
            }
            let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
            let secret = Secret { metadata, data: Some(make()?), ..Secret::default() };
            match self.secrets.create(&PostParams::default(), &secret).await {
                Ok(secret) => return Ok(secret),
                Err(error) if code_of(&error) == Some(409) => {}
                Err(error) if code_of(&error) == Some(404) => self.make_namespace().await.map_err(at)?,
                Err(error) => return Err(at(error)),
            }
        }
        Err(SecretError::Contended(name))
    }
}
