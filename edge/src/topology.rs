//! The map of EdgeCore: who there is, who may talk to whom, and what each is made of.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Actor, Address, Capacity, Flow, Hive, Mailbox, Policy};
use config::edge::EdgeCore as Settings;
use contract::NodeName;
use contract::containermanager::ContainerManagerMsg;
use contract::csi::CsiMsg;
use contract::devicerules::DeviceRulesMsg;
use contract::devicetwin::TwinMsg;
use contract::edged::EdgedMsg;
use contract::edgehub::EdgeHubMsg;
use contract::edgepage::EdgePageMsg;
use contract::edgestream::EdgeStreamMsg;
use contract::edgetaskmanager::EdgeTaskMsg;
use contract::eventbus::EventBusMsg;
use contract::metamanager::MetaMsg;
use contract::servicebus::ServiceBusMsg;
use contract::wire::{
    CLOUD_HUB_MAILBOX, DEVICE_MAILBOX, EDGE_HUB_MAILBOX, EDGE_MAILBOX, META_MAILBOX, ROUTER_MAILBOX,
    TASK_MAILBOX,
};
use cri::Runtime;
use edge_containermanager::ContainerManager;
use edge_csi::EdgeCsi;
use edge_devicerules::DeviceRules;
use edge_devicetwin::DeviceTwin;
use edge_edged::{Edged, MachineChecks};
use edge_hub::network::Network;
use edge_hub::{EdgeHub, Endpoints, NamedServers, NodeCertificates};
use edge_metamanager::MetaManager;
use edge_page::EdgePage;
use edge_servicebus::ServiceBus;
use edge_store::Store;
use edge_stream::EdgeStream;
use edge_taskmanager::{NodePrograms, TaskManager};

const META: &str = META_MAILBOX;
const EDGED: &str = "edge-edged";
const TWIN: &str = "edge-devicetwin";
const RULES: &str = "edge-devicerules";
const BUS: &str = "edge-eventbus";
const CSI: &str = "edge-csi";
const HUB: &str = EDGE_HUB_MAILBOX;
const STREAM: &str = "edge-stream";
const SERVICES: &str = "edge-servicebus";
const TASKS: &str = "edge-taskmanager";
const CONTAINERS: &str = "edge-containermanager";
const PAGE: &str = "edge-page";

/// Every mailbox of EdgeCore and every address that was granted.
pub struct Mailboxes {
    bus: Mailbox<EventBusMsg>,
    twin: Mailbox<TwinMsg>,
    rules: Mailbox<DeviceRulesMsg>,
    edged: Mailbox<EdgedMsg>,
    meta: Mailbox<MetaMsg>,
    csi: Mailbox<CsiMsg>,
    hub: Mailbox<EdgeHubMsg>,
    stream: Mailbox<EdgeStreamMsg>,
    containers: Mailbox<ContainerManagerMsg>,
    services: Mailbox<ServiceBusMsg>,
    tasks: Mailbox<EdgeTaskMsg>,
    page: Mailbox<EdgePageMsg>,
    edged_to_containers: Address<ContainerManagerMsg>,
    containers_to_edged: Address<EdgedMsg>,
    twin_to_bus: Address<EventBusMsg>,
    twin_to_meta: Address<MetaMsg>,
    twin_to_rules: Address<DeviceRulesMsg>,
    rules_to_twin: Address<TwinMsg>,
    rules_to_bus: Address<EventBusMsg>,
    rules_to_meta: Address<MetaMsg>,
    bus_to_twin: Address<TwinMsg>,
    bus_to_meta: Address<MetaMsg>,
    bus_to_edged: Address<EdgedMsg>,
    edged_to_meta: Address<MetaMsg>,
    edged_to_csi: Address<CsiMsg>,
    csi_to_edged: Address<EdgedMsg>,
    meta_to_edged: Address<EdgedMsg>,
    meta_to_twin: Address<TwinMsg>,
    meta_to_hub: Address<EdgeHubMsg>,
    hub_to_meta: Address<MetaMsg>,
    hub_to_stream: Address<EdgeStreamMsg>,
    hub_to_twin: Address<TwinMsg>,
    stream_to_twin: Address<TwinMsg>,
    stream_to_edged: Address<EdgedMsg>,
    stream_to_csi: Address<CsiMsg>,
    stream_to_bus: Address<EventBusMsg>,
    stream_to_services: Address<ServiceBusMsg>,
    services_to_meta: Address<MetaMsg>,
    meta_to_bus: Address<EventBusMsg>,
    meta_to_services: Address<ServiceBusMsg>,
    meta_to_tasks: Address<EdgeTaskMsg>,
    tasks_to_edged: Address<EdgedMsg>,
    tasks_to_meta: Address<MetaMsg>,
    stream_to_page: Address<EdgePageMsg>,
    page_to_hub: Address<EdgeHubMsg>,
    page_to_edged: Address<EdgedMsg>,
    page_to_twin: Address<TwinMsg>,
}

/// What the actors are made of.
#[derive(Clone)]
pub struct Dependencies {
    /// The node's name, from its certificate.
    pub node: NodeName,
    /// The common name of its certificate.
    pub common_name: String,
    /// How the cloud is reached.
    pub endpoints: Endpoints,
    /// The node's certificate, key and CAs, and how servers are reached that the cloud names; without them nothing is renewed.
    pub certificates: Option<(Rc<NodeCertificates>, NamedServers)>,
    /// Eyes on the node's network, so that a change of it is not waited out.
    pub network: Option<Rc<dyn Network>>,
    /// The container runtime.
    pub runtime: Arc<dyn Runtime>,
    /// The node's store: see [`crate::open_store`].
    pub store: Store,
    /// What jobs exchange edgecore with; `None`: they do not.
    pub programs: Option<NodePrograms>,
    /// Looks at what of the machine stops pods; `None`: nobody does.
    pub checks: Option<MachineChecks>,
}

/// Registers all mailboxes, sinks before sources, and declares every flow. Nothing of the outside is needed, so that
/// the map can be printed anywhere.
pub fn mailboxes(hive: &mut Hive) -> Mailboxes {
    let meta = hive.mailbox(
        META,
        Capacity::new(256, "16 batches of the cloud, and a token for each pod of a full node"),
    );
    let twin = hive.mailbox(TWIN, Capacity::new(256, "a report of each of a few hundred devices"));
    let bus =
        hive.mailbox(BUS, Capacity::new(1024, "a delta, a document and a result for each of those reports"));
    let edged =
        hive.mailbox(EDGED, Capacity::new(256, "a word of each of twice as many pods as a node takes"));
    let csi = hive.mailbox(CSI, Capacity::new(256, "a volume of each of twice as many pods as a node takes"));
    let hub = hive.mailbox(HUB, Capacity::new(16, "the ends of a few attempts"));
    let stream =
        hive.mailbox(STREAM, Capacity::new(64, "calls that come at once; each goes on on another thread"));
    let containers = hive.mailbox(
        CONTAINERS,
        Capacity::new(256, "a question of each of twice as many containers as a node starts at a time"),
    );
    let services =
        hive.mailbox(SERVICES, Capacity::new(64, "calls that come at once; each goes on in a task"));
    let tasks =
        hive.mailbox(TASKS, Capacity::new(16, "one step is under way, and words that objects changed"));
    let rules = hive.mailbox(
        RULES,
        Capacity::new(
            256,
            "a word on each of a few hundred devices; the newest of what does not fit comes later",
        ),
    );
    let page = hive.mailbox(PAGE, Capacity::new(32, "as many who want to see the page as may wait for it"));
    let mailboxes = Mailboxes {
        twin_to_rules: hive.grant(TWIN, &rules, Flow::TryTell),
        rules_to_twin: hive.grant(RULES, &twin, Flow::Ask),
        rules_to_bus: hive.grant(RULES, &bus, Flow::Ask),
        rules_to_meta: hive.grant(RULES, &meta, Flow::TryTell),
        stream_to_bus: hive.grant(STREAM, &bus, Flow::Ask),
        stream_to_services: hive.grant(STREAM, &services, Flow::TryTell),
        services_to_meta: hive.grant(SERVICES, &meta, Flow::Ask),
        meta_to_bus: hive.grant(META, &bus, Flow::TryTell),
        meta_to_services: hive.grant(META, &services, Flow::TryTell),
        meta_to_tasks: hive.grant(META, &tasks, Flow::TryTell),
        tasks_to_edged: hive.grant(TASKS, &edged, Flow::Ask),
        tasks_to_meta: hive.grant(TASKS, &meta, Flow::TryTell),
        edged_to_containers: hive.grant(EDGED, &containers, Flow::Ask),
        containers_to_edged: hive.grant(CONTAINERS, &edged, Flow::TryTell),
        twin_to_bus: hive.grant(TWIN, &bus, Flow::TryTell),
        twin_to_meta: hive.grant(TWIN, &meta, Flow::TryTell),
        bus_to_twin: hive.grant(BUS, &twin, Flow::Ask),
        bus_to_meta: hive.grant(BUS, &meta, Flow::TryTell),
        bus_to_edged: hive.grant(BUS, &edged, Flow::TryTell),
        edged_to_meta: hive.grant(EDGED, &meta, Flow::Ask),
        edged_to_csi: hive.grant(EDGED, &csi, Flow::Ask),
        csi_to_edged: hive.grant(CSI, &edged, Flow::TryTell),
        meta_to_edged: hive.grant(META, &edged, Flow::TryTell),
        meta_to_twin: hive.grant(META, &twin, Flow::TryTell),
        meta_to_hub: hive.grant(META, &hub, Flow::TryTell),
        hub_to_meta: hive.grant(HUB, &meta, Flow::Tell),
        hub_to_stream: hive.grant(HUB, &stream, Flow::TryTell),
        hub_to_twin: hive.grant(HUB, &twin, Flow::Tell),
        stream_to_twin: hive.grant(STREAM, &twin, Flow::Ask),
        stream_to_edged: hive.grant(STREAM, &edged, Flow::Ask),
        stream_to_csi: hive.grant(STREAM, &csi, Flow::Ask),
        stream_to_page: hive.grant(STREAM, &page, Flow::Ask),
        page_to_hub: hive.grant(PAGE, &hub, Flow::Ask),
        page_to_edged: hive.grant(PAGE, &edged, Flow::Ask),
        page_to_twin: hive.grant(PAGE, &twin, Flow::Ask),
        bus,
        twin,
        rules,
        edged,
        meta,
        csi,
        hub,
        stream,
        containers,
        services,
        tasks,
        page,
    };
    hive.declare_remote(META, EDGE_MAILBOX);
    hive.declare_child(EDGED, edge_edged::POD_WORKER);
    hive.declare_remote(META, DEVICE_MAILBOX);
    hive.declare_remote(HUB, CLOUD_HUB_MAILBOX);
    hive.declare_remote(META, ROUTER_MAILBOX);
    hive.declare_remote(META, TASK_MAILBOX);
    hive.declare_child(TWIN, "publisher");
    hive.declare_child(TWIN, "dmi-server");
    hive.declare_child("dmi-server", "connection");
    hive.declare_child(CONTAINERS, "registration-socket");
    hive.declare_child(CONTAINERS, "pod-resources-socket");
    hive.declare_child(CONTAINERS, edge_containermanager::PLUGIN_WATCH);
    mailboxes
}

/// Makes the actors. `bus` makes the one between the node's MQTT clients and DeviceTwin.
pub fn actors<B: Actor<Message = EventBusMsg>>(
    hive: &mut Hive,
    mailboxes: Mailboxes,
    settings: &Settings,
    dependencies: Dependencies,
    bus: impl Fn(Address<TwinMsg>, Address<MetaMsg>, Address<EdgedMsg>) -> B + 'static,
) {
    let Dependencies {
        node,
        common_name,
        endpoints,
        certificates,
        network,
        runtime,
        store,
        programs,
        checks,
    } = dependencies;
    let modules = settings.modules.clone();
    let kept = store.clone();
    let has_services = modules.service_bus.enable;
    let meta_to_services = has_services.then_some(mailboxes.meta_to_services);
    hive.supervise(mailboxes.meta, Policy::default(), move || {
        let manager = MetaManager::new(
            kept.clone(),
            mailboxes.meta_to_edged.clone(),
            mailboxes.meta_to_twin.clone(),
            mailboxes.meta_to_hub.clone(),
        );
        manager
            .telling_bus(mailboxes.meta_to_bus.clone())
            .telling_service_bus(meta_to_services.clone())
            .telling_tasks(mailboxes.meta_to_tasks.clone())
    });
    let (kept, name, devices) = (store.clone(), node.clone(), modules.device_twin.clone());
    hive.supervise(mailboxes.twin, Policy::default(), move || {
        let (bus, meta) = (mailboxes.twin_to_bus.clone(), mailboxes.twin_to_meta.clone());
        DeviceTwin::new(name.clone(), &devices, kept.clone(), bus, meta)
            .telling_rules(mailboxes.twin_to_rules.clone())
    });
    let closed_ports = modules.device_twin.rule_calls.then(|| settings.own_ports());
    let of_rules = edge_devicerules::Settings { node: node.clone(), closed_ports };
    let kept = store.clone();
    hive.supervise(mailboxes.rules, Policy::default(), move || {
        let (twin, bus) = (mailboxes.rules_to_twin.clone(), mailboxes.rules_to_bus.clone());
        DeviceRules::new(of_rules.clone(), kept.clone(), twin, bus, mailboxes.rules_to_meta.clone())
    });
    hive.supervise(mailboxes.bus, Policy::default(), move || {
        let (meta, edged) = (mailboxes.bus_to_meta.clone(), mailboxes.bus_to_edged.clone());
        bus(mailboxes.bus_to_twin.clone(), meta, edged)
    });
    let heartbeat = Duration::from_secs(modules.edge_hub.heartbeat.into());
    let pods = edge_edged::Settings::new(node.as_str(), &modules.edged).alive_every(heartbeat);
    let version = pods.version.clone();
    let kept = store.clone();
    let own_runtime = Arc::clone(&runtime);
    let volumes = edge_csi::Settings::new(pods.root.clone(), node.as_str());
    hive.supervise(mailboxes.csi, Policy::default(), move || {
        EdgeCsi::new(volumes.clone(), mailboxes.csi_to_edged.clone())
    });
    hive.supervise(mailboxes.edged, Policy::default(), move || {
        let (meta, csi) = (mailboxes.edged_to_meta.clone(), mailboxes.edged_to_csi.clone());
        Edged::new(pods.clone(), Arc::clone(&own_runtime), kept.clone(), meta)
            .mounting_by(csi)
            .with_containers(mailboxes.edged_to_containers.clone())
            .checking(checks.clone())
    });
    let (kept, jobs) =
        (store.clone(), edge_taskmanager::Settings { enable: modules.task_manager.enable, programs });
    let image_runtime = Arc::clone(&runtime);
    hive.supervise(mailboxes.tasks, Policy::default(), move || {
        let (edged, meta) = (mailboxes.tasks_to_edged.clone(), mailboxes.tasks_to_meta.clone());
        TaskManager::new(jobs.clone(), kept.clone(), edged, meta, Arc::clone(&image_runtime))
    });
    let (kept, given) = (store.clone(), edge_containermanager::Settings::new(&modules.edged));
    let (own_name, own_runtime) = (node.clone(), Arc::clone(&runtime));
    hive.supervise(mailboxes.containers, Policy::default(), move || {
        ContainerManager::new(given.clone(), kept.clone(), mailboxes.containers_to_edged.clone())
            .pinning(own_name.as_str(), Arc::clone(&own_runtime))
    });
    let stream_to_services = has_services.then_some(mailboxes.stream_to_services);
    let (bus_settings, kept) = (edge_servicebus::Settings::new(settings), store.clone());
    hive.supervise(mailboxes.services, Policy::default(), move || {
        ServiceBus::new(bus_settings.clone(), kept.clone(), mailboxes.services_to_meta.clone())
    });
    let (of_page, kept) = (edge_page::Settings::new(node.as_str(), settings), store.clone());
    hive.supervise(mailboxes.page, Policy::default(), move || {
        let (hub, edged) = (mailboxes.page_to_hub.clone(), mailboxes.page_to_edged.clone());
        EdgePage::new(of_page.clone(), hub, edged, mailboxes.page_to_twin.clone(), kept.clone())
    });
    let calls = edge_stream::Settings { version, ..edge_stream::Settings::new(node.as_str(), settings) };
    let (is_served, liveness) = (modules.edge_stream.enable, hive.inspector().liveness());
    hive.supervise(mailboxes.stream, Policy::default(), move || {
        EdgeStream::new(calls.clone(), Arc::clone(&runtime), store.clone(), Some(liveness.clone()))
            .measuring_by(mailboxes.stream_to_edged.clone())
            .calling_drivers_by(mailboxes.stream_to_csi.clone())
            .calling_methods_by(mailboxes.stream_to_twin.clone())
            .inviting_to(mailboxes.stream_to_page.clone())
            .serving_rules_by(mailboxes.stream_to_bus.clone(), stream_to_services.clone())
    });
    hive.supervise(mailboxes.hub, Policy::default(), move || {
        let hub = EdgeHub::new(endpoints.clone(), &common_name, mailboxes.hub_to_meta.clone())
            .calling_devices_of(mailboxes.hub_to_twin.clone());
        let streams = mailboxes.hub_to_stream.clone();
        let hub = if is_served { hub.streaming_to(streams) } else { hub };
        let hub = match certificates.clone() {
            Some((certificates, named)) => hub.keeping(certificates, named),
            None => hub,
        };
        match &network {
            Some(network) => hub.watching(Rc::clone(network)),
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
            let mut hive = Hive::new("edgecore", beehive::Env::real());
            let _seats = mailboxes(&mut hive);
            hive.topology().check().unwrap();
            let text = hive.topology().text();
            assert!(text.contains("edge-eventbus asks edge-devicetwin"), "{text}");
        });
    }
}
