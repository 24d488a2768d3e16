//! One bare QUIC stream: a length, a kind and a body, and nothing else.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use beehive::link::quic::Credentials;
use beehive::link::tls::PrivateKey;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use s2n_quic::client::Connect;
use s2n_quic::provider::tls::rustls as quic_tls;
use s2n_quic::stream::{ReceiveStream, SendStream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use super::relay::Relay;
use super::{Ca, arrived, loopback};

/// Length and kind.
pub(super) const PREFIX: usize = 5;
const SAY: u8 = 1;
const ECHO: u8 = 2;
const COUNT: u8 = 3;
const ALPN: &[u8] = b"bench";

/// The asking end. The other one is a task.
pub(super) struct RawQuic {
    send: SendStream,
    receive: BufReader<ReceiveStream>,
    _client: s2n_quic::Client,
    _connection: s2n_quic::connection::Handle,
}

impl RawQuic {
    pub(super) async fn connect(ca: &Ca, relayed: bool) -> Result<(RawQuic, Option<Relay>)> {
        let tls = quic_tls::Server::from(Arc::new(server_tls(&ca.issue("cloud")?)?));
        let mut server = s2n_quic::Server::builder()
            .with_tls(tls)?
            .with_io(loopback())?
            .start()
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        let address = server.local_addr()?;
        actix_rt::spawn(async move {
            while let Some(mut connection) = server.accept().await {
                while let Ok(Some(stream)) = connection.accept_bidirectional_stream().await {
                    let (receive, send) = stream.split();
                    // The stream's end is the end of its task.
                    actix_rt::spawn(async move { drop(serve(BufReader::new(receive), send).await) });
                }
            }
        });
        let relay = if relayed { Some(Relay::start(address).await?) } else { None };
        let target = relay.as_ref().map_or(address, |relay| ([127, 0, 0, 1], relay.port).into());
        let tls = quic_tls::Client::from(Arc::new(client_tls(&ca.issue("edge-1")?)?));
        let client = s2n_quic::Client::builder()
            .with_tls(tls)?
            .with_io(loopback())?
            .start()
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        let connection = client.connect(Connect::new(target).with_server_name("127.0.0.1")).await?;
        let mut handle = connection.handle();
        // The connection lives as long as this.
        actix_rt::spawn(async move {
            let mut connection = connection;
            drop(connection.accept_bidirectional_stream().await);
        });
        let (receive, send) = handle.open_bidirectional_stream().await?.split();
        let raw = RawQuic { send, receive: BufReader::new(receive), _client: client, _connection: handle };
        Ok((raw, relay))
    }

    /// Microseconds a message, until the last one has arrived.
    pub(super) async fn flood(&mut self, body: usize, count: u32) -> Result<f64> {
        let begun = Instant::now();
        for _ in 0..count {
            write(&mut self.send, SAY, &vec![b'x'; body]).await?;
        }
        write(&mut self.send, COUNT, &[]).await?;
        let (_, answer) = read(&mut self.receive).await?;
        arrived(&answer, count)?;
        Ok(begun.elapsed().as_secs_f64() * 1e6 / f64::from(count))
    }

    pub(super) async fn echo(&mut self, body: usize) -> Result<f64> {
        let begun = Instant::now();
        write(&mut self.send, ECHO, &vec![b'x'; body]).await?;
        let (_, answer) = read(&mut self.receive).await?;
        if answer.len() != body {
            bail!("{} bytes came back", answer.len());
        }
        Ok(begun.elapsed().as_secs_f64() * 1e6)
    }
}

async fn serve(mut receive: BufReader<ReceiveStream>, mut send: SendStream) -> Result<()> {
    let mut told = 0_u32;
    loop {
        let (kind, body) = read(&mut receive).await?;
        match kind {
            SAY => told += 1,
            ECHO => write(&mut send, ECHO, &body).await?,
            COUNT => write(&mut send, COUNT, &std::mem::take(&mut told).to_be_bytes()).await?,
            other => bail!("kind {other}"),
        }
    }
}

async fn write(send: &mut SendStream, kind: u8, body: &[u8]) -> Result<()> {
    let mut bytes = Vec::with_capacity(PREFIX + body.len());
    bytes.extend(u32::try_from(body.len())?.to_be_bytes());
    bytes.push(kind);
    bytes.extend(body);
    send.write_all(&bytes).await?;
    Ok(())
}

async fn read(receive: &mut BufReader<ReceiveStream>) -> Result<(u8, Vec<u8>)> {
    let length = receive.read_u32().await?;
    let kind = receive.read_u8().await?;
    let mut body = vec![0; usize::try_from(length)?.min(1 << 20)];
    receive.read_exact(&mut body).await?;
    Ok((kind, body))
}

type Material = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, Arc<RootCertStore>);

fn material(credentials: &Credentials) -> Result<Material> {
    let chain =
        CertificateDer::pem_slice_iter(credentials.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let PrivateKey::Pem(key) = &credentials.key else { bail!("the key is in no file") };
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(credentials.authority.as_bytes())?)?;
    Ok((chain, key, Arc::new(roots)))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn server_tls(credentials: &Credentials) -> Result<ServerConfig> {
    let (chain, key, roots) = material(credentials)?;
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .context("the authority")?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn client_tls(credentials: &Credentials) -> Result<ClientConfig> {
    let (chain, key, roots) = material(credentials)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}
