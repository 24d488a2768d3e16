//! How a session is opened: what the server offers, whom it is, who we are to it, and what it says when it will not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use framework::Fault;
use opcua_client::{Client, ClientBuilder, IdentityToken};
use opcua_crypto::SecurityPolicy;
use opcua_types::{StatusCode, UserTokenType};
use tokio::time::timeout;

use crate::address::{Address, Login};
use crate::chunk_sizes::CHUNK_MAX;
use crate::connection::Connection;
use crate::connector::Dialler;
use crate::endpoint;
use crate::pki::{OwnCertificate, Pki};
use crate::sizes::{CHUNKS_MAX, ELEMENTS_MAX, MESSAGE_MAX};
use crate::status;

/// What we are to servers that want no certificate.
const URI: &str = "urn:kubehive:opcua-mapper";
/// 5 s between two signs of life, by which also the channel's keys are renewed in time.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// 30 s until a server forgets a session that has lost its connection.
const SESSION_LIFE_MS: u32 = 30_000;
/// 10 min: the keys of a channel, which are renewed when three quarters of it are over.
const CHANNEL_LIFE_MS: u32 = 600_000;
/// 60 s for the answer to a Publish, of which two wait while nothing changes.
const PUBLISH: Duration = Duration::from_secs(60);
/// OPC UA's own.
const PORT: u16 = 4840;

/// Why no session was opened.
pub(crate) struct NotOpened {
    pub(crate) fault: Fault,
    /// Somebody has to do something about it, and the server may count the attempts.
    pub(crate) is_refused: bool,
}

impl From<Fault> for NotOpened {
    fn from(fault: Fault) -> Self {
        NotOpened { fault, is_refused: false }
    }
}

/// Asks what the server offers, looks at its certificate, and opens a session: each connection within `timeout`, all that is asked on the
/// first within twice of it, and on the second within three times of it.
pub(crate) async fn open(address: &Address, pki: &Pki) -> Result<Connection, NotOpened> {
    let is_secure = address.policy != SecurityPolicy::None;
    pki.prepare()?;
    let own = if is_secure || address.certificate.is_some() {
        let (pki, address) = (pki.clone(), address.clone());
        // To make a key takes a while, and the thread is everybody's.
        let made = tokio::task::spawn_blocking(move || pki.own(&address)).await;
        Some(made.map_err(|_| Fault::NotSent("our certificate was not made".to_owned()))??)
    } else {
        None
    };
    pki.clear_checked();
    // The library says of a name that leads nowhere that the server does not answer.
    let found = framework::host::addresses(address.host(), PORT).await;
    found.map_err(|reason| Fault::NotSent(format!("{}: {reason}", address.url)))?;
    let client = client(address, pki, own.as_ref())?;
    let dialler = Dialler::new(&address.url, address.timeout);
    let breached = |words: String| match dialler.breach().words() {
        Some(breach) => format!("{}: {breach}", address.url),
        None => words,
    };
    let offered = timeout(address.timeout * 2, client.get_server_endpoints_from_url(dialler.clone())).await;
    let offered = offered.map_err(|_| Fault::NotSent(format!("{} does not answer", address.url)))?.map_err(
        |error| {
            let words = format!("{} does not say what it offers: {error}", address.url);
            Fault::NotSent(breached(words))
        },
    )?;
    let (endpoint, kind) = endpoint::choose(address, &offered).map_err(Fault::NotSent)?;
    if is_secure {
        if address.is_insecure {
            tracing::warn!(
                url = address.url,
                "the server's certificate is not looked at, because the Device says `insecure`"
            );
        } else {
            pki.check(address, endpoint.server_certificate.as_ref())?;
        }
    }
    let token = token(address, pki, kind, own.as_ref())?;
    let (session, events) = client
        .session_builder()
        .with_connector(dialler.clone())
        .connect_to_endpoint_directly(endpoint)
        .and_then(|session| session.user_identity_token(token).build(Arc::clone(client.certificate_store())))
        .map_err(|error| Fault::NotSent(format!("{}: {error}", address.url)))?;
    session.disable_reconnects();
    let connection = Connection::begin(session, events, dialler.breach().clone());
    match timeout(address.timeout * 3, connection.until_connected()).await {
        Ok(Ok(())) => {}
        Ok(Err(reason)) => return Err(not_opened(address, own.as_ref(), &reason)),
        Err(_) => return Err(Fault::NotSent(format!("{} opens no session", address.url)).into()),
    }
    Ok(connection.look_around().await?)
}

fn client(address: &Address, pki: &Pki, own: Option<&OwnCertificate>) -> Result<Client, Fault> {
    let mut builder = ClientBuilder::new()
        .application_name("KubeHive OPC UA mapper")
        .application_uri(own.map_or(URI, |own| own.uri.as_str()))
        .product_uri(URI)
        .session_name("KubeHive OPC UA mapper")
        .pki_dir(pki.checked())
        // The library's own look comes too late for a password without security, and keeps what it sees: ours came before.
        .trust_server_certs(true)
        .verify_server_certs(false)
        .session_retry_limit(0)
        .recreate_subscriptions(false)
        .keep_alive_interval(KEEP_ALIVE)
        .session_timeout(SESSION_LIFE_MS)
        .channel_lifetime(CHANNEL_LIFE_MS)
        .request_timeout(address.timeout)
        .publish_timeout(PUBLISH)
        .min_publish_interval(Duration::from_millis(20))
        .max_message_size(MESSAGE_MAX)
        .max_chunk_count(CHUNKS_MAX)
        .max_incoming_chunk_size(CHUNK_MAX as usize)
        // A text takes no more memory than the answer that it is in; what a property may have is bounded where that is made.
        .max_string_length(MESSAGE_MAX)
        .max_byte_string_length(MESSAGE_MAX)
        .max_array_length(ELEMENTS_MAX);
    if let Some(own) = own {
        builder = builder.certificate_path(absolute(&own.certificate)?).private_key_path(absolute(&own.key)?);
    }
    builder.client().map_err(|errors| Fault::NotSent(errors.join("; ")))
}

/// The library looks for what is relative below its own folder.
fn absolute(path: &Path) -> Result<PathBuf, Fault> {
    std::path::absolute(path).map_err(|error| Fault::NotSent(format!("`{}`: {error}", path.display())))
}

fn token(
    address: &Address,
    pki: &Pki,
    kind: UserTokenType,
    own: Option<&OwnCertificate>,
) -> Result<IdentityToken, Fault> {
    match (&address.login, kind, own) {
        (Login::User(user, secret), ..) => {
            let password = secret.reveal(pki.folder()).map_err(Fault::NotSent)?;
            Ok(IdentityToken::new_user_name(user, password))
        }
        (Login::Any, UserTokenType::Certificate, Some(own)) => {
            IdentityToken::new_x509_path(&own.certificate, &own.key)
                .map_err(|error| Fault::NotSent(error.to_string()))
        }
        (Login::Any, ..) => Ok(IdentityToken::Anonymous),
    }
}

/// What a server means that opens no session, and what to do about it.
fn not_opened(address: &Address, own: Option<&OwnCertificate>, reason: &str) -> NotOpened {
    let url = &address.url;
    let code = reason.split(':').next().unwrap_or_default();
    let code = code.parse().map_or(StatusCode::Bad, StatusCode::from_category);
    let is_login = status::is_of_login(code);
    let words = match (&address.login, own) {
        (Login::User(user, _), _) if is_login => {
            format!("{url} refuses user `{user}` ({reason}); correct `userName` and `password`")
        }
        (Login::Any, _) if is_login => {
            format!("{url} takes nobody without a name ({reason}); write `userName` and `password`")
        }
        (_, Some(own)) if status::is_of_certificate(code) => format!(
            "{url} does not take our certificate ({reason}); trust it there, by its SHA-1 thumbprint {}: many servers keep new ones in a \
             folder `rejected`; it is `{}`",
            own.thumbprint,
            own.certificate.display()
        ),
        _ => format!("{url} opens no session ({reason})"),
    };
    NotOpened { fault: Fault::NotSent(words), is_refused: is_login }
}
