//! The socket at which plugins register, as a child of ContainerManager.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Actor, Address, Clock, Context, Fault, Message, Refusal};
use contract::containermanager::{ContainerManagerMsg, PluginRegistration};
use kubeletapi::deviceplugin::{Empty, RegisterRequest};
use kubeletapi::methods::REGISTRATION_INTERFACE;
use kubeletapi::methods::registration::REGISTER;
use tonic::Status;
use unixgrpc::{Answering, Call};

use crate::client::PluginClient;
use crate::events;
use crate::plan::names;
use crate::socket;

/// 4 KiB of a registration.
const REGISTRATION_MAX: usize = 4 << 10;
/// 60 s of a connection: a plugin connects, registers and closes.
const LIFETIME: Duration = Duration::from_secs(60);
/// 20 ms before a full mailbox is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// Messages of the server to itself.
#[derive(Debug)]
pub(crate) enum ServerMsg {
    /// Time to try the socket again.
    Listen,
    /// The socket is not served any more, for this reason.
    Ended(String),
    /// A plugin may not register.
    Refused { resource: String, reason: String },
}

impl Message for ServerMsg {
    fn name(&self) -> &'static str {
        match self {
            ServerMsg::Listen => "Listen",
            ServerMsg::Ended(_) => "Ended",
            ServerMsg::Refused { .. } => "Refused",
        }
    }
}

/// Takes registrations.
pub(crate) struct RegistrationSocket {
    folder: PathBuf,
    manager: Address<ContainerManagerMsg>,
}

impl RegistrationSocket {
    pub(crate) fn new(folder: PathBuf, manager: Address<ContainerManagerMsg>) -> Self {
        RegistrationSocket { folder, manager }
    }

    fn listen(&self, cx: &Context<ServerMsg>) {
        let service = RegistrationService {
            folder: self.folder.clone(),
            manager: self.manager.clone(),
            clock: cx.env().clock(),
            myself: cx.myself(),
        };
        let calls = Rc::new(move |request| service.answer(Call::new(request, REGISTRATION_MAX)));
        socket::serve_beside(cx, self.folder.clone(), true, LIFETIME, calls, ServerMsg::Ended);
    }
}

impl Actor for RegistrationSocket {
    type Message = ServerMsg;

    async fn started(&mut self, cx: &mut Context<ServerMsg>) -> Result<(), Fault> {
        self.listen(cx);
        Ok(())
    }

    async fn handle(&mut self, message: ServerMsg, cx: &mut Context<ServerMsg>) -> Result<(), Fault> {
        match message {
            ServerMsg::Listen => self.listen(cx),
            ServerMsg::Ended(reason) => {
                socket::listen_later(cx, &self.folder, &reason, ServerMsg::Listen);
            }
            ServerMsg::Refused { resource, reason } => {
                events::registration_refused(cx.env(), &resource, &reason);
            }
        }
        Ok(())
    }
}

/// The service `Registration`.
#[derive(Clone)]
struct RegistrationService {
    folder: PathBuf,
    manager: Address<ContainerManagerMsg>,
    clock: Arc<dyn Clock>,
    myself: Address<ServerMsg>,
}

impl RegistrationService {
    fn answer(&self, call: Call) -> Answering {
        let service = self.clone();
        if call.path() == REGISTER.path() {
            call.answer(REGISTER, |request| async move { service.register(request.into_inner()).await })
        } else {
            call.reflected(&REGISTRATION_INTERFACE)
        }
    }

    async fn register(&self, request: RegisterRequest) -> Result<Empty, Status> {
        let resource = request.resource_name.clone();
        match self.take(request).await {
            Ok(()) => Ok(Empty {}),
            Err(reason) => {
                // A full mailbox has said enough of it.
                let _ = self.myself.try_tell(ServerMsg::Refused { resource, reason: reason.clone() });
                Err(Status::unknown(reason))
            }
        }
    }

    async fn take(&self, request: RegisterRequest) -> Result<(), String> {
        let RegisterRequest { version, endpoint, resource_name, options: _ } = request;
        if let Some(refusal) = names::refusal(&version, &resource_name, &endpoint, &self.folder) {
            return Err(refusal);
        }
        // As a kubelet: it is asked itself, and not believed what it says here.
        let client = PluginClient::new(&self.folder, &endpoint);
        let options = client.options(&*self.clock).await.map_err(|error| error.to_string())?;
        let registration = PluginRegistration {
            resource: resource_name,
            endpoint,
            pre_start_required: options.pre_start_required,
            preferred_allocation: options.get_preferred_allocation_available,
        };
        loop {
            match self.manager.try_tell(ContainerManagerMsg::Registered(registration.clone())) {
                Ok(()) => return Ok(()),
                // Its own parent is never waited for.
                Err(Refusal::Full) => self.clock.sleep(FULL_PAUSE).await,
                Err(refusal) => return Err(refusal.to_string()),
            }
        }
    }
}
