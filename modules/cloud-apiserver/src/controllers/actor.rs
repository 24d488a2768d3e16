//! The controller manager: starts informers, then the controllers that read them.

use std::collections::BTreeMap;
use std::rc::Rc;

use apimachinery::{Kind, kind};
use beehive::{Actor, Address, Context, Fault, Hive, Mailbox, Message, Policy};

use super::client::ApiClient;
use super::controller::{Controller, ControllerMsg, Reconciler};
use super::garbagecollector::{GarbageCollector, Graph, OwnerGraph};
use super::in_flight::InFlight;
use super::informer::{Informer, Lister, Selection, watch_objects};
use super::informer_cache::InformerCache;
use super::turn::Turn;
use super::{
    ControllerContext, ControllerSettings, LEASE_NAMESPACE, Listers, ROOT_CA, deployment, endpoints,
    garbagecollector, namespace, nodelifecycle, replicaset, scheduler, serviceaccount,
};

const INFORMER: &str = "informer";
const CONTROLLER: &str = "controller";
const OWNER_GRAPH: &str = "owner-graph";

/// Nobody tells the controller manager anything.
#[derive(Debug)]
pub enum ControllerManagerMsg {}

impl Message for ControllerManagerMsg {
    fn name(&self) -> &'static str {
        match *self {}
    }
}

/// Declares what it starts.
pub(crate) fn declare_children(hive: &mut Hive, name: &'static str) {
    for child in [INFORMER, CONTROLLER, OWNER_GRAPH] {
        hive.declare_child(name, child);
    }
    hive.declare_child(OWNER_GRAPH, garbagecollector::METADATA_INFORMER);
}

/// Makes the controller manager.
pub(crate) fn supervise(
    hive: &mut Hive,
    mailbox: Mailbox<ControllerManagerMsg>,
    client: kube::Client,
    settings: ControllerSettings,
) {
    let in_flight = Rc::<InFlights>::default();
    let settings = Rc::new(settings);
    hive.supervise(mailbox, Policy::default(), move || ControllerManager {
        client: client.clone(),
        settings: Rc::clone(&settings),
        in_flight: Rc::clone(&in_flight),
    });
}

/// The requests of each controller: they outlive an incarnation of the manager, too.
#[derive(Default)]
struct InFlights(std::cell::RefCell<BTreeMap<&'static str, Rc<InFlight>>>);

impl InFlights {
    fn of(&self, controller: &'static str) -> Rc<InFlight> {
        Rc::clone(self.0.borrow_mut().entry(controller).or_default())
    }

    fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }
}

struct ControllerManager {
    client: kube::Client,
    settings: Rc<ControllerSettings>,
    in_flight: Rc<InFlights>,
}

impl Actor for ControllerManager {
    type Message = ControllerManagerMsg;

    async fn started(&mut self, cx: &mut Context<ControllerManagerMsg>) -> Result<(), Fault> {
        // Those of an earlier incarnation begin anew, too: they wait for their requests.
        let is_restart = !self.in_flight.is_empty();
        let start = Start { listers: Rc::new(self.informers(cx)), manager: self, cx, is_restart };
        start.controller("scheduler", scheduler::Scheduler::new);
        start.controller("deployment", deployment::Deployments::new);
        start.controller("replicaset", replicaset::ReplicaSets::new);
        start.controller("namespace", namespace::Namespaces::new);
        start.controller("serviceaccount", serviceaccount::ServiceAccounts::new);
        start.controller("endpoints", endpoints::Endpoints::new);
        start.controller("node-lifecycle", nodelifecycle::NodeLifecycle::new);
        start.garbage_collector();
        Ok(())
    }

    async fn handle(
        &mut self,
        message: ControllerManagerMsg,
        _: &mut Context<ControllerManagerMsg>,
    ) -> Result<(), Fault> {
        match message {}
    }
}

impl ControllerManager {
    fn informers(&self, cx: &Context<ControllerManagerMsg>) -> Listers {
        let all = |kind| self.informer(cx, kind, Selection::All);
        Listers {
            nodes: all(kind::NODES),
            pods: all(kind::PODS),
            deployments: all(kind::DEPLOYMENTS),
            replica_sets: all(kind::REPLICA_SETS),
            services: all(kind::SERVICES),
            endpoints: all(kind::ENDPOINTS),
            endpoint_slices: all(kind::ENDPOINT_SLICES),
            namespaces: all(kind::NAMESPACES),
            definitions: all(kind::CUSTOM_RESOURCE_DEFINITIONS),
            leases: self.informer(cx, kind::LEASES, Selection::Namespace(LEASE_NAMESPACE)),
            accounts: self.informer(cx, kind::SERVICE_ACCOUNTS, Selection::Named("default")),
            root_cas: self.informer(cx, kind::CONFIG_MAPS, Selection::Named(ROOT_CA)),
        }
    }

    fn informer(&self, cx: &Context<ControllerManagerMsg>, kind: Kind, selection: Selection) -> Rc<Lister> {
        let (cache, client) = (InformerCache::new(), self.client.clone());
        let resource = kind.plural.to_string();
        let begin = Rc::new(move || watch_objects(&client, kind.clone(), selection));
        let (name, kept) = (resource.clone(), Rc::clone(&cache));
        let informer = cx.child(
            (INFORMER, resource),
            Informer::<std::sync::Arc<serde_json::Value>>::policy(),
            move || Informer::new(name.clone(), Rc::clone(&kept), begin.clone()),
        );
        Lister::new(cache, informer)
    }
}

/// What controllers are started with.
struct Start<'a> {
    manager: &'a ControllerManager,
    cx: &'a Context<ControllerManagerMsg>,
    listers: Rc<Listers>,
    is_restart: bool,
}

impl Start<'_> {
    fn context(&self, name: &'static str) -> Rc<ControllerContext> {
        let in_flight = self.manager.in_flight.of(name);
        let client =
            ApiClient::new(self.manager.client.clone(), self.cx.env().clone(), Rc::clone(&in_flight));
        Rc::new(ControllerContext {
            name,
            settings: Rc::clone(&self.manager.settings),
            client,
            in_flight,
            listers: Rc::clone(&self.listers),
            turn: Turn::default(),
        })
    }

    /// Starts a controller and has the caches that it reads tell it of their changes.
    fn controller<R: Reconciler>(
        &self,
        name: &'static str,
        make: impl Fn(&Rc<ControllerContext>) -> R + 'static,
    ) -> Address<ControllerMsg> {
        let context = self.context(name);
        let reads = make(&context).listers();
        let mut is_restart = self.is_restart;
        let controller = self.cx.child((CONTROLLER, name), Controller::<R>::policy(), move || {
            let controller = Controller::new(make(&context), Rc::clone(&context), is_restart);
            is_restart = true;
            controller
        });
        for lister in reads {
            lister.cache().subscribe(changed(&controller));
        }
        controller
    }

    fn garbage_collector(&self) {
        let graph = Rc::<Graph>::default();
        let controller = {
            let graph = Rc::clone(&graph);
            self.controller("garbage-collector", move |context| GarbageCollector::new(context, &graph))
        };
        let client = self.manager.client.clone();
        let period = self.manager.settings.discovery_period;
        let owner_graph = self.cx.child(OWNER_GRAPH, OwnerGraph::policy(), move || {
            OwnerGraph::new(client.clone(), period, Rc::clone(&graph), Rc::new(changed(&controller)))
        });
        self.listers.definitions.cache().subscribe(move || garbagecollector::discover_again(&owner_graph));
    }
}

/// Tells a controller that a cache has changed. One whose mailbox is full knows already.
fn changed(controller: &Address<ControllerMsg>) -> impl Fn() + 'static + use<> {
    let controller = controller.clone();
    move || {
        let _ = controller.try_tell(ControllerMsg::Changed);
    }
}
