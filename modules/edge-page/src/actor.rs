//! The page's actor: who is let in, and when a page is made.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Actor, Address, Context, Fault, Reply, Sample};
use bytes::Bytes;
use contract::devicetwin::TwinMsg;
use contract::edged::EdgedMsg;
use contract::edgehub::EdgeHubMsg;
use contract::edgepage::{EdgePageMsg, MadePage, NoPage, PageForm};
use edge_store::Store;
use https::{Port, Server};

use crate::door::{Door, SharedSessions, lock};
use crate::events;
use crate::gather::{self, Owners};
use crate::plan::{FRESH, Making, NextStep};
use crate::sessions::Secret;
use crate::settings::Settings;

/// 10 s until the port is tried again.
const SERVE_AGAIN: Duration = Duration::from_secs(10);
/// 1 s for browsers that are being answered while the node stops.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// Who waits for the page.
type Waiting = (PageForm, Reply<Result<Bytes, NoPage>>);

/// The node's page.
pub struct EdgePage {
    settings: Settings,
    owners: Owners,
    port: Result<OpenPort, String>,
    making: Making,
    waiting: Vec<Waiting>,
    made: Option<MadePage>,
}

/// The port while it is ours.
struct OpenPort {
    server: Server,
    address: SocketAddr,
    sessions: SharedSessions,
}

impl EdgePage {
    /// The page over those who own the facts on it, which must allow asking, and the node's store.
    pub fn new(
        settings: Settings,
        hub: Address<EdgeHubMsg>,
        edged: Address<EdgedMsg>,
        twin: Address<TwinMsg>,
        store: Store,
    ) -> Self {
        EdgePage {
            settings,
            owners: Owners { hub, edged, twin, store, is_reading: Arc::default() },
            port: Err("edgecore begins".to_owned()),
            making: Making::default(),
            waiting: Vec::new(),
            made: None,
        }
    }
}

impl Actor for EdgePage {
    type Message = EdgePageMsg;

    async fn started(&mut self, cx: &mut Context<EdgePageMsg>) -> Result<(), Fault> {
        self.serve(cx);
        Ok(())
    }

    async fn handle(&mut self, message: EdgePageMsg, cx: &mut Context<EdgePageMsg>) -> Result<(), Fault> {
        match message {
            EdgePageMsg::View { form, reply } => self.view(form, reply, cx),
            EdgePageMsg::Invite { reply } => reply.send(self.invite(cx)),
            EdgePageMsg::Made(made) => self.made(made, cx),
            EdgePageMsg::Forget => {
                if !self.making.is_fresh(cx.now()) {
                    self.made = None;
                }
            }
            EdgePageMsg::Serve => self.serve(cx),
        }
        Ok(())
    }

    async fn stopping(&mut self, _: &mut Context<EdgePageMsg>) {
        if let Ok(port) = &self.port {
            port.server.stop(STOP_WITHIN).await;
        }
    }

    fn snapshot(&self) -> serde_json::Value {
        serde_json::json!({
            "listening": self.port.as_ref().ok().map(|port| port.address),
            "sessions": self.port.as_ref().ok().map(|port| lock(&port.sessions).count()),
            "waiting": self.waiting.len(),
        })
    }

    fn samples(&self) -> Vec<Sample> {
        let is_served = self.port.is_ok();
        vec![Sample::new("page_port_served", if is_served { 1.0 } else { 0.0 })]
    }
}

impl EdgePage {
    fn view(&mut self, form: PageForm, reply: Reply<Result<Bytes, NoPage>>, cx: &Context<EdgePageMsg>) {
        if self.settings.address.is_none() {
            return reply.send(Err(NoPage::Off));
        }
        self.waiting.retain(|(_, reply)| !reply.is_abandoned());
        let next = self.making.asked(self.waiting.len(), cx.now());
        match (next, &self.made) {
            (NextStep::Refuse, _) => return reply.send(Err(NoPage::Busy)),
            (NextStep::Show, Some(made)) => return reply.send(Ok(in_form(made, form))),
            (NextStep::Show | NextStep::Wait, _) => {}
            (NextStep::Make, _) => {
                let (owners, node) = (self.owners.clone(), self.settings.node.clone());
                let (env, own) = (cx.env().clone(), cx.myself());
                cx.spawn(async move {
                    let made = gather::make(owners, node, env).await;
                    let _ = own.tell(EdgePageMsg::Made(made)).await;
                });
            }
        }
        self.waiting.push((form, reply));
    }

    fn made(&mut self, made: Option<MadePage>, cx: &Context<EdgePageMsg>) {
        self.making.ended(made.is_some(), cx.now());
        let waiting = std::mem::take(&mut self.waiting);
        let Some(made) = made else { return };
        for (form, reply) in waiting {
            reply.send(Ok(in_form(&made, form)));
        }
        self.made = Some(made);
        cx.after(FRESH, EdgePageMsg::Forget);
    }

    fn invite(&self, cx: &Context<EdgePageMsg>) -> Result<String, NoPage> {
        if self.settings.address.is_none() {
            return Err(NoPage::Off);
        }
        let port = self.port.as_ref().map_err(|why| NoPage::NotServed(why.clone()))?;
        let ticket = Secret::of(cx.env().random_id(), cx.env().random_id());
        let url = format!("http://{}/enter/{}", port.address, ticket.text());
        lock(&port.sessions).invite(ticket, cx.now());
        events::invited(cx.env().metrics());
        Ok(url)
    }

    /// Opens the port. Somebody else may have had it: whoever was in comes in anew.
    fn serve(&mut self, cx: &Context<EdgePageMsg>) {
        let Some(address) = self.settings.address else { return };
        // Closes it, if it was open.
        self.port = Err("the port is being opened".to_owned());
        self.port = open(address, cx).map_err(|error| error.to_string());
        match &self.port {
            Ok(_) => events::served(cx.env().metrics(), address),
            Err(why) => {
                events::not_served(cx.env().metrics(), why);
                cx.after(SERVE_AGAIN, EdgePageMsg::Serve);
            }
        }
    }
}

fn open(address: SocketAddr, cx: &Context<EdgePageMsg>) -> io::Result<OpenPort> {
    let port = Port::bind(address)
        .map_err(|error| io::Error::new(error.kind(), format!("listen at {address}: {error}")))?;
    let sessions = SharedSessions::default();
    let door = Door {
        page: cx.myself(),
        sessions: Arc::clone(&sessions),
        clock: cx.env().clock(),
        metrics: cx.env().metrics().clone(),
        random: cx.env().id_source(),
    };
    let server = door.at_port(&port, cx.env())?;
    server.tell_end(cx, EdgePageMsg::Serve);
    Ok(OpenPort { server, address: port.address(), sessions })
}

fn in_form(made: &MadePage, form: PageForm) -> Bytes {
    match form {
        PageForm::Html => made.html.clone(),
        PageForm::Json => made.json.clone(),
    }
}
