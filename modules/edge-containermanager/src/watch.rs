//! The watch of one plugin's devices, as a child of ContainerManager: what a plugin sends is read here and nowhere else.

use std::collections::BTreeMap;
use std::time::Duration;

use beehive::{Actor, Address, Capacity, Context, Env, Fault, Message, Policy};
use contract::containermanager::{ContainerManagerMsg, PluginDevice};

use crate::client::PluginClient;
use crate::device_list::DeviceList;
use crate::error::PluginError;
use crate::events;

/// What the watch is called among ContainerManager's children.
pub const WATCH: &str = "plugin-watch";
/// 100 ms between two lists that are read: a plugin that sends without end waits for the window of its connection.
const LIST_PAUSE: Duration = Duration::from_millis(100);

/// A message of a watch to itself.
#[derive(Debug)]
pub(crate) enum WatchMsg {
    /// The plugin is gone, and was said to be.
    Ended,
}

impl Message for WatchMsg {
    fn name(&self) -> &'static str {
        match self {
            WatchMsg::Ended => "Ended",
        }
    }
}

/// Reads the lists of one plugin until it ends.
pub(crate) struct PluginWatch {
    resource: String,
    session: u64,
    client: PluginClient,
    manager: Address<ContainerManagerMsg>,
}

impl PluginWatch {
    /// A watch that fails is made anew and asks again.
    pub(crate) fn policy() -> Policy {
        let capacity = Capacity::new(1, "its own end");
        Policy { capacity, budget: usize::MAX, backoff_min: Duration::from_secs(1), ..Policy::default() }
    }

    pub(crate) fn new(
        resource: &str,
        session: u64,
        client: PluginClient,
        manager: Address<ContainerManagerMsg>,
    ) -> Self {
        PluginWatch { resource: resource.to_owned(), session, client, manager }
    }
}

impl Actor for PluginWatch {
    type Message = WatchMsg;

    async fn started(&mut self, cx: &mut Context<WatchMsg>) -> Result<(), Fault> {
        let (resource, session, client) = (self.resource.clone(), self.session, self.client.clone());
        let (manager, env, myself) = (self.manager.clone(), cx.env().clone(), cx.myself());
        cx.spawn(async move {
            let reason = match read(&resource, session, &client, &manager, &env).await {
                Ok(()) => "it has closed the list of its devices".to_owned(),
                Err(error) => error.to_string(),
            };
            let gone = || ContainerManagerMsg::PluginGone {
                resource: resource.clone(),
                session,
                reason: reason.clone(),
            };
            manager.tell_with_retry(&env, gone).await;
            let _ = myself.tell(WatchMsg::Ended).await;
        });
        Ok(())
    }

    async fn handle(&mut self, message: WatchMsg, cx: &mut Context<WatchMsg>) -> Result<(), Fault> {
        match message {
            WatchMsg::Ended => cx.stop(),
        }
        Ok(())
    }
}

async fn read(
    resource: &str,
    session: u64,
    client: &PluginClient,
    manager: &Address<ContainerManagerMsg>,
    env: &Env,
) -> Result<(), PluginError> {
    let mut lists = client.watch().await?;
    let mut before: Option<BTreeMap<String, PluginDevice>> = None;
    while let Some(DeviceList { devices, nameless }) = lists.next().await? {
        if before.as_ref() != Some(&devices) {
            if nameless > 0 {
                events::devices_without_name(env, resource, nameless);
            }
            let listed = || ContainerManagerMsg::Listed {
                resource: resource.to_owned(),
                session,
                devices: devices.clone(),
            };
            manager.tell_with_retry(env, listed).await;
            before = Some(devices);
        }
        env.sleep(LIST_PAUSE).await;
    }
    Ok(())
}
