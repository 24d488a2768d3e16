//! The way to an external broker: TCP, and TLS with the files of the settings, which are read at each attempt.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use beehive::Env;
use config::edge::ExternalTls;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::ExternalSettings;
use super::fault::LinkFault;
use crate::access::content;
use crate::listener::prepare;
use crate::plan;
use crate::stream::Stream;

/// A new connection.
pub(super) async fn connect(settings: &ExternalSettings, env: &Env) -> Result<Stream, LinkFault> {
    let server = &settings.server;
    // Before the connection: what cannot be used is said without a broker.
    let config = if server.tls { Some(client_config(&settings.tls, env).await?) } else { None };
    let addresses = addresses(&server.host, server.port, env).await.map_err(LinkFault::NotFound)?;
    let socket = TcpStream::connect(addresses.as_slice()).await.map_err(LinkFault::Unreached)?;
    prepare(&socket);
    let Some(config) = config else { return Ok(Stream::Tcp(socket)) };
    let name = ServerName::try_from(server.host.clone()).map_err(|_| {
        LinkFault::Files(format!("`{}` is no name that a certificate could have", server.host))
    })?;
    let stream = TlsConnector::from(config).connect(name, socket).await.map_err(LinkFault::Handshake)?;
    Ok(Stream::Layered(Box::pin(stream)))
}

/// A name that is not found is no broker that is silent.
async fn addresses(host: &str, port: u16, env: &Env) -> Result<Vec<SocketAddr>, String> {
    let why = match env.timeout(plan::FOUND_WITHIN, lookup_host((host, port))).await {
        Some(Ok(found)) => return Ok(found.collect()),
        Some(Err(error)) => error.to_string(),
        None => format!("the name servers have not answered within {} s", plan::FOUND_WITHIN.as_secs()),
    };
    Err(format!(
        "the name `{host}` is not known ({why}); look at /etc/resolv.conf and /etc/hosts of the node"
    ))
}

async fn client_config(tls: &ExternalTls, env: &Env) -> Result<Arc<ClientConfig>, LinkFault> {
    let tls = tls.clone();
    let read = env.blocking(move || from_files(&tls)).await;
    read.unwrap_or_else(|fault| Err(fault.reason)).map(Arc::new).map_err(LinkFault::Files)
}

fn from_files(tls: &ExternalTls) -> Result<ClientConfig, String> {
    const CA: &str = "eventBusTLS.tlsMqttCAFile";
    const CERT: &str = "eventBusTLS.tlsMqttCertFile";
    const KEY: &str = "eventBusTLS.tlsMqttPrivateKeyFile";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(CA, &tls.tls_mqtt_ca_file)? {
        roots.add(certificate).map_err(|error| format!("{CA}: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    if tls.tls_mqtt_cert_file.as_os_str().is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    let chain = certificates(CERT, &tls.tls_mqtt_cert_file)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes(KEY, &tls.tls_mqtt_private_key_file)?)
        .map_err(|error| format!("{KEY}: {error}"))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| format!("{CERT} and {KEY}: {error}"))
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = bytes(key, path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err(format!("{key}: `{}` holds no certificate in PEM", path.display())),
        Ok(all) => Ok(all),
        Err(error) => Err(format!("{key}: `{}`: {error}", path.display())),
    }
}

fn bytes(key: &str, path: &Path) -> Result<Vec<u8>, String> {
    let read = content(path).map_err(|defect| format!("{key}: `{}` {}", path.display(), defect.what))?;
    Ok(read.bytes)
}
