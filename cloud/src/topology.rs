//! The map of CloudCore: who there is, who may talk to whom, and what each is made of.

use std::rc::Rc;
use std::time::Duration;

use beehive::link::Acceptor;
use beehive::{Address, Capacity, Flow, Hive, Mailbox, Policy};
use cloud_devicecontroller::DeviceController;
use cloud_edgecontroller::EdgeController;
use cloud_hub::{CloudHub, Neighbours};
use cloud_router::CloudRouter;
use cloud_synccontroller::SyncController;
use contract::cloudhub::CloudHubMsg;
use contract::devicecontroller::DeviceControllerMsg;
use contract::edgecontroller::EdgeControllerMsg;
use contract::router::RouterMsg;
use contract::synccontroller::SyncMsg;
use contract::wire::META_MAILBOX;
use kubewatch::{Interruptions, Reading};
use noderegistry::Registry;
use tokio::sync::Mutex;

const HUB: &str = "cloud-hub";
const EDGE: &str = contract::wire::EDGE_MAILBOX;
const DEVICE: &str = contract::wire::DEVICE_MAILBOX;
const ROUTER: &str = contract::wire::ROUTER_MAILBOX;
const SYNC: &str = "cloud-synccontroller";

/// Every mailbox of CloudCore and every address that was granted.
pub struct Seats {
    sync: Mailbox<SyncMsg>,
    edge: Mailbox<EdgeControllerMsg>,
    device: Mailbox<DeviceControllerMsg>,
    router: Mailbox<RouterMsg>,
    hub: Mailbox<CloudHubMsg>,
    sync_to_edge: Address<EdgeControllerMsg>,
    edge_to_sync: Address<SyncMsg>,
    edge_to_hub: Address<CloudHubMsg>,
    device_to_sync: Address<SyncMsg>,
    device_to_edge: Address<EdgeControllerMsg>,
    hub_to: Neighbours,
}

/// What the actors are made of.
pub struct Parts {
    /// The API server.
    pub client: kube::Client,
    /// Where nodes arrive.
    pub acceptor: Box<dyn Acceptor>,
    /// Who is a node of ours.
    pub registry: Registry,
    /// Nodes at once.
    pub node_limit: usize,
    /// How often an alive node's Lease is renewed.
    pub lease_period: Duration,
    /// Who this CloudCore is among those that run: its own in each life.
    pub identity: String,
    /// As whom Secrets and config maps are read.
    pub reading: Reading,
}

/// Registers all mailboxes, sinks before sources, and declares every flow. Nothing of the outside is needed, so that
/// the map can be printed anywhere.
pub fn seats(hive: &mut Hive) -> Seats {
    let sync =
        hive.mailbox(SYNC, Capacity::new(4096, "one look at the caches may move thousands of objects"));
    let edge = hive.mailbox(EDGE, Capacity::new(1024, "one report batch of each of a thousand nodes"));
    let device = hive.mailbox(DEVICE, Capacity::new(1024, "one report batch of each of a thousand nodes"));
    let router = hive.mailbox(ROUTER, Capacity::new(256, "a frame each, so 64 MiB of telemetry at the most"));
    let hub = hive.mailbox(HUB, Capacity::new(1024, "a thousand nodes that come back together"));
    let seats = Seats {
        sync_to_edge: hive.grant(SYNC, &edge, Flow::Spawned),
        edge_to_sync: hive.grant(EDGE, &sync, Flow::Tell),
        edge_to_hub: hive.grant(EDGE, &hub, Flow::Spawned),
        device_to_sync: hive.grant(DEVICE, &sync, Flow::Tell),
        device_to_edge: hive.grant(DEVICE, &edge, Flow::Ask),
        hub_to: Neighbours {
            sync: hive.grant(HUB, &sync, Flow::Tell),
            edge: hive.grant(HUB, &edge, Flow::Ask),
            device: hive.grant(HUB, &device, Flow::Tell),
            router: hive.grant(HUB, &router, Flow::Tell),
        },
        sync,
        edge,
        device,
        router,
        hub,
    };
    hive.declare_remote(SYNC, META_MAILBOX);
    hive.declare_remote(META_MAILBOX, EDGE);
    hive.declare_remote(META_MAILBOX, DEVICE);
    hive.declare_remote(META_MAILBOX, ROUTER);
    seats
}

/// These three hold one truth together, in memory: a new one beside two old ones would have lost its part. The first
/// fault of one ends the daemon, which lists everything again when it comes back.
fn together() -> Policy {
    Policy { budget: 0, ..Policy::default() }
}

/// Makes the actors.
pub fn actors(hive: &mut Hive, seats: Seats, parts: Parts) {
    let Parts { client, acceptor, registry, node_limit, lease_period, identity, reading } = parts;
    let sync_to_edge = seats.sync_to_edge;
    hive.supervise(seats.sync, together(), move || SyncController::new(sync_to_edge.clone()));
    let interruptions = Interruptions::default();
    let watched = interruptions.clone();
    let (edge_client, edge_to_sync, edge_to_hub) = (client.clone(), seats.edge_to_sync, seats.edge_to_hub);
    hive.supervise(seats.edge, together(), move || {
        let (client, sync, hub) = (edge_client.clone(), edge_to_sync.clone(), edge_to_hub.clone());
        EdgeController::new(client, sync, hub, &identity, lease_period, watched.clone(), reading)
    });
    let (device_to_sync, device_to_edge) = (seats.device_to_sync, seats.device_to_edge);
    hive.supervise(seats.device, together(), move || {
        let (sync, edge) = (device_to_sync.clone(), device_to_edge.clone());
        DeviceController::new(client.clone(), sync, edge, interruptions.clone())
    });
    hive.supervise(seats.router, Policy::default(), CloudRouter::default);
    let (acceptor, hub_to) = (Rc::new(Mutex::new(acceptor)), seats.hub_to);
    hive.supervise(seats.hub, Policy::default(), move || {
        CloudHub::new(Rc::clone(&acceptor), registry.clone(), node_limit, hub_to.clone())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_actors_wait_in_a_circle() {
        actix_rt::System::new().block_on(async {
            let mut hive = Hive::new("cloudcore", beehive::Env::real());
            let _seats = seats(&mut hive);
            hive.topology().check().unwrap();
            let text = hive.topology().text();
            assert!(text.contains("cloud-synccontroller reaches over the link edge-metamanager"), "{text}");
        });
    }
}
