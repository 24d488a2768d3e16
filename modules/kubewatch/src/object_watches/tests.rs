//! The named watches against an API server of a few lines, on the simulated clock.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};

use super::*;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What the server holds, and what it was asked.
#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    watches: Vec<(String, mpsc::UnboundedSender<Bytes>)>,
    /// Lists and opened watches, with the user who asked.
    asked: Vec<(&'static str, String, String)>,
    /// Names that are refused to these users, or to everybody.
    refused: BTreeMap<String, Option<String>>,
    away: bool,
    /// Watches are cut off as soon as they are open; lists work.
    cuts_watches: bool,
    version: u64,
}

#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(&request)) }
        });
        Client::new(service, "default")
    }

    fn answer(&self, request: &Request<kube::client::Body>) -> Response<Body> {
        let mut state = self.0.lock().unwrap();
        let query = request.uri().query().unwrap_or_default();
        let name = query.split('&').find_map(|part| part.strip_prefix("fieldSelector=metadata.name%3D"));
        // Nothing is ever listed or watched that was not named, in its namespace.
        let name = name.expect("a name").to_owned();
        assert!(request.uri().path().starts_with("/api/v1/namespaces/d/"), "{}", request.uri());
        let user = request.headers().get("impersonate-user").map(|user| user.to_str().unwrap().to_owned());
        let user = user.unwrap_or_default();
        let watches = query.contains("watch=true");
        state.asked.push((if watches { "watch" } else { "list" }, name.clone(), user.clone()));
        if state.away {
            return status(503, "away");
        }
        if state.refused.get(&name).is_some_and(|to| to.as_ref().is_none_or(|to| *to == user)) {
            return status(403, "no relationship found");
        }
        if watches {
            let (lines, told) = mpsc::unbounded();
            if state.cuts_watches {
                let _ = lines.unbounded_send(Bytes::from_static(b"nonsense\n"));
            }
            state.watches.push((name, lines));
            return Response::new(UnsyncBoxBody::new(StreamBody::new(
                told.map(|line| Ok(http_body::Frame::data(line))),
            )));
        }
        let items: Vec<&Value> = state.objects.get(&name).into_iter().collect();
        let list = json!({ "kind": "List", "apiVersion": "v1",
            "metadata": { "resourceVersion": state.version.to_string() }, "items": items });
        whole(StatusCode::OK, &list)
    }

    fn put(&self, name: &str, value: Option<&str>) {
        let mut state = self.0.lock().unwrap();
        state.version += 1;
        let version = state.version.to_string();
        let metadata = json!({ "namespace": "d", "name": name, "uid": name, "resourceVersion": version });
        let object =
            json!({ "kind": "Secret", "apiVersion": "v1", "metadata": metadata, "data": { "k": value } });
        let before = match value {
            Some(_) => state.objects.insert(name.to_owned(), object.clone()),
            None => state.objects.remove(name),
        };
        let what = match (before, value) {
            (None, None) => return,
            (None, Some(_)) => "ADDED",
            (Some(_), Some(_)) => "MODIFIED",
            (Some(_), None) => "DELETED",
        };
        let line = Bytes::from(json!({ "type": what, "object": object }).to_string() + "\n");
        state.watches.retain(|(of, lines)| of != name || lines.unbounded_send(line.clone()).is_ok());
    }

    /// Breaks every watch off.
    fn cut(&self) {
        for (_, lines) in self.0.lock().unwrap().watches.drain(..) {
            let _ = lines.unbounded_send(Bytes::from_static(b"nonsense\n"));
        }
    }

    /// How many watches are open.
    fn open(&self) -> usize {
        let mut state = self.0.lock().unwrap();
        state.watches.retain(|(_, lines)| !lines.is_closed());
        state.watches.len()
    }

    fn asked(&self) -> Vec<(&'static str, String, String)> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }
}

fn whole(code: StatusCode, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).boxed_unsync();
    Response::builder().status(code).body(body).unwrap()
}

fn status(code: u16, message: &str) -> Response<Body> {
    let status =
        json!({ "kind": "Status", "status": "Failure", "code": code, "message": message, "reason": "r" });
    whole(StatusCode::from_u16(code).unwrap(), &status)
}

struct Fixture {
    server: Server,
    named: ObjectWatches,
    env: Env,
    notified: Rc<RefCell<usize>>,
}

impl Fixture {
    fn new(read_as: ReadAs, most: (usize, usize)) -> Fixture {
        let (server, env, notified) = (Server::default(), Env::seeded(3), Rc::new(RefCell::new(0)));
        let count = Rc::clone(&notified);
        let notify_change: NotifyChange = Box::new(move || {
            *count.borrow_mut() += 1;
            futures::future::ready(()).boxed_local()
        });
        let kinds = [WatchedKind::core("secrets", "Secret")];
        let named = ObjectWatches::with(
            &server.client(),
            read_as,
            (&kinds, &Budget::default()),
            &env,
            notify_change,
            most,
        );
        Fixture { server, named, env, notified }
    }

    async fn after(&self, milliseconds: u64) {
        self.env.sleep(Duration::from_millis(milliseconds)).await;
    }

    fn want(&self, name: &str, nodes: &[&str]) {
        self.named.want(&key(name), nodes.iter().map(|node| NodeName::parse(node).unwrap()).collect());
    }

    fn value(&self, name: &str) -> Option<String> {
        let object = self.named.object(&key(name))?;
        let value: Value = serde_json::from_slice(&object.json).unwrap();
        Some(value["data"]["k"].as_str().unwrap().to_owned())
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("secrets", "d", name)
}

fn run(test: impl AsyncFnOnce()) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { test().await });
}

#[test]
fn one_watch_tells_what_is_there_what_moves_and_ends_when_nobody_needs_it() {
    run(async || {
        let fixture = Fixture::new(ReadAs::CloudCore, (9, 9));
        fixture.server.put("a", Some("1"));
        fixture.want("a", &["n1"]);
        assert_eq!(fixture.named.presence(&key("a")), Presence::Unknown);
        fixture.after(10).await;
        assert_eq!(
            (fixture.named.presence(&key("a")), fixture.named.is_whole(&key("a"))),
            (Presence::Present, true)
        );
        assert_eq!(fixture.value("a").unwrap(), "1");
        assert_eq!(*fixture.notified.borrow(), 1);
        fixture.server.put("a", Some("2"));
        fixture.after(10).await;
        assert_eq!(*fixture.notified.borrow(), 1, "told once until somebody looks");
        assert_eq!(fixture.named.take_moved(), BTreeSet::from([key("a")]));
        // Thousands of nodes share it: nothing more is asked.
        for n in 0..3000 {
            fixture.want("a", &[&format!("n{n}"), "m"]);
        }
        fixture.server.put("a", None);
        fixture.after(10).await;
        assert_eq!((fixture.named.presence(&key("a")), *fixture.notified.borrow()), (Presence::Absent, 2));
        let asked: Vec<_> = fixture.server.asked().into_iter().map(|(what, ..)| what).collect();
        assert_eq!((asked, fixture.server.open()), (vec!["list", "watch"], 1));
        fixture.want("a", &[]);
        fixture.after(10).await;
        assert_eq!((fixture.server.open(), fixture.named.counts()), (0, (0, 0)));
        drop(fixture.named);
    });
}

#[test]
fn a_watch_that_breaks_off_is_not_whole_until_it_has_listed_again() {
    run(async || {
        let fixture = Fixture::new(ReadAs::CloudCore, (9, 9));
        fixture.server.put("a", Some("1"));
        fixture.want("a", &["n1"]);
        fixture.after(10).await;
        fixture.named.take_moved();
        fixture.server.asked();
        fixture.server.0.lock().unwrap().away = true;
        fixture.server.cut();
        fixture.server.put("a", Some("2"));
        fixture.after(60_000).await;
        assert!(!fixture.named.is_whole(&key("a")));
        assert_eq!(fixture.value("a").unwrap(), "1", "what was known is kept");
        let tries = fixture.server.asked().len();
        assert!((5..=20).contains(&tries), "{tries} lists in a minute");
        fixture.server.0.lock().unwrap().away = false;
        fixture.after(8100).await;
        assert!(fixture.named.is_whole(&key("a")));
        assert_eq!((fixture.value("a").unwrap(), fixture.named.take_moved().len()), ("2".to_owned(), 1));
    });
}

#[test]
fn lists_that_work_do_not_hurry_watches_that_break_off_at_once() {
    run(async || {
        let fixture = Fixture::new(ReadAs::CloudCore, (9, 9));
        fixture.server.put("a", Some("1"));
        fixture.server.0.lock().unwrap().cuts_watches = true;
        fixture.want("a", &["n1"]);
        fixture.after(60_000).await;
        let tries = fixture.server.asked().into_iter().filter(|(what, ..)| *what == "list").count();
        assert!((5..=20).contains(&tries), "{tries} lists in a minute");
        // One that lives is begun again soon when it breaks off.
        fixture.server.0.lock().unwrap().cuts_watches = false;
        fixture.after(60_000).await;
        fixture.server.cut();
        fixture.server.put("a", Some("2"));
        fixture.after(1100).await;
        assert_eq!(fixture.value("a").unwrap(), "2");
        drop(fixture.named);
    });
}

#[test]
fn an_object_that_cannot_be_read_keeps_its_last_version_and_breaks_no_watch() {
    run(async || {
        let fixture = Fixture::new(ReadAs::CloudCore, (9, 9));
        fixture.server.put("a", Some("1"));
        fixture.want("a", &["n1"]);
        fixture.after(10).await;
        let odd = |uid: &str| {
            let metadata =
                json!({ "namespace": "d", "name": "a", "uid": uid, "resourceVersion": "50", "labels": 7 });
            let object = json!({ "kind": "Secret", "apiVersion": "v1", "metadata": metadata });
            let line = Bytes::from(json!({ "type": "MODIFIED", "object": object }).to_string() + "\n");
            let mut state = fixture.server.0.lock().unwrap();
            state.objects.insert("a".to_owned(), object);
            for (_, lines) in &state.watches {
                lines.unbounded_send(line.clone()).unwrap();
            }
        };
        fixture.server.asked();
        odd("a");
        fixture.after(60_000).await;
        assert_eq!((fixture.value("a").unwrap(), fixture.named.is_whole(&key("a"))), ("1".to_owned(), true));
        assert!(fixture.server.asked().is_empty(), "the watch goes on");
        fixture.server.cut();
        fixture.after(60_000).await;
        assert_eq!(fixture.value("a").unwrap(), "1", "a list that cannot be read in part, too");
        odd("another");
        fixture.after(10).await;
        assert_eq!(
            (fixture.value("a"), fixture.named.presence(&key("a"))),
            (None, Presence::Absent),
            "another object"
        );
        fixture.server.put("a", Some("2"));
        fixture.after(10).await;
        assert_eq!(fixture.value("a").unwrap(), "2");
    });
}

#[test]
fn a_refusal_is_an_answer_and_no_loop() {
    run(async || {
        let fixture = Fixture::new(ReadAs::CloudCore, (9, 9));
        fixture.server.put("a", Some("1"));
        fixture.server.0.lock().unwrap().refused.insert("a".into(), None);
        fixture.want("a", &["n1"]);
        fixture.after(10).await;
        assert_eq!(
            (fixture.named.presence(&key("a")), fixture.named.is_whole(&key("a"))),
            (Presence::Absent, true)
        );
        fixture.after(600_000).await;
        let tries = fixture.server.asked().len();
        assert!(tries <= 8, "{tries} in ten minutes");
        fixture.server.0.lock().unwrap().refused.clear();
        fixture.after(301_000).await;
        assert_eq!(fixture.value("a").unwrap(), "1", "a right that comes later is found");
        // One that is withdrawn takes nothing away.
        fixture.server.0.lock().unwrap().refused.insert("a".into(), None);
        fixture.server.cut();
        fixture.after(20_000).await;
        assert_eq!((fixture.value("a").unwrap(), fixture.named.is_whole(&key("a"))), ("1".to_owned(), true));
    });
}

#[test]
fn it_is_read_as_a_node_that_needs_it_and_as_another_when_that_one_may_not() {
    run(async || {
        let fixture = Fixture::new(ReadAs::Nodes, (9, 9));
        fixture.server.put("a", Some("1"));
        let refuse = |node: Option<&str>| {
            let to = node.map(|node| format!("system:node:{node}"));
            fixture.server.0.lock().unwrap().refused.insert("a".into(), to);
        };
        refuse(Some("n1"));
        fixture.want("a", &["n1", "n2"]);
        fixture.after(10).await;
        let user = |node: &str| format!("system:node:{node}");
        let expected = [("list", user("n1")), ("list", user("n2")), ("watch", user("n2"))];
        assert_eq!(fixture.server.asked(), expected.map(|(what, user)| (what, "a".to_owned(), user)));
        assert_eq!(fixture.value("a").unwrap(), "1");

        // The authorizer learns of a pod a moment after everybody else.
        refuse(None);
        fixture.server.put("b", Some("1"));
        fixture.server.0.lock().unwrap().refused.insert("b".into(), None);
        fixture.want("b", &["n1"]);
        fixture.after(900).await;
        assert_eq!(fixture.named.presence(&key("b")), Presence::Unknown);
        fixture.server.0.lock().unwrap().refused.clear();
        fixture.after(201).await;
        assert_eq!(fixture.named.presence(&key("b")), Presence::Present);
        assert!(fixture.server.asked().len() < 20);

        // Where it never does it is an answer after all, until another node needs it.
        fixture.server.put("c", Some("1"));
        fixture.server.0.lock().unwrap().refused.insert("c".into(), Some(user("n1")));
        fixture.server.0.lock().unwrap().refused.insert("d".into(), None);
        fixture.want("d", &["n1"]);
        fixture.after(6000).await;
        assert_eq!(fixture.named.presence(&key("d")), Presence::Absent);
        fixture.server.put("d", Some("1"));
        fixture.server.0.lock().unwrap().refused.clear();
        fixture.want("d", &["n2"]);
        fixture.after(10).await;
        assert_eq!(fixture.value("d").unwrap(), "1", "at once");
    });
}

#[test]
fn what_no_object_can_be_called_is_not_asked_for_and_what_is_too_much_waits() {
    run(async || {
        let fixture = Fixture::new(ReadAs::CloudCore, (2, 9));
        for bad in ["a,metadata.name!=b", "../x", "A", "a=b", ""] {
            fixture.want(bad, &["n1"]);
            assert_eq!(fixture.named.presence(&key(bad)), Presence::Absent);
            assert!(fixture.named.has_moved());
        }
        assert_eq!(fixture.named.take_moved().len(), 5);
        for name in ["a", "b", "c"] {
            fixture.server.put(name, Some("1"));
            fixture.want(name, &["n1"]);
        }
        fixture.after(10).await;
        assert_eq!((fixture.named.presence(&key("c")), fixture.server.open()), (Presence::Absent, 2));
        fixture.want("a", &[]);
        fixture.after(10).await;
        assert_eq!((fixture.named.presence(&key("c")), fixture.server.open()), (Presence::Present, 2));
    });
}

#[test]
fn what_there_is_no_watch_for_is_asked_for_now_and_then_until_there_is_one() {
    run(async || {
        let fixture = Fixture::new(ReadAs::CloudCore, (9, 1));
        for name in ["a", "b"] {
            fixture.server.put(name, Some("1"));
            fixture.want(name, &["n1"]);
        }
        fixture.after(10).await;
        assert_eq!((fixture.value("b").unwrap(), fixture.server.open()), ("1".to_owned(), 1));
        fixture.server.put("b", Some("2"));
        fixture.after(30_000).await;
        assert_eq!(fixture.value("b").unwrap(), "2");
        fixture.server.asked();
        fixture.after(300_000).await;
        let asked = fixture.server.asked().iter().filter(|(_, name, _)| name == "b").count();
        assert!((9..=21).contains(&asked), "{asked} times in five minutes");
        fixture.want("a", &[]);
        fixture.after(31_000).await;
        fixture.server.put("b", Some("3"));
        fixture.after(1).await;
        assert_eq!(fixture.value("b").unwrap(), "3", "watched now");
    });
}

#[test]
fn in_any_history_what_is_known_comes_to_what_the_server_holds() {
    for seed in 0..200 {
        run(async || {
            let fixture = Fixture::new(ReadAs::CloudCore, (100, 100));
            let lots = Env::seeded(seed);
            let mut wanted = BTreeSet::new();
            for _ in 0..60 {
                let name = format!("s{}", lots.random_below(4));
                match lots.random_below(7) {
                    0 => {
                        fixture.want(&name, &[]);
                        wanted.remove(&name);
                    }
                    1 | 2 => {
                        fixture.want(&name, &["n1"]);
                        wanted.insert(name);
                    }
                    3 => fixture.server.put(&name, None),
                    4 => fixture.server.put(&name, Some(&lots.random_below(9).to_string())),
                    5 => {
                        let mut state = fixture.server.0.lock().unwrap();
                        state.away = !state.away;
                    }
                    _ => fixture.server.cut(),
                }
                fixture.after(lots.random_below(400)).await;
                let (needed, _) = fixture.named.counts();
                assert_eq!(needed, wanted.len(), "seed {seed}");
            }
            fixture.server.0.lock().unwrap().away = false;
            fixture.after(20_000).await;
            assert_eq!(fixture.server.open(), wanted.len(), "seed {seed}: one watch for each that is needed");
            for name in (0..4).map(|n| format!("s{n}")) {
                let held = fixture.server.0.lock().unwrap().objects.get(&name).cloned();
                let held = held.filter(|_| wanted.contains(&name));
                let held = held.map(|object| object["data"]["k"].as_str().unwrap().to_owned());
                assert_eq!(fixture.value(&name), held, "seed {seed}: {name}");
                assert_eq!(
                    fixture.named.is_whole(&key(&name)),
                    wanted.contains(&name),
                    "seed {seed}: {name}"
                );
            }
        });
    }
}
