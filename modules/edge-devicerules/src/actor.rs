//! The actor of the rules.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use beehive::{Actor, Address, Context, Fault, Moment, Refusal};
use contract::devicerules::DeviceRulesMsg;
use contract::devicetwin::TwinMsg;
use contract::eventbus::EventBusMsg;
use contract::metamanager::MetaMsg;
use contract::{NodeName, rows};
use edge_store::{Class, OutboxQueue, Store, Write};

use crate::performer::Performer;
use crate::rule_set::{RuleHappening, RuleSet};
use crate::{event_report, events, store};

/// 10 s for DeviceTwin to say which rules there are.
const LIST_WITHIN: Duration = Duration::from_secs(10);
/// 1 s before DeviceTwin is asked again, or what did not fit into its mailbox is said again.
const AGAIN: Duration = Duration::from_secs(1);
/// 5 s before what the store refused is written again.
const KEEP_AGAIN: Duration = Duration::from_secs(5);

/// What rules are told of their node.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The node.
    pub node: NodeName,
    /// Ports of `edgecore`'s own, which no rule calls; `None`: rules call nothing on this node.
    pub closed_ports: Option<BTreeSet<u16>>,
}

/// The rules of the node's devices.
pub struct DeviceRules {
    node: NodeName,
    closed_ports: Option<Rc<BTreeSet<u16>>>,
    store: Store,
    twin: Address<TwinMsg>,
    bus: Address<EventBusMsg>,
    meta: Address<MetaMsg>,
    rules: RuleSet,
    /// DeviceTwin has said which rules there are.
    is_listed: bool,
    /// What has happened since it looked last.
    happenings: Vec<RuleHappening>,
    /// It has told itself to look.
    is_look_due: bool,
    /// When it will be woken.
    wakes: BTreeSet<Moment>,
    /// How often actions were tried in this life.
    acted: u64,
}

impl DeviceRules {
    /// Rules over `store`, with their neighbours.
    pub fn new(
        settings: Settings,
        store: Store,
        twin: Address<TwinMsg>,
        bus: Address<EventBusMsg>,
        meta: Address<MetaMsg>,
    ) -> Self {
        DeviceRules {
            node: settings.node,
            closed_ports: settings.closed_ports.map(Rc::new),
            store,
            twin,
            bus,
            meta,
            rules: RuleSet::default(),
            is_listed: false,
            happenings: Vec::new(),
            is_look_due: false,
            wakes: BTreeSet::new(),
            acted: 0,
        }
    }
}

impl Actor for DeviceRules {
    type Message = DeviceRulesMsg;

    async fn started(&mut self, cx: &mut Context<DeviceRulesMsg>) -> Result<(), Fault> {
        let store = self.store.clone();
        let kept = cx.env().blocking(move || store::load(&store)).await?;
        self.rules = RuleSet::restored(kept.map_err(|error| Fault::from_error(&error))?);
        cx.after(Duration::ZERO, DeviceRulesMsg::TwinsBegan);
        Ok(())
    }

    async fn handle(
        &mut self,
        message: DeviceRulesMsg,
        cx: &mut Context<DeviceRulesMsg>,
    ) -> Result<(), Fault> {
        match message {
            DeviceRulesMsg::TwinsBegan => self.list(cx).await,
            // Until all of it is known, it is in what is asked for.
            DeviceRulesMsg::Facts(facts) if self.is_listed => self.rules.take(*facts),
            DeviceRulesMsg::Facts(_) => {}
            DeviceRulesMsg::Wake => {
                self.is_look_due = false;
                self.wakes.retain(|at| *at > cx.now());
                if self.is_listed {
                    self.look(cx).await;
                }
                return Ok(());
            }
            DeviceRulesMsg::Acted { device, rule, attempt, outcome } => {
                self.acted += 1;
                events::acted(cx.env(), &device, &rule, outcome.done.len(), outcome.failed.len());
                self.happenings.extend(self.rules.acted((device, rule), attempt, outcome, cx.now()));
            }
        }
        // It looks once all that waits before it is taken, and has one commit for all of that.
        if self.is_listed && !std::mem::replace(&mut self.is_look_due, true) {
            cx.spawn_tell(&cx.myself(), DeviceRulesMsg::Wake);
        }
        Ok(())
    }

    fn snapshot(&self) -> serde_json::Value {
        let (devices, rules) = self.rules.counts();
        let (waiting, under_way) = self.rules.load();
        serde_json::json!({
            "devices": devices, "rules": rules, "triggered": self.rules.triggered(), "acted": self.acted,
            "waiting": waiting, "underWay": under_way, "lookedAt": self.rules.looked_at(),
        })
    }
}

impl DeviceRules {
    async fn list(&mut self, cx: &Context<DeviceRulesMsg>) {
        match self.twin.ask(LIST_WITHIN, |reply| TwinMsg::ListFacts { reply }).await {
            Ok(Some(all)) => {
                self.rules.take_all(all);
                self.is_listed = true;
                return;
            }
            Ok(None) => events::not_listed(cx.env(), "the devices have not been read yet"),
            Err(error) => events::not_listed(cx.env(), &error.to_string()),
        }
        cx.after(cx.env().jitter(AGAIN), DeviceRulesMsg::TwinsBegan);
    }

    /// What follows from what is known: rules change, that is kept, and then done.
    async fn look(&mut self, cx: &Context<DeviceRulesMsg>) {
        let mut happenings = std::mem::take(&mut self.happenings);
        happenings.extend(self.rules.judge(cx.now()));
        happenings.iter().for_each(|happening| events::happened(cx.env(), happening));
        let is_kept = self.keep(&happenings, cx).await;
        // What protects a machine is done though the disk is full: a restart then does it again.
        self.act(cx);
        let is_said = self.say();
        let again = [(!is_kept).then(|| cx.now() + KEEP_AGAIN), (!is_said).then(|| cx.now() + AGAIN)];
        let next = self.rules.next().into_iter().chain(again.into_iter().flatten()).min();
        self.wake(next, cx);
    }

    /// Answers whether all is in the store but for Events, which a full outbox does not take.
    async fn keep(&mut self, happenings: &[RuleHappening], cx: &Context<DeviceRulesMsg>) -> bool {
        let (rows, reports) = (self.rules.writes(), self.reports(happenings, cx));
        if rows.is_empty() && reports.is_empty() {
            return true;
        }
        let mut committed = self.store.commit([rows.clone(), reports.clone()].concat()).await;
        if let Err(error) = &committed
            && !reports.is_empty()
        {
            events::event_not_kept(cx.env(), &Fault::from_error(error).reason);
            committed = self.store.commit(rows).await;
        } else if !reports.is_empty() {
            // A full mailbox looks by itself.
            let _ = self.meta.try_tell(MetaMsg::OutboxGrew);
        }
        match committed {
            Ok(_) => {
                self.rules.was_kept();
                true
            }
            Err(error) => {
                events::not_kept(cx.env(), &Fault::from_error(&error).reason);
                false
            }
        }
    }

    /// The Events for which there is room.
    fn reports(&self, happenings: &[RuleHappening], cx: &Context<DeviceRulesMsg>) -> Vec<Write> {
        let mut writes = Vec::new();
        for happening in happenings.iter().filter(|happening| happening.is_told) {
            let report = event_report::event(self.node.as_str(), happening, seconds(cx.wall()));
            match rows::encode_report(&report) {
                Ok(body) => writes.push(Write::Enqueue {
                    queue: OutboxQueue::Node,
                    class: Class::Event,
                    key: format!("event/{}", happening.device),
                    body,
                }),
                Err(error) => events::event_not_kept(cx.env(), &error.to_string()),
            }
        }
        writes
    }

    fn act(&mut self, cx: &Context<DeviceRulesMsg>) {
        for attempt in self.rules.attempts(cx.now()) {
            let performer = Performer {
                env: cx.env().clone(),
                twin: self.twin.clone(),
                bus: self.bus.clone(),
                closed_ports: self.closed_ports.clone(),
            };
            let myself = cx.myself();
            cx.spawn(async move {
                let outcome = performer.perform(&attempt).await;
                let ((device, rule), attempt) = (attempt.key, attempt.number);
                let _ = myself.tell(DeviceRulesMsg::Acted { device, rule, attempt, outcome }).await;
            });
        }
    }

    /// Answers whether all was said.
    fn say(&mut self) -> bool {
        while let Some((device, conditions)) = self.rules.unsaid() {
            let said = TwinMsg::RulesSay { device: device.clone(), conditions: conditions.clone() };
            if self.twin.try_tell(said) == Err(Refusal::Full) {
                return false;
            }
            self.rules.was_said(&device, conditions);
        }
        true
    }

    fn wake(&mut self, at: Option<Moment>, cx: &Context<DeviceRulesMsg>) {
        // What it is woken at before that comes to it again.
        let Some(at) = at.filter(|at| self.wakes.first().is_none_or(|known| at < known)) else { return };
        self.wakes.insert(at);
        cx.after(at.since(cx.now()), DeviceRulesMsg::Wake);
    }
}

fn seconds(wall: SystemTime) -> i64 {
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
