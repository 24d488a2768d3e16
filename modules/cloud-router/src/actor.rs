//! CloudRouter's actor.

mod uploads;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use beehive::{Actor, Address, Context, Env, Fault, Sample};
use contract::ObjectKey;
use contract::cloudhub::{CloudHubMsg, SessionReader};
use contract::ids::{RULE_ENDPOINTS, RULES};
use contract::nodelease::NodeLeaseMsg;
use contract::router::RouterMsg;
use contract::synccontroller::{Source, SyncMsg};
use futures::future::join_all;
use https::Server;
use kubewatch::{Interruptions, Publisher, SharedCache};
use nodecalls::NodeCalls;
use targets::TargetAddresses;
pub use uploads::UPLOAD_LOG;

use crate::door::Door;
use crate::door_settings::DoorSettings;
use crate::events;
use crate::forwarding::{CurrentRules, Forwarding, SharedStatus};
use crate::peer_door::PeerDoor;
use crate::peer_settings::PeerSettings;
use crate::peers::{Peers, SharedPeers};
use crate::plan::TelemetryTracker;
use crate::rule::does_nothing;
use crate::rule_calls::RuleCalls;
use crate::rule_table::RuleTable;
use crate::rules::{self, Rules, Wanted};
use crate::status::StatusBook;
use crate::status_writer;
use crate::target_client::TargetClient;

/// 1 s between looks whether a status is to be written, or the tokens have changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// 500 ms before a session is looked at again that is not current because a watch has broken off.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// 60 s between looks whether the certificate for other CloudCores is to be made anew.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(60);
/// 10 s until the door is tried again.
const SERVE_AGAIN: Duration = Duration::from_secs(10);
/// 1 s for callers that are being answered while CloudCore stops.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// 2 s for what was counted last, while CloudCore stops.
const WRITE_WITHIN: Duration = Duration::from_secs(2);

/// What is said of a rule where rules have no effect.
const WITHOUT_EFFECT: &str = "the rule does nothing: modules.router.enable is false in cloudcore.yaml (cloudCore.modules.router.enable in the chart); set it, and restart CloudCore";

/// What a CloudRouter is made of.
#[derive(Clone)]
pub struct Dependencies {
    /// The API server.
    pub client: kube::Client,
    /// SyncController, which is told what nodes should hold.
    pub sync: Address<SyncMsg>,
    /// CloudHub, which is asked who is linked.
    pub hub: Address<CloudHubMsg>,
    /// NodeLease, which is asked who has a node.
    pub lease: Address<NodeLeaseMsg>,
    /// Counts the watches that have broken off.
    pub interruptions: Interruptions,
    /// The way to the nodes.
    pub calls: NodeCalls,
    /// Whether rules have an effect.
    pub enable: bool,
    /// What rules may lead to beside what is open to all.
    pub allowed_targets: Vec<String>,
    /// CAs of their certificates beside the system's; empty: none.
    pub target_ca_file: PathBuf,
    /// Where HTTP clients call, if they may.
    pub door: Option<DoorSettings>,
    /// How other CloudCores are known and reached, if they are.
    pub peers: Option<PeerSettings>,
}

/// Brings messages between the cloud's HTTP and nodes by rules, takes telemetry, and says what came.
pub struct CloudRouter {
    dependencies: Dependencies,
    tracker: TelemetryTracker,
    publisher: Publisher,
    /// `None`: rules have no effect.
    rules: Option<Rules>,
    /// Rules where they have none, by name: each is told so.
    without_effect: Option<SharedCache>,
    current: CurrentRules,
    status: SharedStatus,
    /// What stood in the way of each rule when it was last said.
    said: BTreeMap<(String, String), String>,
    forwarding: Option<Forwarding>,
    server: Option<Server>,
    /// For other CloudCores.
    peer_server: Option<Server>,
    known_peers: SharedPeers,
    is_timed: bool,
}

impl CloudRouter {
    /// One that has listed nothing yet.
    pub fn new(dependencies: Dependencies) -> Self {
        CloudRouter {
            publisher: Publisher::new(Source::Router, dependencies.sync.clone()),
            dependencies,
            tracker: TelemetryTracker::default(),
            rules: None,
            without_effect: None,
            current: CurrentRules::default(),
            status: SharedStatus::default(),
            said: BTreeMap::new(),
            forwarding: None,
            server: None,
            peer_server: None,
            known_peers: SharedPeers::default(),
            is_timed: false,
        }
    }
}

impl Actor for CloudRouter {
    type Message = RouterMsg;

    async fn started(&mut self, cx: &mut Context<RouterMsg>) -> Result<(), Fault> {
        if self.dependencies.enable {
            let (client, interruptions) = (&self.dependencies.client, &self.dependencies.interruptions);
            self.rules = Some(Rules::watch(client, interruptions, cx));
            self.forwarding = self.forwarding(cx.env()).await?;
            cx.every(LOOK_EVERY, || RouterMsg::WriteStatus);
            if self.dependencies.peers.is_some() {
                cx.every(CERTIFICATE_LOOK, || RouterMsg::RenewCertificate);
            }
            self.serve_peers(cx);
            self.serve(cx).await;
        } else {
            let Dependencies { client, interruptions, .. } = &self.dependencies;
            self.without_effect = Some(rules::watch_names(client, interruptions, cx));
            cx.every(LOOK_EVERY, || RouterMsg::WriteStatus);
        }
        cx.spawn_tell(&self.dependencies.hub, CloudHubMsg::TellSessions { to: SessionReader::CloudRouter });
        self.reconcile(cx).await;
        Ok(())
    }

    async fn handle(&mut self, message: RouterMsg, cx: &mut Context<RouterMsg>) -> Result<(), Fault> {
        match message {
            RouterMsg::Up { node, message } => self.up(node, message, cx),
            RouterMsg::AllNodesDown => self.publisher.all_nodes_down(),
            RouterMsg::NodeUp { node, session } => {
                self.publisher.node_up(node, session, cx.now());
                self.reconcile(cx).await;
            }
            RouterMsg::NodeDown { node, session } => {
                self.publisher.node_down(&node, session);
            }
            RouterMsg::ListAgain => self.list_again(cx).await,
            RouterMsg::Reconcile => {
                self.is_timed = false;
                self.reconcile(cx).await;
            }
            RouterMsg::WriteStatus => {
                self.write_status(cx);
                if self.dependencies.enable {
                    self.read_tokens(cx).await;
                }
            }
            RouterMsg::StatusWritten { rule, is_written } => {
                self.status.with(|status| status.ended(&rule, is_written));
            }
            RouterMsg::Serve => {
                self.server = None;
                self.serve(cx).await;
            }
            RouterMsg::ServePeers => {
                self.peer_server = None;
                self.serve_peers(cx);
            }
            RouterMsg::RenewCertificate => self.renew_certificate(cx),
        }
        Ok(())
    }

    async fn stopping(&mut self, cx: &mut Context<RouterMsg>) {
        let servers = [self.server.take(), self.peer_server.take()];
        join_all(servers.iter().flatten().map(|server| server.stop(STOP_WITHIN))).await;
        let (client, env) = (self.dependencies.client.clone(), cx.env().clone());
        let rest = self.status.with(StatusBook::rest);
        let written = rest.into_iter().map(|status| status_writer::write(&client, status, &env));
        // What is not written by then was counted for nobody.
        env.timeout(WRITE_WITHIN, join_all(written)).await;
    }

    fn snapshot(&self) -> serde_json::Value {
        let mut view = self.tracker.view();
        let table = self.current.get();
        view["rules"] = serde_json::json!({
            "enabled": self.dependencies.enable,
            "listed": table.is_listed,
            "known": table.all().count(),
            "withoutEffect": table.all().filter(|rule| rule.action.is_err()).count(),
            "unreadable": self.rules.as_ref().map_or(0, Rules::unreadable),
            "nodesWithRules": self.publisher.nodes(),
            "busyTopics": self.forwarding.as_ref().map_or(0, Forwarding::busy),
            "door": self.server.as_ref().and(self.dependencies.door.as_ref()).map(DoorSettings::address),
        });
        if let (Some(peers), Some(server)) = (&self.dependencies.peers, &self.peer_server) {
            let known = self.known_peers.lock();
            let unreached: BTreeMap<&str, u64> = known.unreached().collect();
            view["peers"] = serde_json::json!({
                "address": peers.address(),
                "nodesKnown": known.count(),
                "unreached": unreached,
                "connections": server.counts(),
            });
        }
        view
    }

    fn samples(&self) -> Vec<Sample> {
        let mut samples = self.tracker.samples();
        if self.dependencies.enable && self.dependencies.peers.is_some() {
            // At most 64.
            let unreached = self.known_peers.lock().unreached().count() as f64;
            samples.push(Sample::new("kubehive_router_peers_unreached", unreached));
        }
        samples
    }
}

/// Rules, and what nodes should hold of them.
impl CloudRouter {
    async fn list_again(&mut self, cx: &Context<RouterMsg>) {
        if !self.publisher.list_again() {
            return;
        }
        let wanted = self.rules.as_ref().map(Rules::all).unwrap_or_default();
        self.publisher.publish(&wanted, cx.env().traces()).await;
        self.publisher.complete().await;
        self.reconcile(cx).await;
    }

    /// Compares what nodes should hold with what was sent, as far as anything changed, and sends the difference. Where rules have no
    /// effect no node should hold any.
    async fn reconcile(&mut self, cx: &Context<RouterMsg>) {
        self.say_without_effect(cx);
        let wanted = match &mut self.rules {
            None => Wanted::new(),
            Some(rules) => {
                let Some((wanted, table)) = rules.changed() else { return };
                if let Some(table) = table {
                    self.take_rules(table, cx);
                }
                wanted
            }
        };
        self.publisher.publish(&wanted, cx.env().traces()).await;
        self.publisher.complete().await;
        let watched: &[&str] = if self.rules.is_some() { &[RULES, RULE_ENDPOINTS] } else { &[] };
        if self.dependencies.interruptions.are_whole(watched) {
            for node in self.publisher.not_current() {
                self.publisher.current(&node, Default::default()).await;
            }
        } else if !self.publisher.not_current().is_empty() && !std::mem::replace(&mut self.is_timed, true) {
            cx.after(AGAIN_AFTER, RouterMsg::Reconcile);
        }
    }

    /// Whoever wrote a rule that nothing comes of reads in its status what to set; once of each, as another CloudCore may serve them.
    fn say_without_effect(&mut self, cx: &Context<RouterMsg>) {
        let Some(cache) = &self.without_effect else { return };
        let mut cache = cache.borrow_mut();
        cache.take_moved();
        if !cache.listed {
            return;
        }
        let mut said = BTreeMap::new();
        for (key, rule) in &cache.objects {
            let (named, uid) = ((key.to_string(), rule.object.uid.clone()), rule.object.uid.as_str());
            if !self.said.contains_key(&named) {
                self.status.with(|status| status.said(key, uid, WITHOUT_EFFECT, cx.now()));
            }
            said.insert(named, String::new());
        }
        self.said = said;
        let is_there =
            |key: &ObjectKey, uid: &str| cache.objects.get(key).is_some_and(|rule| rule.object.uid == uid);
        self.status.with(|status| status.retain(is_there));
    }

    /// These are the rules from now on. What keeps one from having an effect stands in its status.
    fn take_rules(&mut self, table: RuleTable, cx: &Context<RouterMsg>) {
        let mut said = BTreeMap::new();
        for rule in table.all() {
            let Err(why) = &rule.action else { continue };
            let named = (rule.key.to_string(), rule.uid.clone());
            if self.said.get(&named) != Some(why) {
                let why = does_nothing(why);
                self.status.with(|status| status.said(&rule.key, &rule.uid, &why, cx.now()));
            }
            said.insert(named, why.clone());
        }
        self.said = said;
        let uids: BTreeMap<String, String> =
            table.all().map(|rule| (rule.key.to_string(), rule.uid.clone())).collect();
        self.status.with(|status| {
            status.retain(|key, uid| uids.get(&key.to_string()).is_some_and(|known| known == uid));
        });
        self.current.set(table);
    }

    fn write_status(&self, cx: &Context<RouterMsg>) {
        for due in self.status.with(|status| status.due(cx.now())) {
            let (client, env, myself) = (self.dependencies.client.clone(), cx.env().clone(), cx.myself());
            cx.spawn(async move {
                let rule = due.key.clone();
                let is_written = status_writer::write(&client, due, &env).await;
                let _ = myself.tell(RouterMsg::StatusWritten { rule, is_written }).await;
            });
        }
    }
}

/// The ways to targets, and the door.
impl CloudRouter {
    async fn forwarding(&self, env: &Env) -> Result<Option<Forwarding>, Fault> {
        let Dependencies { allowed_targets, target_ca_file, .. } = self.dependencies.clone();
        let made =
            env.blocking(move || TargetClient::new(TargetAddresses::new(&allowed_targets), &target_ca_file));
        match made.await? {
            Ok(client) => {
                let (rules, status) = (self.current.clone(), self.status.clone());
                Ok(Some(Forwarding::new(client, rules, status, env.clone())))
            }
            Err(error) => {
                events::no_client(env, &Fault::from_error(&error).reason);
                Err(Fault::from_error(&error))
            }
        }
    }

    fn calls(&self, cx: &Context<RouterMsg>) -> RuleCalls {
        RuleCalls {
            rules: self.current.clone(),
            status: self.status.clone(),
            calls: self.dependencies.calls.clone(),
            clock: cx.env().clock(),
        }
    }

    async fn serve(&mut self, cx: &Context<RouterMsg>) {
        let Some(settings) = &self.dependencies.door else { return };
        let peers = self.dependencies.peers.clone().map(|settings| Peers {
            lease: self.dependencies.lease.clone(),
            settings,
            known: self.known_peers.clone(),
            clock: cx.env().clock(),
            metrics: cx.env().metrics().clone(),
        });
        let door = Door {
            callers: settings.callers.clone(),
            calls: self.calls(cx),
            within: settings.within,
            peers,
            metrics: cx.env().metrics().clone(),
        };
        match settings.serve(door, cx.env()) {
            Ok(server) => {
                server.tell_end(cx, RouterMsg::Serve);
                self.server = Some(server);
            }
            Err(error) => {
                events::door_not_served(cx.env(), &error.to_string());
                cx.after(SERVE_AGAIN, RouterMsg::Serve);
            }
        }
    }

    fn serve_peers(&mut self, cx: &Context<RouterMsg>) {
        let Some(settings) = &self.dependencies.peers else { return };
        let door = PeerDoor {
            calls: self.calls(cx),
            within: settings.within,
            metrics: cx.env().metrics().clone(),
            refused: AtomicU64::new(0),
        };
        match door.serve(settings, cx.env()) {
            Ok(server) => {
                server.tell_end(cx, RouterMsg::ServePeers);
                self.peer_server = Some(server);
            }
            Err(error) => {
                events::peers_not_served(cx.env(), &error.to_string());
                cx.after(SERVE_AGAIN, RouterMsg::ServePeers);
            }
        }
    }

    fn renew_certificate(&self, cx: &Context<RouterMsg>) {
        let Some(settings) = &self.dependencies.peers else { return };
        match settings.renew(cx.env()) {
            Ok(false) => {}
            Ok(true) => events::peer_certificate_renewed(cx.env()),
            Err(error) => {
                events::peer_certificate_not_renewed(cx.env(), &Fault::from_error(&error).reason);
            }
        }
    }

    async fn read_tokens(&self, cx: &Context<RouterMsg>) {
        let Some(settings) = self.dependencies.door.clone() else { return };
        match cx.env().blocking(move || settings.read_again()).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => events::tokens_read(cx.env()),
            Ok(Err(error)) => events::tokens_not_read(cx.env(), &error.to_string()),
            Err(fault) => events::tokens_not_read(cx.env(), &fault.reason),
        }
    }
}
