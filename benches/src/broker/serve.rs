//! The node's broker as `edgecore` has it, in a process of its own: its actor in a hive, over a store, with nobody to ask.

use std::path::Path;

use anyhow::Result;
use beehive::{Actor, Capacity, Context, Env, Fault, Flow, Hive, Message, Policy};
use contract::devicetwin::TwinMsg;
use contract::eventbus::EventBusMsg;
use contract::metamanager::MetaMsg;
use edge_eventbus::EventBus;
use edge_store::{Options, Store};

/// Takes what it is told.
struct Sink<M>(std::marker::PhantomData<M>);

impl<M: Message> Actor for Sink<M> {
    type Message = M;

    async fn handle(&mut self, _: M, _: &mut Context<M>) -> Result<(), Fault> {
        Ok(())
    }
}

/// Serves until the process is ended.
pub(crate) fn serve(port: u16, folder: &Path) -> Result<()> {
    let store = Store::open(folder.join("edgecore.db"), Options::new([1; 16]))?;
    actix_rt::System::new().block_on(async move {
        let mut hive = Hive::new("broker", Env::real());
        let meta = hive.mailbox::<MetaMsg>("edge-metamanager", Capacity::new(256, "as in EdgeCore"));
        let twin = hive.mailbox::<TwinMsg>("edge-devicetwin", Capacity::new(256, "as in EdgeCore"));
        let bus = hive.mailbox::<EventBusMsg>("edge-eventbus", Capacity::new(1024, "as in EdgeCore"));
        let to_twin = hive.grant("edge-eventbus", &twin, Flow::Ask);
        let to_meta = hive.grant("edge-eventbus", &meta, Flow::TryTell);
        hive.supervise(meta, Policy::default(), || Sink(std::marker::PhantomData));
        hive.supervise(twin, Policy::default(), || Sink(std::marker::PhantomData));
        let settings = config::edge::EventBus {
            mqtt_server_internal: format!("127.0.0.1:{port}"),
            max_messages_per_second: 0,
            ..config::edge::EventBus::default()
        };
        hive.supervise(bus, Policy::default(), EventBus::factory(settings, store, to_twin, to_meta));
        hive.open()?;
        let reason = hive.gave_up().await;
        anyhow::bail!("broker gave up: {reason}")
    })
}
