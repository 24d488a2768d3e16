//! The map of EdgeCore: who there is, who may talk to whom, and what each is made of.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Actor, Address, Capacity, Flow, Hive, Mailbox, Policy};
use config::edge::EdgeCore as Settings;
use contract::devicetwin::TwinMsg;
use contract::edged::EdgedMsg;
use contract::edgehub::EdgeHubMsg;
use contract::eventbus::EventBusMsg;
use contract::metamanager::MetaMsg;
use contract::wire::{DEVICE_MAILBOX, EDGE_MAILBOX, META_MAILBOX, ROUTER_MAILBOX};
use edge_devicetwin::DeviceTwin;
use edge_edged::Edged;
use edge_hub::EdgeHub;
use edge_metamanager::MetaManager;

use crate::Parts;

const META: &str = META_MAILBOX;
const EDGED: &str = "edge-edged";
const TWIN: &str = "edge-devicetwin";
const BUS: &str = "edge-eventbus";
const HUB: &str = "edge-hub";

/// Every mailbox of EdgeCore and every address that was granted.
pub struct Seats {
    bus: Mailbox<EventBusMsg>,
    twin: Mailbox<TwinMsg>,
    edged: Mailbox<EdgedMsg>,
    meta: Mailbox<MetaMsg>,
    hub: Mailbox<EdgeHubMsg>,
    twin_to_bus: Address<EventBusMsg>,
    twin_to_meta: Address<MetaMsg>,
    bus_to_twin: Address<TwinMsg>,
    bus_to_meta: Address<MetaMsg>,
    edged_to_meta: Address<MetaMsg>,
    meta_to_edged: Address<EdgedMsg>,
    meta_to_twin: Address<TwinMsg>,
    meta_to_hub: Address<EdgeHubMsg>,
    hub_to_meta: Address<MetaMsg>,
}

/// Registers all mailboxes, sinks before sources, and declares every flow. Nothing of the outside is needed, so that
/// the map can be printed anywhere.
pub fn seats(hive: &mut Hive) -> Seats {
    let meta = hive.mailbox(
        META,
        Capacity::new(256, "16 batches of the cloud, and a token for each pod of a full node"),
    );
    let twin = hive.mailbox(TWIN, Capacity::new(256, "a report of each of a few hundred devices"));
    let bus =
        hive.mailbox(BUS, Capacity::new(1024, "a delta, a document and a result for each of those reports"));
    let edged =
        hive.mailbox(EDGED, Capacity::new(256, "a word of each of twice as many pods as a node takes"));
    let hub = hive.mailbox(HUB, Capacity::new(16, "the ends of a few attempts"));
    let seats = Seats {
        twin_to_bus: hive.grant(TWIN, &bus, Flow::TryTell),
        twin_to_meta: hive.grant(TWIN, &meta, Flow::TryTell),
        bus_to_twin: hive.grant(BUS, &twin, Flow::Ask),
        bus_to_meta: hive.grant(BUS, &meta, Flow::TryTell),
        edged_to_meta: hive.grant(EDGED, &meta, Flow::Ask),
        meta_to_edged: hive.grant(META, &edged, Flow::TryTell),
        meta_to_twin: hive.grant(META, &twin, Flow::TryTell),
        meta_to_hub: hive.grant(META, &hub, Flow::TryTell),
        hub_to_meta: hive.grant(HUB, &meta, Flow::Tell),
        bus,
        twin,
        edged,
        meta,
        hub,
    };
    hive.declare_remote(META, EDGE_MAILBOX);
    hive.declare_child(EDGED, edge_edged::POD_WORKER);
    hive.declare_remote(META, DEVICE_MAILBOX);
    hive.declare_remote(META, ROUTER_MAILBOX);
    hive.declare_child(TWIN, "publisher");
    hive.declare_child(TWIN, "dmi-server");
    hive.declare_child("dmi-server", "connection");
    seats
}

/// Makes the actors. `bus` makes the one between the node's MQTT clients and DeviceTwin.
pub fn actors<B: Actor<Message = EventBusMsg>>(
    hive: &mut Hive,
    seats: Seats,
    settings: &Settings,
    parts: Parts,
    bus: impl Fn(Address<TwinMsg>, Address<MetaMsg>) -> B + 'static,
) {
    let Parts { node, common_name, endpoints, network, runtime, store } = parts;
    let modules = settings.modules.clone();
    let kept = store.clone();
    hive.supervise(seats.meta, Policy::default(), move || {
        MetaManager::new(
            kept.clone(),
            seats.meta_to_edged.clone(),
            seats.meta_to_twin.clone(),
            seats.meta_to_hub.clone(),
        )
    });
    let (kept, name, devices) = (store.clone(), node.clone(), modules.device_twin.clone());
    hive.supervise(seats.twin, Policy::default(), move || {
        let (bus, meta) = (seats.twin_to_bus.clone(), seats.twin_to_meta.clone());
        DeviceTwin::new(name.clone(), &devices, kept.clone(), bus, meta)
    });
    hive.supervise(seats.bus, Policy::default(), move || {
        bus(seats.bus_to_twin.clone(), seats.bus_to_meta.clone())
    });
    let heartbeat = Duration::from_secs(modules.edge_hub.heartbeat.into());
    let pods = edge_edged::Settings::new(node.as_str(), &modules.edged).alive_every(heartbeat);
    let kept = store.clone();
    hive.supervise(seats.edged, Policy::default(), move || {
        Edged::new(pods.clone(), Arc::clone(&runtime), kept.clone(), seats.edged_to_meta.clone())
    });
    hive.supervise(seats.hub, Policy::default(), move || {
        let hub = EdgeHub::new(endpoints.clone(), &common_name, seats.hub_to_meta.clone());
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
            let _seats = seats(&mut hive);
            hive.topology().check().unwrap();
            let text = hive.topology().text();
            assert!(text.contains("edge-eventbus asks edge-devicetwin"), "{text}");
        });
    }
}
