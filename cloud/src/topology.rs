//! The map of CloudCore: who there is beside what listens, who may talk to whom, and what each is made of.

use std::rc::Rc;
use std::time::Duration;

use beehive::link::Acceptor;
use beehive::{Address, Capacity, Flow, Hive, Mailbox, Policy};
use cloud_devicecontroller::DeviceController;
use cloud_edgecontroller::EdgeController;
pub use cloud_edgecontroller::PodAddresses;
use cloud_hub::{Addresses, CloudHub, KnownCertificates, LinkedNodes, RenewalSettings};
use cloud_nodelease::NodeLease;
use cloud_router::CloudRouter;
use cloud_stream::CloudStream;
use cloud_synccontroller::SyncController;
use cloud_taskmanager::TaskManager;
use contract::cloudhub::CloudHubMsg;
use contract::cloudstream::CloudStreamMsg;
use contract::cloudtaskmanager::CloudTaskMsg;
use contract::devicecontroller::DeviceControllerMsg;
use contract::edgecontroller::EdgeControllerMsg;
use contract::nodelease::NodeLeaseMsg;
use contract::router::RouterMsg;
use contract::synccontroller::SyncMsg;
use contract::wire::{EDGE_HUB_MAILBOX, META_MAILBOX, TWIN_MAILBOX};
use kubewatch::{Interruptions, ReadAs};
use nodecalls::NodeCalls;
use noderegistry::Registry;
use tokio::sync::Mutex;

use crate::listeners::CERTIFICATES;

const HUB: &str = contract::wire::CLOUD_HUB_MAILBOX;
const EDGE: &str = contract::wire::EDGE_MAILBOX;
const DEVICE: &str = contract::wire::DEVICE_MAILBOX;
const ROUTER: &str = contract::wire::ROUTER_MAILBOX;
const TASKS: &str = contract::wire::TASK_MAILBOX;
const SYNC: &str = "cloud-synccontroller";
const LEASE: &str = "cloud-nodelease";
const STREAM: &str = "cloud-stream";

/// Every mailbox of CloudCore and every address that was granted.
pub struct Mailboxes {
    lease: Mailbox<NodeLeaseMsg>,
    sync: Mailbox<SyncMsg>,
    edge: Mailbox<EdgeControllerMsg>,
    device: Mailbox<DeviceControllerMsg>,
    router: Mailbox<RouterMsg>,
    tasks: Mailbox<CloudTaskMsg>,
    stream: Mailbox<CloudStreamMsg>,
    hub: Mailbox<CloudHubMsg>,
    lease_to_hub: Address<CloudHubMsg>,
    sync_to: cloud_synccontroller::Addresses,
    edge_to: ControllerAddresses,
    device_to: ControllerAddresses,
    tasks_to: ControllerAddresses,
    edge_to_stream: Address<CloudStreamMsg>,
    stream_to_edge: Address<EdgeControllerMsg>,
    stream_to_hub: Address<CloudHubMsg>,
    hub_to: Addresses,
    router_to_sync: Address<SyncMsg>,
    router_to_hub: Address<CloudHubMsg>,
    router_to_lease: Address<NodeLeaseMsg>,
    /// For who keeps certificates good, whom CloudCore makes beside what listens.
    pub certificates_to_hub: Address<CloudHubMsg>,
}

/// Whom a controller speaks to.
struct ControllerAddresses {
    sync: Address<SyncMsg>,
    lease: Address<NodeLeaseMsg>,
    hub: Address<CloudHubMsg>,
}

/// What the actors are made of.
pub struct Dependencies {
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
    /// Which addresses nodes may say of their pods.
    pub pod_addresses: PodAddresses,
    /// Who this CloudCore is among those that run: its own in each life.
    pub identity: String,
    /// As whom Secrets and config maps are read.
    pub read_as: ReadAs,
    /// Which watches have broken off, as all of them say it.
    pub interruptions: Interruptions,
    /// The way to the nodes' kubelet endpoints.
    pub calls: NodeCalls,
    /// What of them is found wrong.
    pub checks: cloud_stream::Checks,
    /// The ports at which it is open to others, if it is.
    pub serving: Option<cloud_stream::Serving>,
    /// How rules are served.
    pub rules: RuleSettings,
    /// Whether jobs on nodes have an effect.
    pub does_jobs: bool,
    /// How nodes' certificates are renewed over their links, if they are.
    pub renewal: Option<RenewalSettings>,
    /// Where the hub says which certificates are good.
    pub known: KnownCertificates,
    /// Where the hub says who is linked.
    pub linked: LinkedNodes,
}

/// How rules are served.
pub struct RuleSettings {
    /// `modules.router`.
    pub settings: config::router::Router,
    /// Where HTTP clients call, if they may.
    pub door: Option<cloud_router::DoorSettings>,
    /// How other CloudCores are known and reached, if they are.
    pub peers: Option<cloud_router::PeerSettings>,
}

/// Registers all mailboxes, sinks before sources, and declares every flow. Nothing of the outside is needed, so that
/// the map can be printed anywhere. What listens comes after it: see [`crate::listeners`].
///
/// Who waits for whom goes one way: the hub for the controllers and CloudStream, that for EdgeController, those for
/// SyncController, all for NodeLease; the router's callers for NodeLease, too. What goes the other way waits in tasks beside the actor.
pub fn mailboxes(hive: &mut Hive) -> Mailboxes {
    let lease =
        hive.mailbox(LEASE, Capacity::new(1024, "a claim and a question of each of a thousand nodes"));
    let sync =
        hive.mailbox(SYNC, Capacity::new(4096, "one change of the caches may be of thousands of objects"));
    let edge = hive.mailbox(EDGE, Capacity::new(1024, "one report batch of each of a thousand nodes"));
    let device = hive.mailbox(DEVICE, Capacity::new(1024, "one report batch of each of a thousand nodes"));
    let router = hive.mailbox(ROUTER, Capacity::new(256, "a frame each, so 64 MiB of telemetry at the most"));
    let tasks = hive.mailbox(TASKS, Capacity::new(1024, "one report of each of a thousand nodes"));
    let stream = hive.mailbox(STREAM, Capacity::new(1024, "a thousand nodes that come back together"));
    let hub = hive.mailbox(HUB, Capacity::new(1024, "a thousand nodes that come back together"));
    hive.declare_child(HUB, cloud_hub::SESSION);
    hive.declare_child(STREAM, cloud_stream::ENDPOINT);
    hive.declare_child(EDGE, cloud_edgecontroller::EVICTION_PROBE);
    let mut controller = |name| ControllerAddresses {
        sync: hive.grant(name, &sync, Flow::Tell),
        lease: hive.grant(name, &lease, Flow::Ask),
        hub: hive.grant(name, &hub, Flow::Spawned),
    };
    let (edge_to, device_to, tasks_to) = (controller(EDGE), controller(DEVICE), controller(TASKS));
    let mailboxes = Mailboxes {
        lease_to_hub: hive.grant(LEASE, &hub, Flow::Spawned),
        sync_to: cloud_synccontroller::Addresses {
            lease: hive.grant(SYNC, &lease, Flow::Ask),
            hub: hive.grant(SYNC, &hub, Flow::Spawned),
            edge: hive.grant(SYNC, &edge, Flow::Spawned),
            device: hive.grant(SYNC, &device, Flow::Spawned),
            router: hive.grant(SYNC, &router, Flow::Spawned),
            tasks: hive.grant(SYNC, &tasks, Flow::Spawned),
        },
        edge_to,
        device_to,
        tasks_to,
        edge_to_stream: hive.grant(EDGE, &stream, Flow::Spawned),
        stream_to_edge: hive.grant(STREAM, &edge, Flow::Tell),
        stream_to_hub: hive.grant(STREAM, &hub, Flow::Spawned),
        hub_to: Addresses {
            sync: hive.grant(HUB, &sync, Flow::Tell),
            lease: hive.grant(HUB, &lease, Flow::Ask),
            edge: hive.grant(HUB, &edge, Flow::Tell),
            device: hive.grant(HUB, &device, Flow::Tell),
            stream: hive.grant(HUB, &stream, Flow::Tell),
            router: hive.grant(HUB, &router, Flow::Tell),
            tasks: hive.grant(HUB, &tasks, Flow::Tell),
        },
        router_to_sync: hive.grant(ROUTER, &sync, Flow::Tell),
        router_to_hub: hive.grant(ROUTER, &hub, Flow::Spawned),
        router_to_lease: hive.grant(ROUTER, &lease, Flow::Ask),
        certificates_to_hub: hive.grant(CERTIFICATES, &hub, Flow::Tell),
        lease,
        sync,
        edge,
        device,
        router,
        tasks,
        stream,
        hub,
    };
    hive.declare_remote(SYNC, META_MAILBOX);
    hive.declare_remote(DEVICE, TWIN_MAILBOX);
    hive.declare_remote(HUB, EDGE_HUB_MAILBOX);
    hive.declare_remote(EDGE_HUB_MAILBOX, HUB);
    hive.declare_remote(META_MAILBOX, EDGE);
    hive.declare_remote(META_MAILBOX, DEVICE);
    hive.declare_remote(META_MAILBOX, ROUTER);
    hive.declare_remote(META_MAILBOX, TASKS);
    mailboxes
}

/// Makes the actors. Each can be restarted at any message: see their headings for what a new incarnation is told again.
pub fn actors(hive: &mut Hive, mailboxes: Mailboxes, dependencies: Dependencies) {
    let Dependencies {
        client,
        acceptor,
        registry,
        node_limit,
        lease_period,
        pod_addresses,
        identity,
        read_as,
        interruptions,
        calls,
        checks,
        serving,
        rules,
        does_jobs,
        renewal,
        known,
        linked,
    } = dependencies;
    let lease_dependencies = cloud_nodelease::Dependencies {
        client: client.clone(),
        hub: mailboxes.lease_to_hub,
        cloudcore: identity,
        address: rules.peers.as_ref().and_then(cloud_router::PeerSettings::address),
        lease_period,
        interruptions: interruptions.clone(),
    };
    hive.supervise(mailboxes.lease, Policy::default(), move || NodeLease::new(lease_dependencies.clone()));
    let sync_to = mailboxes.sync_to;
    hive.supervise(mailboxes.sync, Policy::default(), move || SyncController::new(sync_to.clone()));
    let ControllerAddresses { sync, lease, hub } = mailboxes.edge_to;
    let (watched, edge_client) = (interruptions.clone(), client.clone());
    let edge_dependencies = cloud_edgecontroller::Dependencies {
        client: edge_client,
        sync,
        lease,
        hub,
        stream: mailboxes.edge_to_stream,
        interruptions: watched,
        read_as,
        pod_addresses,
        is_kubelet_endpoint: serving.is_some(),
    };
    hive.supervise(mailboxes.edge, Policy::default(), move || EdgeController::new(edge_dependencies.clone()));
    let RuleSettings {
        settings: config::router::Router { enable, allowed_targets, target_ca_file, .. },
        door,
        peers,
    } = rules;
    let router_dependencies = cloud_router::Dependencies {
        client: client.clone(),
        sync: mailboxes.router_to_sync,
        hub: mailboxes.router_to_hub,
        lease: mailboxes.router_to_lease,
        interruptions: interruptions.clone(),
        calls: calls.clone(),
        enable,
        allowed_targets,
        target_ca_file,
        door,
        peers,
    };
    let of_stream = known.clone();
    let stream_dependencies = cloud_stream::Dependencies {
        is_ours: Rc::new(move |node| of_stream.has(node)),
        client: client.clone(),
        hub: mailboxes.stream_to_hub,
        edge: mailboxes.stream_to_edge,
        calls,
        checks,
        serving,
    };
    hive.supervise(mailboxes.stream, Policy::default(), move || {
        CloudStream::new(stream_dependencies.clone())
    });
    let ControllerAddresses { sync, lease, hub } = mailboxes.tasks_to;
    let task_dependencies = cloud_taskmanager::Dependencies {
        client: client.clone(),
        sync,
        lease,
        hub,
        interruptions: interruptions.clone(),
        enable: does_jobs,
    };
    hive.supervise(mailboxes.tasks, Policy::default(), move || TaskManager::new(task_dependencies.clone()));
    let ControllerAddresses { sync, lease, hub } = mailboxes.device_to;
    let device_dependencies =
        cloud_devicecontroller::Dependencies { client, sync, lease, hub, interruptions };
    hive.supervise(mailboxes.device, Policy::default(), move || {
        DeviceController::new(device_dependencies.clone())
    });
    hive.supervise(mailboxes.router, Policy::default(), move || {
        CloudRouter::new(router_dependencies.clone())
    });
    let (acceptor, hub_to) = (Rc::new(Mutex::new(acceptor)), mailboxes.hub_to);
    hive.supervise(mailboxes.hub, Policy::default(), move || {
        let hub = CloudHub::new(Rc::clone(&acceptor), registry.clone(), node_limit, hub_to.clone())
            .knowing(known.clone())
            .showing(linked.clone());
        match renewal.clone() {
            Some(renewal) => hub.renewing(renewal),
            None => hub,
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_actors_wait_in_a_circle() {
        actix_rt::System::new().block_on(async {
            let mut hive = Hive::new("cloudcore", beehive::Env::real());
            let _mailboxes = mailboxes(&mut hive);
            hive.topology().check().unwrap();
            let text = hive.topology().text();
            assert!(text.contains("cloud-synccontroller reaches over the link edge-metamanager"), "{text}");
        });
    }

    /// Whoever tells waits for room, as whoever asks waits for an answer: neither may come back to where it began.
    #[test]
    fn nobody_waits_in_a_circle() {
        actix_rt::System::new().block_on(async {
            let mut hive = Hive::new("cloudcore", beehive::Env::real());
            let _mailboxes = mailboxes(&mut hive);
            let topology = hive.topology();
            let waits: Vec<(&str, &str)> = topology
                .flows()
                .filter(|(_, _, flow)| matches!(flow, Flow::Tell | Flow::Ask))
                .map(|(from, to, _)| (from, to))
                .collect();
            let mut left: std::collections::BTreeSet<&str> =
                waits.iter().flat_map(|(from, to)| [*from, *to]).collect();
            // Whoever waits for nobody that is left goes, until nobody is left.
            while let Some(free) = left
                .iter()
                .copied()
                .find(|one| !waits.iter().any(|(from, to)| from == one && left.contains(to)))
            {
                left.remove(free);
            }
            assert!(left.is_empty(), "{left:?} wait for each other");
        });
    }
}
