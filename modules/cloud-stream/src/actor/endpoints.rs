//! Which nodes have an endpoint, at which port: those that have a link, and those whose Nodes still say a port here, so that an API server comes to
//! it and is told that there is no link.

use std::rc::Rc;

use beehive::Context;
use contract::NodeName;
use contract::cloudstream::{CloudStreamMsg, KubeletEndpoint};
use contract::edgecontroller::EdgeControllerMsg;

use super::{CloudStream, Served};
use crate::endpoint::{ENDS_WITHIN, Endpoint, EndpointDependencies};
use crate::{events, plan};

/// Why an endpoint is closed whose node has no link.
const NOT_SAID: &str = "its link has ended, and its Node does not say this port, or another CloudCore has the node, or there is no Node";
const NOT_OURS: &str = "the register of edge nodes does not have the node, or an administrator revoked it";
const NEEDED: &str = "it has been without a link for longest, and a node that has a link needs the port: modules.cloudStream.kubeletEndpoint has no other";

impl CloudStream {
    pub(super) async fn node_up(&mut self, node: NodeName, session: u64, cx: &Context<CloudStreamMsg>) {
        let held = self.nodes.get(&node);
        if held.is_some_and(|served| served.session > Some(session)) {
            return;
        }
        let port = held.and_then(|served| served.port);
        self.nodes.insert(node.clone(), Served { session: Some(session), port });
        if let Some(running) = &mut self.running {
            running.ports.linked(&node);
        }
        match port {
            Some(_) => self.tell_endpoint(&node).await,
            None => self.open(&node, cx),
        }
    }

    /// The node has no link here any more.
    pub(super) fn link_ended(&mut self, node: &NodeName, cx: &Context<CloudStreamMsg>) {
        let Some(served) = self.nodes.get_mut(node) else { return };
        served.session = None;
        if let Some(running) = &mut self.running {
            running.ports.keep(node);
        }
        self.reconsider(node, cx);
        if let Some(Served { port: Some(port), .. }) = self.nodes.get(node) {
            events::endpoint_kept(cx.env(), node, *port);
        }
    }

    /// The hub begins anew, or says again who is linked.
    pub(super) fn all_nodes_down(&mut self, cx: &Context<CloudStreamMsg>) {
        let linked = self.nodes.iter().filter(|(_, served)| served.session.is_some());
        for node in linked.map(|(node, _)| node.clone()).collect::<Vec<_>>() {
            self.link_ended(&node, cx);
        }
    }

    pub(super) fn ports_said(&mut self, ports: Vec<(NodeName, u16)>, cx: &Context<CloudStreamMsg>) {
        let Some(running) = &mut self.running else { return };
        if !std::mem::replace(&mut running.ports_known, true) {
            for (node, port) in &ports {
                running.ports.remember(node.clone(), *port);
            }
        }
        running.said = ports.into_iter().collect();
        // Who has a link comes first.
        let waiting: Vec<NodeName> = self.nodes.keys().cloned().collect();
        for node in waiting {
            self.open(&node, cx);
        }
        self.reconsider_all(cx);
    }

    pub(super) fn port_said(&mut self, node: NodeName, port: Option<u16>, cx: &Context<CloudStreamMsg>) {
        let Some(running) = &mut self.running else { return };
        match port {
            Some(port) => drop(running.said.insert(node.clone(), port)),
            None => drop(running.said.remove(&node)),
        }
        self.reconsider(&node, cx);
    }

    /// What is known of Nodes or of the register has changed.
    pub(super) fn reconsider_all(&mut self, cx: &Context<CloudStreamMsg>) {
        let Some(running) = &self.running else { return };
        let said = running.said.keys().filter(|node| !self.nodes.contains_key(*node));
        let nodes: Vec<NodeName> = self.nodes.keys().chain(said).cloned().collect();
        for node in nodes {
            self.reconsider(&node, cx);
        }
    }

    /// Closes the endpoint of a node without a link, or opens it, if it is due.
    fn reconsider(&mut self, node: &NodeName, cx: &Context<CloudStreamMsg>) {
        let Some(running) = self.running.as_mut().filter(|running| running.ports_known) else {
            // Nothing was opened yet.
            self.nodes.retain(|_, served| served.session.is_some());
            return;
        };
        let (said, is_ours) = (running.said.get(node).copied(), (self.dependencies.is_ours)(node));
        match self.nodes.get(node) {
            Some(Served { session: Some(_), .. }) => {}
            Some(Served { session: None, port }) => {
                let keeps = port.is_some_and(|port| plan::keeps(port, said, is_ours, true));
                if !keeps {
                    self.close(node, if is_ours == Some(false) { NOT_OURS } else { NOT_SAID }, cx);
                }
            }
            None => {
                let Some(port) = said.filter(|port| plan::keeps(*port, said, is_ours, false)) else { return };
                if cx.has_child(Endpoint::name(node)) || !running.ports.take_said(node, port) {
                    return;
                }
                running.ports.keep(node);
                self.nodes.insert(node.clone(), Served { session: None, port: Some(port) });
                self.begin(node, port, cx);
            }
        }
    }

    /// Makes the endpoint of a node that is linked and has none.
    pub(super) fn open(&mut self, node: &NodeName, cx: &Context<CloudStreamMsg>) {
        let has_none =
            self.nodes.get(node).is_some_and(|served| served.session.is_some() && served.port.is_none());
        if !has_none || cx.has_child(Endpoint::name(node)) {
            return;
        }
        let Some(running) = self.running.as_mut().filter(|running| running.ports_known) else { return };
        let mut port = running.ports.take(node);
        if port.is_none()
            && let Some(kept) = running.ports.longest_kept().cloned()
        {
            self.close(&kept, NEEDED, cx);
            port = self.running.as_mut().and_then(|running| running.ports.take(node));
        }
        match (port, &mut self.running) {
            (Some(port), _) => self.begin(node, port, cx),
            (None, Some(running)) => running.look_again(node, cx),
            (None, None) => {}
        }
    }

    fn begin(&self, node: &NodeName, port: u16, cx: &Context<CloudStreamMsg>) {
        let Some(running) = &self.running else { return };
        let dependencies = EndpointDependencies {
            node: node.clone(),
            address: running.serving.bind,
            port,
            server: Rc::clone(&running.server),
            ports: Rc::new(running.by_port.clone()),
            parent: cx.for_children(),
        };
        cx.child(Endpoint::name(node), Endpoint::policy(), Endpoint::factory(dependencies));
    }

    /// Of a node without a link.
    fn close(&mut self, node: &NodeName, why: &'static str, cx: &Context<CloudStreamMsg>) {
        self.nodes.remove(node);
        let Some(running) = &mut self.running else { return };
        running.ports.release(node);
        // It goes on by itself; a child that has ended is not there any more.
        drop(cx.stop_child(Endpoint::name(node), ENDS_WITHIN));
        events::endpoint_closed(cx.env(), node, why);
    }

    pub(super) async fn listening(&mut self, node: &NodeName, port: u16, cx: &Context<CloudStreamMsg>) {
        // It was told to end while it began.
        if !cx.has_child(Endpoint::name(node)) {
            return;
        }
        let Some(served) = self.nodes.get_mut(node) else { return };
        served.port = Some(port);
        events::endpoint_opened(cx.env(), node, port);
        self.tell_endpoint(node).await;
    }

    /// Somebody else has the port: the next one. After a round through all of them it waits. A node without a link has no other port.
    pub(super) fn port_refused(
        &mut self,
        node: &NodeName,
        port: u16,
        reason: &str,
        cx: &Context<CloudStreamMsg>,
    ) {
        let (Some(running), Some(served)) = (&mut self.running, self.nodes.get_mut(node)) else { return };
        served.port = None;
        // The child that was refused is about to end, or has.
        drop(cx.stop_child(Endpoint::name(node), ENDS_WITHIN));
        if served.session.is_none() {
            tracing::debug!(%node, port, reason, "the port that the Node says is not opened again");
            self.nodes.remove(node);
            return running.ports.release(node);
        }
        events::port_refused(cx.env(), node, port, reason);
        let refusals = running.ports.refused(node);
        if refusals < running.ports.count() {
            self.open(node, cx);
        } else {
            running.ports.forget_refusals(node);
            running.look_again(node, cx);
        }
    }

    pub(super) async fn tell_endpoint(&self, node: &NodeName) {
        let Some(Served { session: Some(session), port: Some(port) }) = self.nodes.get(node) else { return };
        let Some(running) = &self.running else { return };
        let endpoint = KubeletEndpoint { address: running.serving.address, port: *port };
        let told = EdgeControllerMsg::KubeletEndpoint { node: node.clone(), session: *session, endpoint };
        let _ = self.dependencies.edge.tell(told).await;
    }
}
