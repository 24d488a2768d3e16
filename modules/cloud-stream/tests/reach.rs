//! Whether the API server reaches the ports: what is asked of it, and what is said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::time::Duration;

use beehive::Env;
use fixture::{Api, Fixture};

/// Two questions, half a minute apart at the most, on a machine that is busy.
const LATE: Duration = Duration::from_secs(120);

async fn until(fixture: &Fixture, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let look = async {
        while !holds().await {
            fixture.env.sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(fixture.env.timeout(LATE, look).await.is_some(), "waited in vain: {what}");
}

#[actix_rt::test]
async fn an_api_server_that_does_not_get_through_is_said_with_the_cure_until_it_calls() {
    let api = Api::new(&Env::real(), Vec::new());
    let refused = "error trying to reach service: dial tcp 10.42.0.9:12000: i/o timeout";
    api.proxy_answers(503, &fixture::status(503, refused));
    let mut fixture = Fixture::checked(api.clone()).await;
    let _link = fixture.link("edge-1", 1).await;
    let port = fixture.endpoint("edge-1", 1).await.port;
    until(&fixture, "it is said", async || !fixture.checks.said().is_empty()).await;
    let said = fixture.checks.said().join("\n");
    assert!(said.starts_with("KubeletEndpointReachable: ") && said.contains("i/o timeout"), "{said}");
    assert!(said.contains("kubeletEndpoint.address"), "{said}");
    let asked = api.proxies_asked();
    assert!(
        asked.len() >= 2 && asked.iter().all(|path| path == "/api/v1/nodes/edge-1/proxy/healthz"),
        "{asked:?}"
    );
    // It calls by itself: nothing has to be asked.
    fixture.until_client_ca().await;
    let server = fixture.identity(fixture.api.clients(), "apiserver");
    fixture.api.grant("system:node:apiserver get proxy@edge-1");
    assert_eq!(fixture.ask(port, Some(&server), "GET /pods", "").await.status, 200);
    until(&fixture, "it is taken back", async || fixture.checks.said().is_empty()).await;
}

#[actix_rt::test]
async fn without_the_right_nothing_is_claimed() {
    let api = Api::new(&Env::real(), Vec::new());
    let mut fixture = Fixture::checked(api.clone()).await;
    let _link = fixture.link("edge-1", 1).await;
    fixture.endpoint("edge-1", 1).await;
    let counted = async || {
        let report = fixture.hive.inspector().report(LATE).await;
        report.counter("stream_endpoint_not_checked")
    };
    until(&fixture, "it is said once", async || counted().await == 1).await;
    assert_eq!(fixture.checks.said(), [] as [&str; 0]);
    assert_eq!(api.proxies_asked().len(), 1);
}
