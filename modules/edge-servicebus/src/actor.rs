//! The ServiceBus' actor.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use beehive::{Actor, Address, Context, Fault};
use contract::metamanager::MetaMsg;
use contract::servicebus::{ServiceBusMsg, ServiceCall};
use edge_store::Store;
use https::{ClientCertificates, Port, Server, Tls};
use tokio::sync::Semaphore;

use crate::local_service::LocalService;
use crate::server::Applications;
use crate::settings::Settings;
use crate::target_urls::TargetUrls;
use crate::{events, local_service};

/// 32 calls of services at once.
const CALLS: usize = 32;
/// 10 s until the port is tried again.
const SERVE_AGAIN: Duration = Duration::from_secs(10);
/// 1 s for applications that are being answered while the node stops.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// Rules between HTTP services of the node and the cloud.
pub struct ServiceBus {
    settings: Settings,
    store: Store,
    meta: Address<MetaMsg>,
    urls: TargetUrls,
    /// A permit for each call of a service.
    permits: Rc<Semaphore>,
    server: Option<(Server, SocketAddr)>,
}

impl ServiceBus {
    /// One over the rules in `store`, which asks the cloud by `meta`.
    pub fn new(settings: Settings, store: Store, meta: Address<MetaMsg>) -> Self {
        let permits = Rc::new(Semaphore::new(CALLS));
        ServiceBus { settings, store, meta, urls: TargetUrls::default(), permits, server: None }
    }
}

impl Actor for ServiceBus {
    type Message = ServiceBusMsg;

    async fn started(&mut self, cx: &mut Context<ServiceBusMsg>) -> Result<(), Fault> {
        if self.settings.address.is_some() {
            self.urls.read(cx.env(), self.store.clone()).await?;
            self.serve(cx).await;
        }
        Ok(())
    }

    async fn handle(&mut self, message: ServiceBusMsg, cx: &mut Context<ServiceBusMsg>) -> Result<(), Fault> {
        match message {
            ServiceBusMsg::Call(call) => {
                self.call(*call, cx);
                Ok(())
            }
            ServiceBusMsg::ObjectsChanged(_) => self.urls.read(cx.env(), self.store.clone()).await,
            ServiceBusMsg::Serve => {
                self.server = None;
                self.serve(cx).await;
                Ok(())
            }
        }
    }

    async fn stopping(&mut self, _: &mut Context<ServiceBusMsg>) {
        if let Some((server, _)) = self.server.take() {
            server.stop(STOP_WITHIN).await;
        }
    }

    fn snapshot(&self) -> serde_json::Value {
        serde_json::json!({
            "listening": self.server.as_ref().map(|(_, address)| address),
            "targetUrls": self.urls.len(),
            "calls": CALLS - self.permits.available_permits(),
        })
    }
}

impl ServiceBus {
    fn call(&self, call: ServiceCall, cx: &Context<ServiceBusMsg>) {
        let (permits, own_ports, env) =
            (Rc::clone(&self.permits), self.settings.own_ports.clone(), cx.env().clone());
        cx.spawn(async move {
            let service = LocalService { env, own_ports };
            match permits.try_acquire() {
                Ok(_permit) => service.answer(call).await,
                Err(_) => {
                    let why = local_service::Unanswered::new(
                        429,
                        "the node calls as many services as it may: call again\n",
                    );
                    service.refuse(call, why).await;
                }
            }
        });
    }

    async fn serve(&mut self, cx: &Context<ServiceBusMsg>) {
        let Some(address) = self.settings.address else { return };
        match self.open(address, cx).await {
            Ok((server, address)) => {
                server.tell_end(cx, ServiceBusMsg::Serve);
                tracing::info!(%address, tls = self.settings.tls.is_some(), "applications may call rules' targets");
                self.server = Some((server, address));
            }
            Err(error) => {
                events::not_served(cx.env(), &error.to_string());
                cx.after(SERVE_AGAIN, ServiceBusMsg::Serve);
            }
        }
    }

    async fn open(
        &self,
        address: SocketAddr,
        cx: &Context<ServiceBusMsg>,
    ) -> io::Result<(Server, SocketAddr)> {
        let tls = match self.settings.tls.clone() {
            None => None,
            Some((certificate, key)) => {
                let read = cx.env().blocking(move || {
                    let read = |path: &std::path::Path| {
                        let about = |error: io::Error| {
                            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
                        };
                        std::fs::read_to_string(path).map_err(about)
                    };
                    Ok::<_, io::Error>((read(&certificate)?, read(&key)?))
                });
                let (chain, key) = read.await.map_err(|fault| io::Error::other(fault.reason)).flatten()?;
                Some(Tls::also_tls12(&chain, &key, &ClientCertificates::NotAsked).map_err(io::Error::other)?)
            }
        };
        let port = Port::bind(address)
            .map_err(|error| io::Error::new(error.kind(), format!("listen at {address}: {error}")))?;
        let (metrics, clock) = (cx.env().metrics().clone(), cx.env().clock());
        let applications = Applications {
            urls: self.urls.clone(),
            meta: self.meta.clone(),
            within: self.settings.within,
            metrics,
            clock,
        };
        let server = applications.at_port(&port, tls, cx.env())?;
        Ok((server, port.address()))
    }
}
