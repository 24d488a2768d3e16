//! Sidecars, `csidriver`, and EdgeCsi before a driver that takes nothing but what CSI allows. Between them stands a CloudCore that hands
//! on what it is asked for, and can be told to be without the node.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Address, Capacity, Env, Flow, Hive, Policy};
use contract::NodeName;
use contract::csi::CsiMsg;
use contract::csi_call::{CONTENT_TYPE, CsiCall};
use contract::edged::EdgedMsg;
use csi::v1::{
    ControllerGetCapabilitiesRequest, GetPluginCapabilitiesRequest, GetPluginInfoRequest, ProbeRequest,
};
use csi::{controller, identity};
use csidriver::{CsiDriver, Settings, Way};
use edge_csi::EdgeCsi;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::bytes::Bytes;
use strictdriver::{Behaviour, Options, Sidecar, StrictDriver};
use tokio::net::UnixListener;
use tonic::Code;
use unixgrpc::Method;

const DRIVER: &str = "strict.example.com";
/// What a test waits for a fact at the most.
const LONG: Duration = Duration::from_secs(60);

/// A node with the driver, CloudCore's socket before it, and `csidriver`.
struct Fixture {
    root: PathBuf,
    driver: StrictDriver,
    /// Whether CloudCore has the node.
    linked: Rc<Cell<bool>>,
    sidecar: Sidecar,
    hives: Vec<Hive>,
    csi: Rc<std::cell::RefCell<Address<CsiMsg>>>,
}

/// EdgeCsi, which has the driver registered.
async fn node(root: &Path) -> (Hive, Address<CsiMsg>) {
    let env = Env::real();
    let (mut edged, to_edged) = Probe::new(&env, 64);
    let mut hive = Hive::new("edge", env);
    let mailbox = hive.mailbox::<CsiMsg>("edge-csi", Capacity::new(64, "a test's choice"));
    let csi = hive.grant("test", &mailbox, Flow::Ask);
    let settings = edge_csi::Settings::new(root, "edge-1").times(LONG, Duration::from_millis(100));
    hive.supervise(mailbox, Policy::default(), move || EdgeCsi::new(settings.clone(), to_edged.clone()));
    hive.open().unwrap();
    loop {
        match edged.next(LONG).await {
            Some(EdgedMsg::CsiDrivers { drivers, .. })
                if drivers.iter().any(|driver| driver.name == DRIVER) =>
            {
                break;
            }
            Some(_) => {}
            None => panic!("the driver is not registered"),
        }
    }
    (hive, csi)
}

/// Answers as CloudCore and the node do together.
async fn cloud(
    request: hyper::Request<Incoming>,
    is_linked: bool,
    csi: Address<CsiMsg>,
) -> Result<hyper::Response<Full<Bytes>>, std::convert::Infallible> {
    let answer = |status: u16, kind: &str, body: Vec<u8>| {
        let answer = hyper::Response::builder().status(status).header("content-type", kind);
        Ok(answer.body(Full::new(Bytes::from(body))).unwrap())
    };
    if !is_linked {
        return answer(503, "text/plain", b"node `edge-1` is not linked to this CloudCore\n".to_vec());
    }
    assert_eq!(
        (request.method().as_str(), &request.headers()["content-type"]),
        ("POST", &CONTENT_TYPE.parse().unwrap())
    );
    let target = request.uri().path_and_query().unwrap().as_str().to_owned();
    let call = CsiCall::parse(target.strip_prefix("/api/v1/nodes/edge-1/proxy").unwrap()).unwrap();
    let body = request.into_body().collect().await.unwrap().to_bytes().to_vec();
    match csi.ask(LONG, |reply| CsiMsg::Call { call, body, reply }).await {
        Ok(body) => answer(200, CONTENT_TYPE, body),
        Err(error) => answer(503, "text/plain", error.to_string().into_bytes()),
    }
}

impl Fixture {
    async fn new(root: &Path) -> Fixture {
        let driver = StrictDriver::start(root, &Options::new(DRIVER), None).unwrap();
        let (edge, address) = node(root).await;
        let (linked, csi) = (Rc::new(Cell::new(true)), Rc::new(std::cell::RefCell::new(address)));
        let kubeedge_socket = root.join("kubeedge.sock");
        let listener = UnixListener::bind(&kubeedge_socket).unwrap();
        let (is_linked, to_csi) = (Rc::clone(&linked), Rc::clone(&csi));
        actix_rt::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (is_linked, to_csi) = (Rc::clone(&is_linked), Rc::clone(&to_csi));
                let service =
                    service_fn(move |request| cloud(request, is_linked.get(), to_csi.borrow().clone()));
                actix_rt::spawn(async move {
                    // How it ends is its client's business.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        let socket = root.join("csi/csi.sock");
        let settings = Settings {
            socket: socket.clone(),
            driver: DRIVER.to_owned(),
            node: NodeName::parse("edge-1").unwrap(),
            way: Way::Socket(kubeedge_socket),
        };
        let mut hive = Hive::new("csidriver", Env::real());
        let mailbox = hive.mailbox("csidriver", Capacity::new(1, "a test's choice"));
        hive.supervise(mailbox, Policy::default(), move || CsiDriver::new(settings.clone()));
        hive.open().unwrap();
        let fixture = Fixture {
            root: root.to_owned(),
            driver,
            linked,
            sidecar: Sidecar::new(&socket, &format!("{DRIVER}-edge-1")),
            hives: vec![edge, hive],
            csi,
        };
        let listens = async || fixture.sidecar.call(identity::PROBE, ProbeRequest {}).await.is_ok();
        until("csidriver listens", listens).await;
        fixture
    }

    /// EdgeCsi ends, and another one begins.
    async fn begin_node_anew(&mut self) {
        let (hive, address) = node(&self.root).await;
        self.csi.replace(address);
        std::mem::replace(&mut self.hives[0], hive).shutdown(LONG).await;
    }

    async fn stop(self) {
        assert_eq!(self.driver.faults(), [""; 0]);
        for hive in self.hives {
            hive.shutdown(LONG).await;
        }
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

fn run(test: impl AsyncFnOnce(Fixture)) {
    actix_rt::System::new().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        test(Fixture::new(dir.path()).await).await;
    });
}

#[test]
fn sidecars_are_told_what_there_is_while_the_node_is_offline() {
    run(async |fixture| {
        fixture.linked.set(false);
        let info = fixture.sidecar.call(identity::GET_PLUGIN_INFO, GetPluginInfoRequest {}).await.unwrap();
        assert_eq!(info.name, DRIVER);
        let plugin = fixture
            .sidecar
            .call(identity::GET_PLUGIN_CAPABILITIES, GetPluginCapabilitiesRequest {})
            .await
            .unwrap();
        assert_eq!(plugin.capabilities.len(), 1);
        let can = fixture
            .sidecar
            .call(controller::CONTROLLER_GET_CAPABILITIES, ControllerGetCapabilitiesRequest {})
            .await;
        assert_eq!(can.unwrap().capabilities.len(), 2);
        let offline = fixture.sidecar.create("one", 5).await.unwrap_err();
        assert_eq!(offline.code(), Code::Unavailable);
        assert!(offline.message().starts_with("node `edge-1` is not linked to this CloudCore"), "{offline}");
        let list: Method<ProbeRequest, ProbeRequest> = Method::new("/csi.v1.Controller/ListVolumes");
        assert_eq!(
            fixture.sidecar.call(list, ProbeRequest {}).await.unwrap_err().code(),
            Code::Unimplemented
        );
        std::fs::remove_file(fixture.root.join("kubeedge.sock")).unwrap();
        let gone = fixture.sidecar.create("one", 5).await.unwrap_err();
        assert_eq!(gone.code(), Code::Unavailable);
        assert!(gone.message().contains("modules.cloudHub.unixsocket"), "{gone}");
        assert_eq!(fixture.driver.calls(), [""; 0]);
        fixture.stop().await;
    });
}

#[test]
fn each_call_may_be_repeated_and_each_error_is_the_drivers() {
    run(async |fixture| {
        fixture.sidecar.a_volumes_life("one").await;
        fixture.driver.behave(Behaviour::FailsFinally);
        let said = fixture.sidecar.create("two", 5).await.unwrap_err();
        assert_eq!((said.code(), said.details()), (Code::FailedPrecondition, &b"\x08\x09"[..]));
        assert_eq!(fixture.driver.made(), 1);
        fixture.stop().await;
    });
}

#[test]
fn a_node_that_begins_anew_while_the_driver_works_makes_the_volume_once() {
    run(async |mut fixture| {
        fixture.driver.behave(Behaviour::Hangs);
        // The sidecar gives up while the driver works, and asks again.
        tokio::select! {
            done = fixture.sidecar.create("one", 5) => panic!("{done:?}"),
            () = until("the driver works", async || fixture.driver.calls() == ["create one"]) => {}
        }
        fixture.begin_node_anew().await;
        let works = async {
            // The second call waits for the first, which nobody waits for any more.
            tokio::time::sleep(Duration::from_millis(50)).await;
            fixture.driver.behave(Behaviour::Right);
        };
        let (made, ()) = tokio::join!(fixture.sidecar.create("one", 5), works);
        assert_eq!(made.unwrap(), "vol-one");
        assert_eq!(fixture.driver.made(), 1);
        fixture.stop().await;
    });
}
