//! The page between probes for those who own its facts, a real store, and browsers on a real port.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Address, Capacity, Env, Flow, Hive, Policy};
use bytes::Bytes;
use contract::devicetwin::TwinMsg;
use contract::edged::EdgedMsg;
use contract::edgehub::EdgeHubMsg;
use contract::edgepage::{DevicesView, EdgePageMsg, LinkView, NoPage, NodeView, PageForm, PodView};
use edge_page::{EdgePage, Settings};
use edge_store::{Options, Store};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What a test waits for a fact at the most.
const LONG: Duration = Duration::from_secs(30);

/// In the place of those who own the facts.
struct Owners {
    hub: Probe<EdgeHubMsg>,
    edged: Probe<EdgedMsg>,
    twin: Probe<TwinMsg>,
}

struct Node {
    env: Env,
    page: Address<EdgePageMsg>,
    owners: Owners,
    hive: Hive,
    _folder: tempfile::TempDir,
}

/// A free port, which is somebody's again by a small chance only.
fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn start(address: Option<SocketAddr>) -> Node {
    let env = Env::real();
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("db"), Options::new([1; 16])).unwrap();
    let (hub, to_hub) = Probe::new(&env, 64);
    let (edged, to_edged) = Probe::new(&env, 64);
    let (twin, to_twin) = Probe::new(&env, 64);
    let mut hive = Hive::new("test", env.clone());
    let mailbox = hive.mailbox::<EdgePageMsg>("edge-page", Capacity::new(32, "a test's choice"));
    let page = hive.grant("tester", &mailbox, Flow::Ask);
    hive.supervise(mailbox, Policy::default(), move || {
        let settings = Settings { node: "edge-1".to_owned(), address };
        EdgePage::new(settings, to_hub.clone(), to_edged.clone(), to_twin.clone(), store.clone())
    });
    hive.open().unwrap();
    Node { env, page, owners: Owners { hub, edged, twin }, hive, _folder: folder }
}

fn run(test: impl AsyncFnOnce()) {
    actix_rt::System::new().block_on(test());
}

impl Owners {
    /// Answers one question to each.
    async fn answer_once(&mut self, pod: &str) {
        let Some(EdgeHubMsg::Describe { reply, .. }) = self.hub.next(LONG).await else {
            panic!("the hub is asked")
        };
        reply.send(LinkView { up: true, since_seconds: 61, ..LinkView::default() });
        let Some(EdgedMsg::Describe { reply, bounds }) = self.edged.next(LONG).await else {
            panic!("Edged is asked")
        };
        assert!(bounds.rows <= 128 && bounds.text <= 512, "{bounds:?}");
        let pod = PodView { namespace: "d".to_owned(), name: pod.to_owned(), ..PodView::default() };
        reply.send(NodeView { pods: vec![pod], pods_in_all: 1, ..NodeView::default() });
        let Some(TwinMsg::Describe { reply, .. }) = self.twin.next(LONG).await else {
            panic!("DeviceTwin is asked")
        };
        reply.send(DevicesView::default());
    }

    /// Answers all that comes.
    fn answer_always(mut self, pod: &'static str) {
        actix_rt::spawn(async move {
            loop {
                self.answer_once(pod).await;
            }
        });
    }
}

impl Node {
    async fn view(&self, form: PageForm) -> Result<Bytes, NoPage> {
        self.page.ask(LONG, |reply| EdgePageMsg::View { form, reply }).await.unwrap()
    }

    async fn invitation(&self) -> Result<String, NoPage> {
        self.page.ask(LONG, |reply| EdgePageMsg::Invite { reply }).await.unwrap()
    }

    /// The path of an invitation, once the port is open.
    async fn ticket_path(&self) -> String {
        let url = self.invitation().await.unwrap();
        format!("/{}", url.splitn(4, '/').last().unwrap())
    }
}

/// What a browser sent and was answered.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// One request, byte for byte, on a connection of its own.
async fn send(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("an answer that ends").unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

async fn get(address: SocketAddr, path: &str, more: &str) -> Answer {
    send(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{more}\r\n")).await
}

/// Comes in: the path of the session and its cookie.
async fn come_in(node: &Node, address: SocketAddr) -> (String, String) {
    let entered = get(address, &node.ticket_path().await, "").await;
    assert_eq!(entered.status, 200, "{}", entered.head);
    let cookie = entered.header("set-cookie").unwrap();
    let path = entered.header("refresh").unwrap().strip_prefix("0; url=").unwrap().to_owned();
    for part in ["; HttpOnly", "; SameSite=Strict", "; Max-Age=43200", &format!("; Path={path}")] {
        assert!(cookie.contains(part), "{part}: {cookie}");
    }
    assert!(!cookie.contains("Domain"), "{cookie}");
    (path, format!("Cookie: {}\r\n", cookie.split(';').next().unwrap()))
}

#[test]
fn many_who_look_at_once_have_one_page_made_and_the_next_is_new() {
    run(async || {
        let mut node = start(Some(free_port()));
        let looks = async {
            let pages = futures::join!(
                node.page.ask(LONG, |reply| EdgePageMsg::View { form: PageForm::Html, reply }),
                node.page.ask(LONG, |reply| EdgePageMsg::View { form: PageForm::Json, reply }),
                node.page.ask(LONG, |reply| EdgePageMsg::View { form: PageForm::Html, reply }),
            );
            (pages.0.unwrap().unwrap(), pages.1.unwrap().unwrap(), pages.2.unwrap().unwrap())
        };
        let ((one, json, other), ()) = tokio::join!(looks, node.owners.answer_once("desk"));
        assert_eq!(one, other);
        let json: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!((&json["node"], &json["nodeStatus"]["podsInAll"]), (&"edge-1".into(), &1.into()));
        assert!(String::from_utf8(one.to_vec()).unwrap().contains("d/desk"));
        assert!(node.owners.hub.next(Duration::from_millis(50)).await.is_none(), "they were asked once");
        // Later it is another page.
        node.env.sleep(Duration::from_millis(1100)).await;
        let page = node.page.clone();
        let look = page.ask(LONG, |reply| EdgePageMsg::View { form: PageForm::Html, reply });
        let (later, ()) = tokio::join!(look, node.owners.answer_once("till"));
        assert!(String::from_utf8(later.unwrap().unwrap().to_vec()).unwrap().contains("d/till"));
    });
}

#[test]
fn owners_that_never_answer_hold_up_nothing() {
    run(async || {
        let node = start(Some(free_port()));
        let began = node.env.now();
        let page = node.view(PageForm::Html).await.unwrap();
        assert!(node.env.now().since(began) < Duration::from_secs(10));
        let page = String::from_utf8(page.to_vec()).unwrap();
        assert!(page.contains("EdgeHub does not answer") && page.contains("Waits for the cloud"), "{page}");
    });
}

#[test]
fn it_is_off_unless_it_is_asked_for() {
    run(async || {
        let node = start(None);
        assert_eq!(
            (node.view(PageForm::Json).await, node.invitation().await),
            (Err(NoPage::Off), Err(NoPage::Off))
        );
        assert!(NoPage::Off.to_string().contains("modules.edgePage.enable: true"));
        assert_eq!(node.hive.inspector().report(LONG).await.gauge("page_port_served"), Some(0.0));
    });
}

#[test]
fn a_port_that_is_taken_is_said() {
    run(async || {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let node = start(Some(address));
        let Err(NoPage::NotServed(why)) = node.invitation().await else { panic!("it is another's") };
        assert!(why.contains(&address.to_string()), "{why}");
    });
}

#[test]
fn a_browser_comes_in_once_by_a_ticket_and_stays_by_path_and_cookie() {
    run(async || {
        let address = free_port();
        let node = start(Some(address));
        let url = node.invitation().await.unwrap();
        assert!(url.starts_with(&format!("http://{address}/enter/")), "{url}");
        let (path, cookie) = come_in(&node, address).await;
        let used = node.ticket_path().await;
        assert_eq!(get(address, &used, "").await.status, 200);
        assert_eq!(get(address, &used, "").await.status, 401, "a ticket is good once");
        node.owners.answer_always("till");
        let seen = get(address, &path, &cookie).await;
        assert_eq!(seen.status, 200, "{}", seen.head);
        assert!(seen.body.contains("d/till") && seen.body.contains("linked to the cloud for 1 min 1 s"));
        for (name, value) in [
            ("content-type", "text/html; charset=utf-8"),
            ("refresh", "10"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(seen.header(name), Some(value), "{name}");
        }
        let policy = seen.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        assert!(!seen.head.to_lowercase().contains("access-control"), "{}", seen.head);
        let json = get(address, &format!("{path}page.json"), &cookie).await;
        let read: Value = serde_json::from_str(&json.body).unwrap();
        assert_eq!((json.status, &read["nodeStatus"]["pods"][0]["name"]), (200, &"till".into()));
        assert_eq!(json.header("content-type"), Some("application/json"));
        let head = send(
            address,
            &format!("HEAD {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{cookie}\r\n"),
        )
        .await;
        assert_eq!((head.status, head.body.as_str()), (200, ""));
    });
}

#[test]
fn nobody_else_sees_anything() {
    run(async || {
        let address = free_port();
        let node = start(Some(address));
        let (path, cookie) = come_in(&node, address).await;
        let (other_path, other_cookie) = come_in(&node, address).await;
        let denied = [
            ("/", ""),
            ("/", cookie.as_str()),
            (path.as_str(), ""),
            (path.as_str(), other_cookie.as_str()),
            (other_path.as_str(), cookie.as_str()),
            (path.as_str(), "Cookie: kubehive-page=\r\n"),
            ("/enter/", cookie.as_str()),
            ("/s/", cookie.as_str()),
            ("/page.json", cookie.as_str()),
        ];
        for (path, cookie) in denied {
            let answer = get(address, path, cookie).await;
            assert_eq!(answer.status, 401, "{path} {cookie}");
            assert!(
                answer.body.contains("keadm ctl page") && !answer.body.contains("edge-1"),
                "{}",
                answer.body
            );
            assert_eq!(answer.header("connection"), Some("close"));
        }
        let request = |line: &str, host: &str, more: &str| {
            format!("{line} HTTP/1.1\r\n{host}Connection: close\r\n{cookie}{more}\r\n")
        };
        let own = format!("Host: {address}\r\n");
        let line = format!("GET {path}");
        for (status, request) in [
            (403, request(&line, "Host: evil.example\r\n", "")),
            (403, request(&line, &format!("Host: evil.example:{}\r\n", address.port()), "")),
            (403, request(&format!("GET http://evil.example{path}"), &own, "")),
            (403, request(&line, &format!("{own}Host: evil.example\r\n"), "")),
            (403, request(&line, "", "")),
            (403, request(&line, &own, "Sec-Fetch-Site: cross-site\r\n")),
            (403, request(&line, &own, "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n")),
            // A page that somebody serves at another port of this machine.
            (403, request(&line, &own, "Sec-Fetch-Site: same-site\r\n")),
            (405, request(&format!("POST {path}"), &own, "Content-Length: 0\r\n")),
            (405, request(&format!("PUT {path}"), &own, "Content-Length: 0\r\n")),
            (405, request(&format!("DELETE {path}"), &own, "")),
            (405, request(&format!("OPTIONS {path}"), &own, "Origin: http://evil.example\r\n")),
        ] {
            let answer = send(address, &request).await;
            assert_eq!(answer.status, status, "{request}");
            assert!(
                !answer.body.contains("edge-1") && !answer.head.to_lowercase().contains("access-control")
            );
            assert_eq!(answer.header("allow"), (status == 405).then_some("GET, HEAD"));
        }
        let events = node.env.metrics().clone();
        assert_eq!((events.count_of("page_denied"), events.count_of("page_refused")), (9, 12));
    });
}

#[test]
fn slow_and_many_strangers_keep_no_browser_out() {
    run(async || {
        let address = free_port();
        let node = start(Some(address));
        let (path, cookie) = come_in(&node, address).await;
        // More than there are places, each of which says half a request, or nothing.
        let mut slow = Vec::new();
        for number in 0..200 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let _ = stream.write_all(if number % 2 == 0 { b"GET / HT" } else { b"" }).await;
            slow.push(stream);
        }
        let seen = get(address, &path, &cookie).await;
        assert_eq!(seen.status, 200, "{}", seen.head);
        // Those that stay strangers are sent away.
        let last = slow.last_mut().unwrap();
        let mut left = Vec::new();
        let ended = tokio::time::timeout(LONG, last.read_to_end(&mut left)).await;
        assert!(ended.is_ok(), "who shows nothing is not waited for");
    });
}

#[test]
fn a_hundred_at_once_are_answered_or_told_to_come_again() {
    run(async || {
        let address = free_port();
        let node = start(Some(address));
        let (path, cookie) = come_in(&node, address).await;
        let looks = (0..100).map(|_| get(address, &path, &cookie));
        let statuses: Vec<u16> =
            futures::future::join_all(looks).await.into_iter().map(|answer| answer.status).collect();
        let count = |status| statuses.iter().filter(|own| **own == status).count();
        assert!(count(200) >= 16, "{statuses:?}");
        assert_eq!(count(200) + count(503), 100, "{statuses:?}");
        assert_eq!(get(address, &path, &cookie).await.status, 200, "and then it goes on");
    });
}
