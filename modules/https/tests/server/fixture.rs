//! A server with a page of every kind, and who calls it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use beehive::Env;
use http::{Request, Response, StatusCode};
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use https::{Answer, Event, Handler, Http, Limits, Peer, Port, Server, Tls, body};
use hyper::body::{Bytes, Frame, Incoming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// What a test waits for a fact at the most.
pub(crate) const LONG: Duration = Duration::from_secs(20);
pub(crate) const SOON: Duration = Duration::from_millis(300);

/// A page of every kind.
#[derive(Clone, Default)]
pub(crate) struct Pages {
    pub(crate) begun: Arc<AtomicUsize>,
    pub(crate) release: Arc<tokio::sync::Notify>,
}

impl Handler for Pages {
    async fn handle(&self, mut request: Request<Incoming>, peer: &Peer) -> Answer {
        self.begun.fetch_add(1, Ordering::SeqCst);
        match request.uri().path() {
            "/" => body::sentence(StatusCode::OK, "hello"),
            "/panic" => panic!("a handler's defect"),
            "/wait" => {
                self.release.notified().await;
                body::sentence(StatusCode::OK, "released")
            }
            "/never" => std::future::pending().await,
            "/who" => {
                let shown = peer.certificate().map(|der| pki::node_of_certificate(der).unwrap());
                body::sentence(StatusCode::OK, shown.unwrap_or_default())
            }
            "/login" => match peer.identify("somebody", false) {
                Ok(()) => body::sentence(StatusCode::OK, "welcome"),
                Err(error) => body::sentence(StatusCode::TOO_MANY_REQUESTS, error.to_string()),
            },
            "/port" => body::sentence(StatusCode::OK, peer.port().port().to_string()),
            "/broken" => {
                let half = futures::stream::once(async { Ok(Frame::data(Bytes::from_static(b"half"))) });
                let release = Arc::clone(&self.release);
                let cut = futures::stream::once(async move {
                    release.notified().await;
                    Err(std::io::Error::other("cut"))
                });
                Response::new(UnsyncBoxBody::new(StreamBody::new(futures::StreamExt::chain(half, cut))))
            }
            "/watch" => {
                let stopping = peer.stopping();
                let lines = futures::stream::once(async { Ok(Frame::data(Bytes::from_static(b"line\n"))) });
                let rest = futures::stream::once(async move {
                    stopping.await;
                    Ok(Frame::data(Bytes::from_static(b"end\n")))
                });
                Response::new(UnsyncBoxBody::new(StreamBody::new(futures::StreamExt::chain(lines, rest))))
            }
            "/flood" => {
                let endless =
                    futures::stream::repeat_with(|| Ok(Frame::data(Bytes::from(vec![0; 64 << 10]))));
                Response::new(UnsyncBoxBody::new(StreamBody::new(endless)))
            }
            "/upgrade" => {
                let upgrade = peer.upgrade(&mut request);
                actix_rt::spawn(async move {
                    let mut bytes = upgrade.await.unwrap();
                    let mut one = [0];
                    while bytes.read_exact(&mut one).await.is_ok() {
                        bytes.write_all(&one).await.unwrap();
                    }
                });
                let mut answer = body::sentence(StatusCode::SWITCHING_PROTOCOLS, "");
                answer.headers_mut().insert("connection", "upgrade".parse().unwrap());
                answer.headers_mut().insert("upgrade", "echo".parse().unwrap());
                answer
            }
            "/body" => {
                let clock = Env::real().clock();
                match body::read(request.body_mut(), 8, SOON / 2, &*clock).await {
                    Ok(bytes) => body::sentence(StatusCode::OK, String::from_utf8(bytes.to_vec()).unwrap()),
                    Err(error) => body::sentence(StatusCode::BAD_REQUEST, error.to_string()),
                }
            }
            _ => body::sentence(StatusCode::NOT_FOUND, ""),
        }
    }
}

pub(crate) struct Fixture {
    pub(crate) env: Env,
    pub(crate) port: Port,
    pub(crate) pages: Pages,
    pub(crate) events: Arc<Mutex<Vec<Event>>>,
    pub(crate) server: Server,
}

impl Fixture {
    pub(crate) fn start(limits: Limits, tls: Option<Tls>) -> Self {
        let (env, pages) = (Env::real(), Pages::default());
        let port = Port::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let events = Arc::new(Mutex::new(Vec::new()));
        let server = serve(&env, &port, limits, tls, &pages, &events);
        Fixture { env, port, pages, events, server }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    pub(crate) async fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let look = async {
            while !is(self) {
                self.env.sleep(Duration::from_millis(5)).await;
            }
        };
        self.env.timeout(LONG, look).await.unwrap_or_else(|| panic!("{what}: {:?}", self.server.counts()));
    }

    pub(crate) async fn ask(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address()).await.unwrap();
        stream.write_all(request(path, "Connection: close\r\n").as_bytes()).await.unwrap();
        self.rest(&mut stream).await
    }

    pub(crate) async fn rest(&self, stream: &mut TcpStream) -> String {
        let mut answer = Vec::new();
        let read = self.env.timeout(LONG, stream.read_to_end(&mut answer)).await;
        let _ = read.expect("the connection does not end");
        String::from_utf8(answer).unwrap()
    }

    pub(crate) async fn is_closed(&self, stream: &mut TcpStream) -> bool {
        let read = self.env.timeout(LONG, stream.read_u8()).await.expect("the connection does not end");
        read.is_err()
    }
}

pub(crate) fn serve(
    env: &Env,
    port: &Port,
    limits: Limits,
    tls: Option<Tls>,
    pages: &Pages,
    events: &Arc<Mutex<Vec<Event>>>,
) -> Server {
    let (on_event, pages) = (on_event(events), pages.clone());
    Server::start("test", port, tls, limits, env.clock(), on_event, move || Http::new(pages)).unwrap()
}

pub(crate) fn on_event(events: &Arc<Mutex<Vec<Event>>>) -> impl Fn(Event) + Send + Sync + 'static {
    let events = Arc::clone(events);
    move |event| events.lock().unwrap().push(event)
}

pub(crate) fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
}

pub(crate) async fn from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, last], 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// The port that a handler sees.
pub(crate) async fn port_of(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request("/port", "Connection: close\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.rsplit("\r\n").next().unwrap().to_owned()
}
