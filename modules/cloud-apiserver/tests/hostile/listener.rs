//! Floods, slow readers and raw bytes at the socket, with memory measured.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Fixture, code, resident, run};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MIB: usize = 1 << 20;
/// What an administrator's request takes at the most, on a busy machine: who is kept out gets no answer, or an error.
const SERVED_WITHIN: Duration = Duration::from_secs(30);

/// How long an administrator's request takes now.
async fn served(fixture: &Fixture) -> Duration {
    let start = Instant::now();
    fixture.admin("GET", "/api/v1/namespaces", Value::Null).await;
    start.elapsed()
}

fn request(token: &str, line: &str, headers: &str) -> String {
    format!("{line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n{headers}\r\n")
}

#[test]
fn idle_strangers_shut_nobody_out() {
    run(async |fixture| {
        served(fixture).await;
        let before = resident();
        let mut silent = Vec::new();
        for _ in 0..1200 {
            silent.push(fixture.tcp().await);
        }
        let taken = served(fixture).await;
        assert!(taken < SERVED_WITHIN, "{taken:?} beside 1,200 silent sockets");
        // And half a head each, which is as much as may be said.
        let head = format!("GET / HTTP/1.1\r\nx: {}", "a".repeat(60 << 10));
        let mut talking = Vec::new();
        for _ in 0..200 {
            let Ok(mut stream) = fixture.dial().await else { continue };
            let _ = stream.write_all(head.as_bytes()).await;
            talking.push(stream);
        }
        let taken = served(fixture).await;
        assert!(taken < SERVED_WITHIN, "{taken:?} beside 200 half heads");
        let more = resident().saturating_sub(before);
        println!("{} KiB more for 1,400 strangers, attacker included", more >> 10);
        assert!(more < 128 * MIB, "{} MiB", more / MIB);
    });
}

#[test]
fn without_a_credential_nothing_is_read_and_nothing_is_quick() {
    run(async |fixture| {
        let before = resident();
        let body = "x".repeat(3 * MIB);
        for line in ["POST /healthz", "POST /api/v1/namespaces", "POST /version"] {
            let text = format!("{line} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let answer = fixture.throw(text.as_bytes()).await;
            // The end may come before its reason can be heard.
            assert!(matches!(code(&answer), 0 | 401 | 405), "{line}: {}", code(&answer));
        }
        let start = Instant::now();
        for guess in 0..4 {
            let (code, _) = fixture.ask(&format!("guess{guess}"), "GET", "/api", &Value::Null).await;
            assert_eq!(code, 401);
        }
        assert!(start.elapsed() >= Duration::from_secs(1), "{:?} for four guesses", start.elapsed());
        for token in ["a".repeat(60 << 10), "\u{7f}".to_owned(), "a.b.c".to_owned(), String::new()] {
            let (code, _) = fixture.ask(&token, "GET", "/api", &Value::Null).await;
            assert!(matches!(code, 0 | 400 | 401), "{code}");
        }
        let more = resident().saturating_sub(before);
        assert!(more < 64 * MIB, "{} MiB", more / MIB);
    });
}

#[test]
fn what_is_too_long_is_refused_before_it_is_held() {
    run(async |fixture| {
        let before = resident();
        let long = request(&fixture.admin, &format!("POST {MAPS}"), "content-length: 10000000000\r\n");
        let mut open = Vec::new();
        // Six wait for the room that two have.
        for _ in 0..8 {
            let mut stream = fixture.dial().await.unwrap();
            stream.write_all(long.as_bytes()).await.unwrap();
            let _ = stream.write_all(&vec![b' '; 2 * MIB]).await;
            open.push(stream);
        }
        let more = resident().saturating_sub(before);
        println!("{} KiB more for eight endless bodies", more >> 10);
        assert!(more < 48 * MIB, "{} MiB", more / MIB);
        drop(open);
        let whole = request(
            &fixture.admin,
            &format!("POST {MAPS}"),
            "content-length: 4000000\r\nconnection: close\r\n",
        );
        let answer = fixture.throw(&[whole.as_bytes(), &vec![b' '; 4_000_000]].concat()).await;
        assert!(matches!(code(&answer), 0 | 413), "{}", code(&answer));
        let path = format!("GET {MAPS}?labelSelector={}", "a".repeat(100_000));
        let answer = fixture.throw(request(&fixture.admin, &path, "").as_bytes()).await;
        assert!(matches!(code(&answer), 0 | 414 | 431), "{}", code(&answer));
        let many = "x: y\r\n".repeat(2000);
        let answer = fixture.throw(request(&fixture.admin, "GET /api", &many).as_bytes()).await;
        assert!(matches!(code(&answer), 400 | 431), "{}", code(&answer));
        served(fixture).await;
    });
}

/// Writes config maps without the socket, which is not what is measured.
async fn fill(fixture: &Fixture, count: usize, bytes: usize) {
    let maps: Api<ConfigMap> = Api::default_namespaced(fixture.running.client());
    for n in 0..count {
        let map = json!({"metadata": {"name": format!("m{n}")}, "data": {"k": "x".repeat(bytes)}});
        maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    }
}

#[test]
fn answers_that_nobody_takes_are_counted() {
    run(async |fixture| {
        fill(fixture, 12, 900_000).await;
        let before = resident();
        let list = request(&fixture.admin, &format!("GET {MAPS}"), "");
        let (mut open, mut refused) = (Vec::new(), 0);
        // 10.8 MB each: six fit into 64 MiB.
        for _ in 0..9 {
            let mut stream = fixture.dial().await.unwrap();
            stream.write_all(list.as_bytes()).await.unwrap();
            let mut first = vec![0; 64];
            stream.read_exact(&mut first).await.unwrap();
            if code(&first) == 429 {
                refused += 1;
            }
            open.push(stream);
        }
        assert_eq!(refused, 3);
        let more = resident().saturating_sub(before);
        println!("{} MiB more for nine lists of 10.8 MB that nobody takes", more / MIB);
        assert!(more < 128 * MIB, "{} MiB", more / MIB);
        // Pages and small answers are served all the same.
        served(fixture).await;
        // Who reads gets all of it, and makes room.
        let mut whole = Vec::new();
        drop(open.split_off(1));
        let mut first = open.remove(0);
        let read = async {
            let mut piece = vec![0; MIB];
            while whole.len() < 10_800_000 {
                let count = first.read(&mut piece).await.unwrap();
                assert!(count > 0, "cut at {}", whole.len());
                whole.extend_from_slice(&piece[..count]);
            }
        };
        tokio::time::timeout(Duration::from_secs(30), read).await.unwrap();
        loop {
            let (code, list) = fixture.ask(&fixture.admin, "GET", MAPS, &Value::Null).await;
            if code == 200 {
                assert_eq!(list["items"].as_array().unwrap().len(), 13);
                break;
            }
            assert_eq!(code, 429);
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn watchers_that_do_not_read_hold_little() {
    run(async |fixture| {
        fill(fixture, 4, 900_000).await;
        let before = resident();
        let mut open = Vec::new();
        for _ in 0..6 {
            let mut stream = fixture.dial().await.unwrap();
            let watch = request(&fixture.admin, &format!("GET {MAPS}?watch=true"), "");
            stream.write_all(watch.as_bytes()).await.unwrap();
            stream.read_exact(&mut [0; 16]).await.unwrap();
            open.push(stream);
        }
        // 90 MB of changes.
        let maps: Api<ConfigMap> = Api::default_namespaced(fixture.running.client());
        for n in 0..100 {
            let fill = char::from(b'a' + (n % 26) as u8).to_string().repeat(900_000);
            let patch = Patch::Merge(json!({"data": {"k": fill}}));
            maps.patch(&format!("m{}", n % 4), &PatchParams::default(), &patch).await.unwrap();
        }
        let more = resident().saturating_sub(before);
        println!("{} MiB more for 6 watchers that do not read, 90 MB of changes", more / MIB);
        assert!(more < 160 * MIB, "{} MiB", more / MIB);
        served(fixture).await;
    });
}

#[test]
fn a_user_has_a_number_of_watches() {
    run(async |fixture| {
        let role = json!({"metadata": {"name": "watcher"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["watch"]}]});
        fixture.admin("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await;
        fixture
            .admin("POST", "/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "w"}}))
            .await;
        let binding = json!({"metadata": {"name": "w"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "watcher"},
            "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": "w"}]});
        fixture.admin("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
        let token = fixture.token("w", json!({})).await;
        let watch = request(&token, &format!("GET {MAPS}?watch=true&resourceVersion=1"), "");
        let (mut open, mut codes) = (Vec::new(), Vec::new());
        for _ in 0..260 {
            let mut stream = fixture.dial().await.unwrap();
            stream.write_all(watch.as_bytes()).await.unwrap();
            let mut first = vec![0; 16];
            stream.read_exact(&mut first).await.unwrap();
            codes.push(code(&first));
            open.push(stream);
        }
        assert_eq!(codes.iter().filter(|code| **code == 200).count(), 256);
        assert_eq!(codes.iter().filter(|code| **code == 429).count(), 4);
        served(fixture).await;
    });
}

#[test]
fn raw_bytes_end_a_connection_and_nothing_else() {
    run(async |fixture| {
        let good = request(&fixture.admin, "GET /api/v1/namespaces?limit=1", "accept: application/json\r\n");
        let post = request(
            &fixture.admin,
            &format!("POST {MAPS}"),
            "content-type: application/json\r\ntransfer-encoding: chunked\r\n",
        );
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut roll = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 33) as usize % below
        };
        let before = resident();
        for _ in 0..300 {
            let mut bytes = match roll(3) {
                0 => good.clone().into_bytes(),
                1 => format!("{post}5\r\n{{\"a\":\r\nffffffffffffffff\r\n").into_bytes(),
                _ => (0..roll(200)).map(|_| roll(256) as u8).collect(),
            };
            for _ in 0..roll(4) {
                let at = roll(bytes.len() + 1);
                bytes.splice(
                    at..at,
                    [
                        [b"\r\n".as_slice(), b"\0", b":", b"content-length: 5\r\n"][roll(4)].to_vec(),
                        vec![roll(256) as u8],
                    ]
                    .concat(),
                );
            }
            bytes.extend_from_slice(b"\r\n\r\n");
            let mut stream = fixture.dial().await.unwrap();
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
            assert!(read.is_ok(), "not ended after 30 s: {:?}", String::from_utf8_lossy(&bytes));
            assert_ne!(code(&answer), 500, "{:?}", String::from_utf8_lossy(&bytes));
        }
        // And below TLS.
        for _ in 0..100 {
            let mut stream = fixture.tcp().await;
            let bytes: Vec<u8> = (0..roll(600)).map(|_| roll(256) as u8).collect();
            let _ = stream.write_all(&[&[22, 3, 1][..roll(4)], &bytes].concat()).await;
        }
        let more = resident().saturating_sub(before);
        assert!(more < 64 * MIB, "{} MiB", more / MIB);
        served(fixture).await;
    });
}

/// The token of a service account that may list config maps.
async fn lister(fixture: &Fixture) -> String {
    let role = json!({"metadata": {"name": "lister"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]});
    fixture.admin("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await;
    let account = json!({"metadata": {"name": "l"}});
    fixture.admin("POST", "/api/v1/namespaces/default/serviceaccounts", account).await;
    let binding = json!({"metadata": {"name": "l"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "lister"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": "l"}]});
    fixture.admin("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
    fixture.token("l", json!({})).await
}

#[test]
fn large_lists_of_one_keep_nobody_waiting_and_are_counted_before_they_are_made() {
    run(async |fixture| {
        fill(fixture, 40, 900_000).await;
        let token = lister(fixture).await;
        let alone = served(fixture).await;
        let before = resident();
        for (query, least) in [("?labelSelector=none", 7), ("", 7)] {
            let list = request(&token, &format!("GET {MAPS}{query}"), "connection: close\r\n");
            let mut open = Vec::new();
            for _ in 0..8 {
                let mut stream = fixture.dial().await.unwrap();
                stream.write_all(list.as_bytes()).await.unwrap();
                open.push(stream);
            }
            let mut slowest = Duration::ZERO;
            for _ in 0..5 {
                slowest = slowest.max(served(fixture).await);
            }
            println!("{slowest:?} at the most for an administrator beside 8 lists{query} of 36 MB");
            assert!(slowest < Duration::from_secs(3) + 20 * alone, "{slowest:?}, alone {alone:?}");
            let (mut served, mut refused) = (0, 0);
            for stream in &mut open {
                let mut first = [0; 16];
                stream.read_exact(&mut first).await.unwrap();
                match code(&first) {
                    200 => served += 1,
                    429 => refused += 1,
                    other => panic!("{other}"),
                }
            }
            assert!(served >= 1 && served + refused == 8, "{served} served, {refused} refused");
            assert!(refused <= least, "{refused}");
            let more = resident().saturating_sub(before);
            println!("{} MiB more", more / MIB);
            assert!(more < 240 * MIB, "{} MiB", more / MIB);
        }
    });
}
