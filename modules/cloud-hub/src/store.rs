//! What CloudCore keeps, in Secrets of its namespace: the CA and the key of the join tokens.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use beehive::Env;
use http::Request;
use http::header::DATE;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Api, ObjectMeta, PostParams};
use kube::client::Body;
use pki::{Authorities, Authority, AuthorityError, SubjectAltNames, TokenKey};

use crate::certificates::ClockDoubt;
use crate::certificates::record::{AuthorityRecord, Data};
use crate::certificates::rotation::{AuthorityLives, RotationStep, next_step, signing_validity, taken};
use crate::error::{SecretError, SecretName};

/// CloudCore's namespace, where nobody names another: KubeEdge's.
const NAMESPACE: &str = "kubeedge";
/// The CA (KubeEdge's name): `cadata`, `cakeydata`, both PEM.
const CA_SECRET: &str = "casecret";
/// The key of the join tokens: `tokenkey`, 32 random bytes.
const TOKEN_SECRET: &str = "tokenkeysecret";
/// How often a compare-and-swap is tried when others write, too.
const SWAP_TRIES: usize = 10;
/// 30 days, where nobody says otherwise.
const SERVER_LIFE: Duration = Duration::from_secs(30 * 86_400);

fn code_of(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

fn unread(secret: SecretName, source: kube::Error) -> SecretError {
    match source {
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => SecretError::Undecodable(secret),
        source => SecretError::Api { secret, source },
    }
}

/// What a server says of the time (RFC 9110, 6.6.1); `None`: nothing that is understood.
fn date_of(header: &[u8]) -> Option<SystemTime> {
    let date = jiff::fmt::rfc2822::parse(std::str::from_utf8(header).ok()?).ok()?;
    Some(date.timestamp().into())
}

/// The Secrets of CloudCore's namespace. Whoever comes first makes them; everybody else takes what is there.
#[derive(Clone)]
pub struct SecretStore {
    client: kube::Client,
    namespace: String,
    secrets: Api<Secret>,
    namespaces: Api<Namespace>,
    /// Of the clock by which a CA is dated that is made here; `None`: there is none.
    doubt: Option<ClockDoubt>,
}

impl SecretStore {
    /// The Secrets behind `client`, in the namespace `kubeedge`.
    pub fn new(client: kube::Client) -> Self {
        let (secrets, namespaces) = (Api::namespaced(client.clone(), NAMESPACE), Api::all(client.clone()));
        SecretStore { client, namespace: NAMESPACE.to_owned(), secrets, namespaces, doubt: None }
    }

    /// The same, in this namespace.
    #[must_use]
    pub fn in_namespace(self, namespace: &str) -> Self {
        let secrets = Api::namespaced(self.client.clone(), namespace);
        SecretStore { namespace: namespace.to_owned(), secrets, ..self }
    }

    fn named(&self, name: &'static str) -> SecretName {
        SecretName { namespace: self.namespace.clone(), name }
    }

    fn record_of(&self, secret: &Secret) -> Result<AuthorityRecord, SecretError> {
        let empty = Data::new();
        let record = AuthorityRecord::read(secret.data.as_ref().unwrap_or(&empty));
        record.map_err(|key| SecretError::Broken { secret: self.named(CA_SECRET), key })
    }

    /// The same, which dates the first CA by the clock that is behind while there is `doubt` about this machine's.
    #[must_use]
    pub fn doubting(self, doubt: ClockDoubt) -> Self {
        SecretStore { doubt: Some(doubt), ..self }
    }

    /// When a CA begins that is made now.
    fn begin(&self, env: &Env) -> SystemTime {
        self.doubt.as_ref().map_or_else(|| env.wall(), |doubt| doubt.span(&*env.clock()).earliest)
    }

    /// The CA that signs, made if there is none. However many CloudCores start together, all get the same one: creating a Secret
    /// that exists fails, and whoever fails reads.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub async fn authority(&self, env: &Env) -> Result<Authority, SecretError> {
        let (record, _) = self.record(|| Authority::create(self.begin(env), env.random_id())).await?;
        Ok(Authority::from_pem(&record.certificate, &record.key)?)
    }

    /// All CAs that are trusted now. One is made that lives as `lives` say if there is none, and nothing else is written.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub async fn authorities(&self, lives: &AuthorityLives, env: &Env) -> Result<Authorities, SecretError> {
        let (record, _) = self.made_for(lives, env).await?;
        Ok(record.authorities()?)
    }

    /// The same, after the step was taken that is due in giving way to a successor: by one compare-and-swap, so that of all CloudCores
    /// one takes it. Answers which step was taken here. While CloudCore runs no CA is made but as a successor, and none is taken over
    /// that has nothing to do with those that are `known`: whoever deletes or replaces the Secret shuts nobody out before the next start.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub(crate) async fn rotate(
        &self,
        lives: &AuthorityLives,
        known: &Authorities,
        env: &Env,
    ) -> Result<(Authorities, RotationStep), SecretError> {
        for _ in 0..SWAP_TRIES {
            let found = self
                .secrets
                .get_opt(CA_SECRET)
                .await
                .map_err(|source| unread(self.named(CA_SECRET), source))?;
            let mut secret = found.ok_or_else(|| SecretError::Gone(self.named(CA_SECRET)))?;
            let record = self.record_of(&secret)?;
            if !record.authorities()?.is_kin_of(known) {
                return Err(SecretError::Foreign(self.named(CA_SECRET)));
            }
            let now = env.wall();
            let step = next_step(&record, signing_validity(&record)?, lives, now);
            let after = taken(&record, step, lives, now, || env.random_id())?;
            // What cannot be read back is not written.
            let authorities = after.authorities()?;
            if step == RotationStep::Nothing {
                return Ok((authorities, step));
            }
            self.check_clock(env).await?;
            after.write(secret.data.get_or_insert_default());
            match self.secrets.replace(CA_SECRET, &PostParams::default(), &secret).await {
                Ok(_) => return Ok((authorities, step)),
                Err(error) if matches!(code_of(&error), Some(404 | 409)) => {}
                Err(source) => return Err(SecretError::Api { secret: self.named(CA_SECRET), source }),
            }
        }
        Err(SecretError::Contended(self.named(CA_SECRET)))
    }

    /// Whether this machine's clock agrees with the API server's. By a clock that is months off a CA would give way to one that nobody
    /// takes, its predecessor be forgotten before nodes know the successor.
    ///
    /// # Errors
    /// [`SecretError::Clock`]: it does not.
    async fn check_clock(&self, env: &Env) -> Result<(), SecretError> {
        let (doubt, clock) = (ClockDoubt::default(), env.clock());
        self.compare_clocks(&doubt, env).await?;
        let apart = doubt.apart(&*clock).unwrap_or_default();
        if doubt.is(&*clock) { Err(SecretError::Clock { seconds: apart.as_secs() }) } else { Ok(()) }
    }

    /// Holds this machine's clock against the API server's, and notes in `doubt` what it found. A server that says no time leaves no
    /// doubt: the stand-alone API, which has the same clock.
    ///
    /// # Errors
    /// When it does not answer: what was found before counts.
    pub async fn compare_clocks(&self, doubt: &ClockDoubt, env: &Env) -> Result<(), SecretError> {
        let Ok(request) = Request::get("/version").body(Body::empty()) else { return Ok(()) };
        let answer =
            self.client.send(request).await.map_err(|source| unread(self.named(CA_SECRET), source))?;
        let theirs = answer.headers().get(DATE).and_then(|date| date_of(date.as_bytes()));
        doubt.compared(&*env.clock(), theirs);
        Ok(())
    }

    async fn made_for(
        &self,
        lives: &AuthorityLives,
        env: &Env,
    ) -> Result<(AuthorityRecord, Secret), SecretError> {
        self.record(|| Authority::create_for(self.begin(env), lives.own, env.random_id())).await
    }

    /// What the Secret holds, and the Secret.
    async fn record(
        &self,
        make: impl Fn() -> Result<Authority, AuthorityError>,
    ) -> Result<(AuthorityRecord, Secret), SecretError> {
        let secret = self
            .get_or_create(CA_SECRET, || {
                let mut data = Data::new();
                AuthorityRecord::of(&make()?).write(&mut data);
                Ok(data)
            })
            .await?;
        Ok((self.record_of(&secret)?, secret))
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
            .ok_or_else(|| SecretError::Broken { secret: self.named(TOKEN_SECRET), key: "tokenkey" })
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
        let metadata = ObjectMeta { name: Some(self.namespace.clone()), ..ObjectMeta::default() };
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
        let at = |source| unread(self.named(name), source);
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
        Err(SecretError::Contended(self.named(name)))
    }
}

#[cfg(test)]
mod tests;
