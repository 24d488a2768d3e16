//! Calls of a driver's controller service for the cloud, against a driver that takes nothing but what CSI allows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Address, Capacity, Ended, Env, Flow, Hive, Policy};
use contract::csi::CsiMsg;
use contract::csi_call::{BODY_MAX, CsiCall, METHODS};
use contract::edged::EdgedMsg;
use csi::v1::{
    ControllerPublishVolumeRequest, CreateVolumeRequest, CreateVolumeResponse, DeleteVolumeRequest,
    VolumeCapability,
};
use csi::web;
use edge_csi::{EdgeCsi, Settings};
use futures::future::join_all;
use prost::Message;
use strictdriver::{Behaviour, Options, StrictDriver};
use tonic::{Code, Status};

/// What a test waits for a fact at the most.
const LONG: Duration = Duration::from_secs(60);
const DRIVER: &str = "strict.example.com";
const CREATE: &str = METHODS[0];
const DELETE: &str = METHODS[1];
const ATTACH: &str = METHODS[2];

struct Node {
    hive: Hive,
    csi: Address<CsiMsg>,
}

/// A node on which the driver is registered.
async fn start(root: &Path) -> Node {
    let env = Env::real();
    let (mut edged, to_edged) = Probe::new(&env, 64);
    let mut hive = Hive::new("test", env);
    let mailbox = hive.mailbox::<CsiMsg>("edge-csi", Capacity::new(64, "a test's choice"));
    let csi = hive.grant("test", &mailbox, Flow::Ask);
    let settings = Settings::new(root, "edge-1").times(LONG, Duration::from_millis(100));
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
    Node { hive, csi }
}

fn begin(
    csi: &Address<CsiMsg>,
    call: CsiCall,
    body: Vec<u8>,
) -> impl Future<Output = Result<Vec<u8>, Status>> + use<> {
    let csi = csi.clone();
    async move {
        let asked = csi.ask(LONG, |reply| CsiMsg::Call { call, body, reply }).await;
        web::answered(&asked.unwrap()).map(|bytes| bytes.to_vec())
    }
}

impl Node {
    fn call<M: Message>(
        &self,
        method: &str,
        message: &M,
    ) -> impl Future<Output = Result<Vec<u8>, Status>> + use<M> {
        let call = CsiCall::new(DRIVER, method, LONG).unwrap();
        begin(&self.csi, call, web::request(&message.encode_to_vec()))
    }

    async fn stop(self) {
        assert_eq!(self.hive.shutdown(LONG).await, Ended::InOrder);
    }
}

fn create(name: &str) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.to_owned(),
        volume_capabilities: vec![VolumeCapability::default()],
        parameters: [("tier".to_owned(), "fast".to_owned())].into(),
        ..CreateVolumeRequest::default()
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

fn run(test: impl AsyncFnOnce(&Path, &StrictDriver)) {
    actix_rt::System::new().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let driver = StrictDriver::start(dir.path(), &Options::new(DRIVER), None).unwrap();
        test(dir.path(), &driver).await;
        assert_eq!(driver.faults(), [""; 0]);
    });
}

#[test]
fn a_driver_answers_in_its_own_words_and_codes() {
    run(async |root, driver| {
        let node = start(root).await;
        let made = node.call(CREATE, &create("a")).await.unwrap();
        let volume = CreateVolumeResponse::decode(&made[..]).unwrap().volume.unwrap();
        assert_eq!((volume.volume_id.as_str(), volume.volume_context["tier"].as_str()), ("vol-a", "fast"));
        assert_eq!(
            node.call(CREATE, &create("a")).await.unwrap().len(),
            made.len(),
            "again: the same volume"
        );
        assert_eq!(driver.made(), 1);
        let missing = ControllerPublishVolumeRequest { volume_id: "x".to_owned(), ..Default::default() };
        let said = node.call(ATTACH, &missing).await.unwrap_err();
        assert_eq!((said.code(), said.message()), (Code::NotFound, "no such volume"));
        driver.behave(Behaviour::FailsFinally);
        let said = node.call(CREATE, &create("b")).await.unwrap_err();
        assert_eq!((said.code(), said.message()), (Code::FailedPrecondition, "the pool is read-only"));
        assert_eq!(said.details(), b"\x08\x09");
        // More words than anybody takes.
        driver.behave(Behaviour::Floods);
        let said = node.call(CREATE, &create("b")).await.unwrap_err();
        assert!(said.message().len() < 8 << 10, "{} bytes", said.message().len());
        node.stop().await;
    });
}

#[test]
fn what_is_no_call_never_reaches_a_driver() {
    run(async |root, driver| {
        let node = start(root).await;
        let of =
            |driver: &str, body: Vec<u8>| begin(&node.csi, CsiCall::new(driver, CREATE, LONG).unwrap(), body);
        let other = of("other.example.com", web::request(&create("a").encode_to_vec())).await.unwrap_err();
        assert_eq!(other.code(), Code::Unavailable);
        assert_eq!(other.message(), "node edge-1: CSI driver other.example.com is not registered there");
        for body in
            [Vec::new(), vec![0xff; 64], web::request(b"\xff\xff"), web::request(b""), vec![0; BODY_MAX]]
        {
            assert_eq!(of(DRIVER, body).await.unwrap_err().code(), Code::InvalidArgument);
        }
        assert_eq!(driver.calls(), [""; 0]);
        node.stop().await;
    });
}

#[test]
fn a_call_ends_with_its_caller_and_its_place_is_free() {
    run(async |root, driver| {
        let node = start(root).await;
        driver.behave(Behaviour::Hangs);
        // As many as have a place, each about a volume of its own.
        let names: Vec<String> = (0..16).map(|number| format!("v{number:02}")).collect();
        let all = join_all(names.iter().map(|name| node.call(CREATE, &create(name))));
        tokio::select! {
            done = all => panic!("{done:?}"),
            () = until("the calls", || driver.calls().len() == names.len()) => {}
        }
        // Their callers have gone, and the driver hangs still.
        until("the driver hears of it", || driver.under_way() == 0).await;
        driver.behave(Behaviour::Right);
        node.call(CREATE, &create("v00")).await.unwrap();
        node.stop().await;
    });
}

#[test]
fn a_call_that_has_begun_outlives_edge_csi_and_the_next_one_about_its_volume_waits_for_it() {
    run(async |root, driver| {
        let node = start(root).await;
        driver.behave(Behaviour::Hangs);
        let mut first = std::pin::pin!(node.call(CREATE, &create("a")));
        assert!(futures::poll!(first.as_mut()).is_pending());
        until("the first call", || driver.calls() == ["create a"]).await;
        // As after a fault: another incarnation, and the driver still works for the first.
        node.stop().await;
        let node = start(root).await;
        let mut again = std::pin::pin!(node.call(CREATE, &create("a")));
        assert!(futures::poll!(again.as_mut()).is_pending());
        // About another volume nobody waits.
        let other =
            node.call(DELETE, &DeleteVolumeRequest { volume_id: "vol-x".to_owned(), ..Default::default() });
        let mut other = std::pin::pin!(other);
        assert!(futures::poll!(other.as_mut()).is_pending());
        until("the other call", || driver.calls() == ["create a", "delete vol-x"]).await;
        driver.behave(Behaviour::Right);
        first.await.unwrap();
        other.await.unwrap();
        again.await.unwrap();
        assert_eq!(driver.calls(), ["create a", "delete vol-x", "create a"]);
        assert_eq!(driver.made(), 1);
        node.stop().await;
    });
}

#[test]
fn a_driver_that_hangs_takes_its_time_and_no_more_places_than_there_are() {
    run(async |root, driver| {
        let node = start(root).await;
        driver.behave(Behaviour::Hangs);
        let short = CsiCall::new(DRIVER, CREATE, Duration::from_secs(1)).unwrap();
        let late = begin(&node.csi, short.clone(), web::request(&create("late").encode_to_vec())).await;
        assert_eq!(late.unwrap_err().code(), Code::DeadlineExceeded);
        // Each about another volume, and two about one.
        let names: Vec<String> = (0..20).map(|number| format!("v{}", number.max(1))).collect();
        let all = names
            .iter()
            .map(|name| begin(&node.csi, short.clone(), web::request(&create(name).encode_to_vec())));
        let codes: Vec<Code> = join_all(all).await.into_iter().map(|done| done.unwrap_err().code()).collect();
        let of = |code: Code| codes.iter().filter(|one| **one == code).count();
        assert_eq!((of(Code::DeadlineExceeded), of(Code::Unavailable)), (16, 4), "{codes:?}");
        assert_eq!(driver.calls().len(), 16, "one waited for its turn, and its time was over");
        driver.behave(Behaviour::Right);
        node.call(CREATE, &create("v1")).await.unwrap();
        node.stop().await;
    });
}
