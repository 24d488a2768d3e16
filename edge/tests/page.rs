//! The node's page of a whole EdgeCore without a cloud and without a runtime: by `edgecore`'s own socket, and by its port.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod node_alone;

use std::net::SocketAddr;

use beehive::Env;
use contract::NodeName;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use node_alone::{LONG, LOOK_EVERY, NODE, answer, at_socket, object, settings, start};

async fn at_port(address: SocketAddr, path: &str, cookie: &str) -> (u16, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    answer(stream, format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{cookie}\r\n"))
        .await
}

fn header<'a>(text: &'a str, name: &str) -> &'a str {
    let mut lines = text.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value).unwrap_or_default()
}

#[test]
fn a_node_that_is_cut_off_shows_what_it_has_and_only_to_who_may_see_it() {
    actix_rt::System::new().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let settings = settings(folder.path(), address.port());
        let pod = json!({"metadata": {"namespace": "shop", "name": "till", "uid": "u-till"},
            "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "registry.example/till:1"}]}});
        let model = json!({"metadata": {"namespace": "shop", "name": "pumps"},
            "spec": {"properties": [{"name": "speed", "type": "INT"}]}});
        let device = json!({"metadata": {"namespace": "shop", "name": "pump", "uid": "u-pump"},
            "spec": {"nodeName": NODE, "deviceModelRef": {"name": "pumps"}, "protocol": {"protocolName": "modbus"},
                "properties": [{"name": "speed", "desired": {"value": "1500"}}]}});
        {
            let store = edge::open_store(&settings, &NodeName::parse(NODE).unwrap(), &Env::real()).unwrap();
            let kept = vec![
                object(contract::ids::PODS, "till", &pod),
                object(contract::ids::DEVICE_MODELS, "pumps", &model),
                object(contract::ids::DEVICES, "pump", &device),
            ];
            store.commit(kept).await.unwrap();
        }
        let (core, _store) = start(&settings, None).await;
        let shows = async {
            loop {
                let (status, text) = at_socket(folder.path(), "GET", "/page.json").await;
                assert_eq!(status, 200, "{text}");
                let page: Value = serde_json::from_str(text.split("\r\n\r\n").last().unwrap()).unwrap();
                let (pods, devices) = (&page["nodeStatus"]["pods"], &page["deviceTwins"]["devices"]);
                // The runtime is away, and the node says so.
                let ready = &page["nodeStatus"]["conditions"];
                let is_told = ready.as_array().is_some_and(|all| all.iter().any(|own| own["type"] == "Ready"));
                if pods[0]["name"] == "till" && devices[0]["properties"][0]["desired"] == "1500" && is_told {
                    return page;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let page = tokio::time::timeout(LONG, shows).await.expect("what the store holds");
        assert_eq!((&page["node"], &page["link"]["up"]), (&json!(NODE), &json!(false)));
        assert_eq!(page["link"]["servers"], json!(["the cloud"]));
        assert!(page["outbox"]["rows"].as_u64().unwrap() > 0 && page["outbox"]["oldest"]["class"].is_string(), "{page}");
        let measured = page["nodeStatus"]["resources"].as_array().unwrap();
        assert!(measured.iter().any(|own| own["signal"] == "memory.available"), "{page}");

        let (status, text) = at_socket(folder.path(), "POST", "/api/v1/page/invitation").await;
        assert_eq!(status, 200, "{text}");
        let url = text.split("\r\n\r\n").last().unwrap();
        let ticket = url.strip_prefix(&format!("http://{address}")).unwrap();
        let (status, entered) = at_port(address, ticket, "").await;
        assert_eq!(status, 200, "{entered}");
        let path = header(&entered, "refresh").strip_prefix("0; url=").unwrap();
        let cookie = format!("Cookie: {}\r\n", header(&entered, "set-cookie").split(';').next().unwrap());
        let (status, seen) = at_port(address, path, &cookie).await;
        assert_eq!(status, 200, "{seen}");
        for words in ["cut off from the cloud", "shop/till", "shop/pump", "1500", "Waits for the cloud"] {
            assert!(seen.contains(words), "{words}: {seen}");
        }
        for (path, cookie) in [(path, ""), ("/", cookie.as_str()), (ticket, "")] {
            assert_eq!(at_port(address, path, cookie).await.0, 401, "{path}");
        }
        // Nothing of the kubelet API is here, and nothing of the page where agents read figures.
        assert_eq!(at_port(address, "/pods", &cookie).await.0, 401);
        core.stop(LONG).await;
        assert!(TcpStream::connect(address).await.is_err(), "the port goes with edgecore");
    });
}

#[test]
fn a_page_that_is_off_is_said_at_the_socket_and_listens_nowhere() {
    actix_rt::System::new().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut settings = settings(folder.path(), address.port());
        settings.modules.edge_page.enable = false;
        let (core, _store) = start(&settings, None).await;
        for (method, path) in [("POST", "/api/v1/page/invitation"), ("GET", "/page.json")] {
            let (status, text) = at_socket(folder.path(), method, path).await;
            assert!(status == 404 && text.contains("modules.edgePage.enable: true"), "{text}");
        }
        assert!(TcpStream::connect(address).await.is_err());
        core.stop(LONG).await;
    });
}
