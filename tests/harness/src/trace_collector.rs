//! A collector of traces that takes OTLP over HTTP and nothing that is not as it says.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use otlp::trace::{Request, Span};
use otlp::{Attribute, Response};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A span as it came, and of whom.
#[derive(Debug, Clone)]
pub struct CollectedSpan {
    /// `service.name`.
    pub service: String,
    /// `k8s.node.name` of who sent it.
    pub node: Option<String>,
    /// The span.
    pub span: Span,
}

impl CollectedSpan {
    /// What is said of it.
    pub fn attribute(&self, key: &str) -> Option<String> {
        text(&self.span.attributes, key)
    }

    /// As `service: name`.
    pub fn shown(&self) -> String {
        format!("{}: {}", self.service, self.span.name)
    }
}

fn text(attributes: &[Attribute], key: &str) -> Option<String> {
    let found = attributes.iter().find(|own| own.key == key)?;
    found.value.as_ref()?.text.clone()
}

#[derive(Default)]
struct Heard {
    spans: Vec<CollectedSpan>,
    faults: Vec<String>,
}

/// The collector. It ends with the runtime.
pub struct TraceCollector {
    address: SocketAddr,
    heard: Arc<Mutex<Heard>>,
}

impl TraceCollector {
    /// On loopback, at a port of its own.
    pub async fn start() -> TraceCollector {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::<Mutex<Heard>>::default();
        let shared = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, Arc::clone(&shared)));
            }
        });
        TraceCollector { address, heard }
    }

    /// As settings name it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything that came.
    ///
    /// # Panics
    /// When anything came that is not as OTLP has it.
    pub fn spans(&self) -> Vec<CollectedSpan> {
        let heard = self.heard.lock().unwrap();
        assert!(heard.faults.is_empty(), "{:?}", heard.faults);
        heard.spans.clone()
    }

    /// The spans of each trace that begins with one of this name about this object.
    pub fn traces(&self, first: &str, object: &str) -> Vec<Vec<CollectedSpan>> {
        let spans = self.spans();
        let roots = spans.iter().filter(|own| {
            let is_about = own.attribute("k8s.object.name").as_deref() == Some(object);
            own.span.name == first && own.span.parent_span_id.is_empty() && is_about
        });
        let of = |root: &CollectedSpan| {
            spans.iter().filter(|own| own.span.trace_id == root.span.trace_id).cloned().collect()
        };
        roots.map(of).collect()
    }
}

/// Whether each of these spans but one has its parent among them: all that belongs between has come, too.
pub fn is_whole(spans: &[CollectedSpan]) -> bool {
    let ids: BTreeSet<&[u8]> = spans.iter().map(|own| own.span.span_id.as_slice()).collect();
    let orphans = spans.iter().filter(|own| !ids.contains(own.span.parent_span_id.as_slice())).count();
    ids.len() == spans.len() && orphans == 1
}

async fn serve(mut socket: TcpStream, heard: Arc<Mutex<Heard>>) {
    let mut bytes = Vec::new();
    while let Ok(count) = socket.read_buf(&mut bytes).await {
        if count == 0 {
            return;
        }
        let Some((request, length)) = whole(&bytes) else { continue };
        let answer = match request.and_then(|body| read(&body)) {
            Ok(spans) => {
                heard.lock().unwrap().spans.extend(spans);
                let body = Response::default().encode_to_vec();
                format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                )
            }
            Err(fault) => {
                heard.lock().unwrap().faults.push(fault);
                "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_owned()
            }
        };
        bytes.drain(..length);
        if socket.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The body of a request once all of it is there, and how long the request is.
fn whole(bytes: &[u8]) -> Option<(Result<Vec<u8>, String>, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let header = |name: &str| {
        let found = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        found.map(|value| value.trim().to_owned())
    };
    let length: usize = header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    if bytes.len() < end + length {
        return None;
    }
    let is_post = head.starts_with("post /v1/traces http/1.1\r\n");
    let is_protobuf = header("content-type").as_deref() == Some("application/x-protobuf");
    let is_sound = is_post && is_protobuf && header("host").is_some() && length > 0;
    let body = if is_sound { Ok(bytes[end..end + length].to_vec()) } else { Err(head) };
    Some((body, end + length))
}

/// What a body says, if it says nothing else.
fn read(body: &[u8]) -> Result<Vec<CollectedSpan>, String> {
    let request = Request::decode(body).map_err(|error| error.to_string())?;
    // What the messages here do not know would be gone.
    if request.encode_to_vec() != body {
        return Err("there is more in it than is known".to_owned());
    }
    let mut collected = Vec::new();
    for resource in &request.resources {
        let attributes = resource.resource.as_ref().map(|own| own.attributes.as_slice()).unwrap_or_default();
        let service = text(attributes, "service.name").ok_or("no service.name")?;
        text(attributes, "service.version").ok_or("no service.version")?;
        let node = text(attributes, "k8s.node.name");
        for span in resource.scopes.iter().flat_map(|scope| &scope.spans) {
            let is_id = |id: &[u8], length| id.len() == length && id.iter().any(|byte| *byte != 0);
            let is_sound = is_id(&span.trace_id, 16)
                && is_id(&span.span_id, 8)
                && (span.parent_span_id.is_empty() || is_id(&span.parent_span_id, 8))
                && !span.name.is_empty()
                && (1..=5).contains(&span.kind)
                && (1..=span.end).contains(&span.start)
                && span.flags & 1 == 1;
            if !is_sound {
                return Err(format!("{span:?}"));
            }
            collected.push(CollectedSpan {
                service: service.clone(),
                node: node.clone(),
                span: span.clone(),
            });
        }
    }
    Ok(collected)
}
