//! Attacks on the stand-alone API over its real socket: floods, slow readers, raw bytes, stolen tokens, other users'
//! eyes on its files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod files;
mod listener;
mod permissions;
mod turns;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use beehive::Env;
use cloud_apiserver::{Running, Settings, start};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) type Stream = TlsStream<TcpStream>;

pub(crate) struct Fixture {
    pub(crate) running: Running,
    pub(crate) admin: String,
    tls: TlsConnector,
    _temp: tempfile::TempDir,
}

pub(crate) fn settings(folder: PathBuf) -> Settings {
    Settings { listen: ([127, 0, 0, 1], 0).into(), data_dir: folder, ..Settings::default() }
}

impl Fixture {
    async fn new() -> Fixture {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("data");
        let running = start(settings(folder.clone()), Env::real()).await.unwrap();
        let admin = std::fs::read_to_string(folder.join("admin.token")).unwrap().trim().to_owned();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(folder.join("ca.crt")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Fixture { running, admin, tls: TlsConnector::from(Arc::new(config)), _temp: temp }
    }

    pub(crate) async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.running.address()).await.unwrap()
    }

    pub(crate) async fn dial(&self) -> std::io::Result<Stream> {
        self.tls.connect(ServerName::try_from("localhost").unwrap(), self.tcp().await).await
    }

    /// Sends bytes on a connection of its own and reads what comes until its end.
    pub(crate) async fn throw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        let Ok(mut stream) = self.dial().await else { return answer };
        // The server may end before it has heard everything.
        let _ = stream.write_all(bytes).await;
        let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
        answer
    }

    /// The code and the body of an answer.
    pub(crate) async fn ask(&self, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.ask_with(token, method, path, "", body).await
    }

    pub(crate) async fn ask_with(
        &self,
        token: &str,
        method: &str,
        path: &str,
        headers: &str,
        body: &Value,
    ) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let text = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: {media}\r\n\
             content-length: {}\r\nconnection: close\r\n{headers}\r\n{body}",
            body.len()
        );
        let answer = self.throw(text.as_bytes()).await;
        (code(&answer), body_of(&answer))
    }

    pub(crate) async fn admin(&self, method: &str, path: &str, body: Value) -> Value {
        let (code, answer) = self.ask(&self.admin, method, path, &body).await;
        assert!((200..300).contains(&code), "{code} {path}: {answer}");
        answer
    }

    /// A token of a service account of `default`, as a pod would have it.
    pub(crate) async fn token(&self, account: &str, spec: Value) -> String {
        let path = format!("/api/v1/namespaces/default/serviceaccounts/{account}/token");
        let answer = self.admin("POST", &path, serde_json::json!({ "spec": spec })).await;
        answer["status"]["token"].as_str().unwrap().to_owned()
    }
}

pub(crate) fn code(answer: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(&answer[..answer.len().min(16)]).into_owned();
    text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default()
}

/// The JSON of an answer, whether it is sent in one or in chunks.
fn body_of(answer: &[u8]) -> Value {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Value::Null };
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return serde_json::from_str(body).unwrap_or(Value::Null);
    }
    let (mut whole, mut rest) = (String::new(), body);
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or_default();
        if length == 0 || after.len() < length {
            break;
        }
        whole.push_str(&after[..length]);
        rest = after[length..].trim_start_matches("\r\n");
    }
    serde_json::from_str(&whole).unwrap_or(Value::Null)
}

/// What this process has in memory, server and attacker together, in bytes.
pub(crate) fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

pub(crate) fn run(test: impl AsyncFnOnce(&Fixture)) {
    actix_rt::System::new().block_on(async {
        let fixture = Fixture::new().await;
        test(&fixture).await;
        fixture.running.stop(Duration::from_secs(5)).await;
    });
}
