//! How the door is made: its port, its certificate, who may call, and how many at once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use beehive::Env;
use contract::rule_stream::{HEADER_BYTES_MAX, HEADERS_MAX, PATH_MAX};
use https::{ClientCertificates, Http, Limits, Port, Server, Tls};

use crate::door::Door;
use crate::error::DoorError;
use crate::rule_calls::BODY_WITHIN;
use crate::tokens::{Callers, Tokens};

/// 512 connections of callers.
const CALLERS: usize = 512;
/// 64 of them of one token, or of one address where no token is asked for.
pub(crate) const CONNECTIONS_PER_CALLER: usize = 64;
/// 4 KiB of a head beside the path and the headers' names and values.
const HEAD_REST: usize = 4 << 10;
/// 5 s until a connection has shown a token.
const TOKEN_WITHIN: Duration = Duration::from_secs(5);
/// 5 s beyond a node's time for the answer to be on its way.
const BEYOND: Duration = Duration::from_secs(5);

/// How the door is made.
#[derive(Clone)]
pub struct DoorSettings {
    /// The port, bound once: it outlives servers that are started anew.
    pub port: Arc<Port>,
    /// How long a call waits for a node.
    pub within: Duration,
    /// TLS; `None`: HTTP without.
    pub tls: Option<Tls>,
    /// Whether that is with a certificate of the own CA, which is made anew while it is served.
    pub has_own_certificate: bool,
    /// Who may call.
    pub(crate) callers: Callers,
}

impl DoorSettings {
    /// By the settings, which have a door. `own` is the chain and the key (PEM) of the own CA, for where the settings name none. Reads
    /// files: before the hive runs.
    ///
    /// # Errors
    /// See [`DoorError`].
    pub fn open(settings: &config::router::Router, own: (&str, &str)) -> Result<Self, DoorError> {
        let has_own_certificate = !settings.plain_http && settings.tls_cert_file.as_os_str().is_empty();
        let tls = if settings.plain_http {
            tracing::warn!("modules.router.plainHTTP: tokens and bodies at the door can be read on the way");
            None
        } else {
            Some(certificate(settings, own)?)
        };
        let callers = if settings.allow_anonymous {
            tracing::warn!(
                "modules.router.allowAnonymous: whoever reaches the port may call what rules lead to nodes"
            );
            Callers::Anyone
        } else {
            Callers::Holders(Tokens::read(&settings.token_file)?)
        };
        let address =
            (settings.address.parse().unwrap_or(std::net::IpAddr::from([127, 0, 0, 1])), settings.port)
                .into();
        let port = Port::bind(address).map_err(|source| DoorError::Listen { address, source })?;
        tracing::info!(address = %port.address(), "HTTP clients may call what rules lead to nodes");
        let within = Duration::from_secs(settings.rest_timeout.into());
        Ok(DoorSettings { port: Arc::new(port), within, tls, has_own_certificate, callers })
    }

    /// Shows another certificate of the own CA from now on, where one is shown.
    ///
    /// # Errors
    /// When it is not usable. The one before is shown then.
    pub fn show(&self, (chain, key): (&str, &str)) -> Result<(), DoorError> {
        if let Some(tls) = self.tls.as_ref().filter(|_| self.has_own_certificate) {
            tls.replace(&Tls::also_tls12(chain, key, &ClientCertificates::NotAsked)?);
        }
        Ok(())
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Reads the tokens again, if they have changed: on a thread that may wait.
    ///
    /// # Errors
    /// [`DoorError::Tokens`].
    pub(crate) fn read_again(&self) -> Result<bool, DoorError> {
        match &self.callers {
            Callers::Anyone => Ok(false),
            Callers::Holders(tokens) => tokens.read_again(),
        }
    }

    /// Serves there.
    pub(crate) fn serve(&self, door: Door, env: &Env) -> std::io::Result<Server> {
        let limits = Limits {
            users: CALLERS,
            connections_per_user: CONNECTIONS_PER_CALLER,
            credential_within: Some(TOKEN_WITHIN),
            answer_within: Some(self.within + BODY_WITHIN + BEYOND),
            head_bytes: PATH_MAX + HEADER_BYTES_MAX + HEAD_REST,
            header_fields: HEADERS_MAX,
            ..Limits::default()
        };
        Server::start(
            "rules",
            &self.port,
            self.tls.clone(),
            limits,
            env.clock(),
            |_| {},
            move || Http::new(door),
        )
    }
}

fn certificate(settings: &config::router::Router, own: (&str, &str)) -> Result<Tls, DoorError> {
    let read = |path: &PathBuf| {
        let shown = path.display().to_string();
        std::fs::read_to_string(path).map_err(|source| DoorError::Certificate { path: shown, source })
    };
    let (chain, key) = if settings.tls_cert_file.as_os_str().is_empty() {
        (own.0.to_owned(), own.1.to_owned())
    } else {
        (read(&settings.tls_cert_file)?, read(&settings.tls_private_key_file)?)
    };
    Ok(Tls::also_tls12(&chain, &key, &ClientCertificates::NotAsked)?)
}

#[cfg(test)]
mod tests;
