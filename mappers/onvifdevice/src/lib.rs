//! The mapper of cameras that speak ONVIF.
//!
//! What a device's `protocol.configData` and a property's `visitors.configData` may say stands in the README beside this crate.
//!
//! A camera is asked in SOAP over HTTP/1.1 without TLS: `exchange` sends a request with the login that the camera asks for (`login`), at
//! that one of its services which has it (`services`). `soap` and `xml` are the words, `charset` their letters, `ask` requests that a Device may write; `media` is
//! the camera's pictures, `motion` its moves, and `monitor` what it says by itself (`topic`). One that may change its
//! address is looked for (`discovery`). A Device leads to no address that is its machine's alone, unless the mapper's file says so, and a
//! camera leads to no other address than its own.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod address;
mod ask;
mod charset;
mod clock;
mod discovery;
mod exchange;
mod login;
mod media;
mod monitor;
mod motion;
mod services;
mod session;
mod soap;
mod topic;
mod visitor;
mod xml;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use framework::answers::Answers;
use framework::host::Targets;
use framework::{Fault, InvalidSetting, Property, Protocol, Settings};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::exchange::Camera;
use crate::login::Login;
use crate::services::Dialled;

pub use address::{Address, Place};
pub use login::Way;
pub use session::OnvifSession;
pub use visitor::Visitor;

/// The protocol's name in devices and in the mapper's config.
pub const NAME: &str = "onvif";
/// The folder of passwords, beside the mapper's socket.
const FOLDER: &str = "onvif";

/// ONVIF. What it knows of all its cameras: where they may be, the room for their answers, and where passwords lie.
#[derive(Debug, Clone)]
pub struct Onvif {
    targets: Arc<Targets>,
    answers: Answers,
    folder: Arc<Path>,
    probed: SocketAddr,
    lifetime: Duration,
}

impl Onvif {
    /// With passwords in the folder `onvif` beside the mapper's socket, for cameras at these addresses.
    pub fn beside(socket: &Path, targets: Targets) -> Self {
        let folder = socket.parent().unwrap_or(Path::new(".")).join(FOLDER);
        Onvif {
            targets: Arc::new(targets),
            answers: Answers::default(),
            folder: folder.into(),
            probed: discovery::EVERYONE,
            lifetime: monitor::LIFETIME,
        }
    }

    /// Looks for cameras there, and not where all of them listen.
    #[must_use]
    pub fn probing(self, probed: SocketAddr) -> Self {
        Onvif { probed, ..self }
    }

    /// Has a camera keep a pull point so long of which it hears nothing, and not a minute. It is renewed after half of it.
    #[must_use]
    pub fn keeping(self, lifetime: Duration) -> Self {
        Onvif { lifetime, ..self }
    }

    /// The address that is dialled, and the path of the camera's device service.
    async fn dial(&self, address: &Address) -> Result<(Dialled, String), Fault> {
        match &address.place {
            Place::Url { host, port, path } => {
                let failed =
                    |reason: String| Fault::NotSent(format!("no connection to {host}:{port}: {reason}"));
                let found = self.targets.addresses(host, *port).await.map_err(failed)?;
                if let [only] = *found {
                    return Ok((Dialled { host: host.clone(), at: only }, path.clone()));
                }
                // Which of a name's addresses is the camera's: all that follows goes there.
                let stream = match timeout(address.answer, TcpStream::connect(found.as_slice())).await {
                    Ok(stream) => stream.map_err(|error| failed(error.to_string()))?,
                    Err(_) => return Err(failed("nobody answers".to_owned())),
                };
                let at = stream.peer_addr().map_err(|error| failed(error.to_string()))?;
                Ok((Dialled { host: host.clone(), at }, path.clone()))
            }
            Place::Reference { reference, interface } => {
                let found = discovery::find(reference, interface.as_deref(), self.probed).await;
                let found = found.map_err(Fault::NotSent)?;
                self.targets.check(reference, found.at).map_err(Fault::NotSent)?;
                Ok((Dialled { host: found.at.ip().to_string(), at: found.at }, found.path))
            }
        }
    }
}

impl Protocol for Onvif {
    type Address = Address;
    type Visitor = Visitor;
    type Session = OnvifSession;

    fn name(&self) -> &'static str {
        NAME
    }

    fn has_streams(&self) -> bool {
        true
    }

    fn address(&self, settings: &Settings) -> Result<Address, InvalidSetting> {
        let address = Address::read(settings)?;
        // A name is judged by the address that is dialled.
        if let Place::Url { host, port, .. } = &address.place
            && let Ok(ip) = host.parse()
        {
            let judged = self.targets.check(host, SocketAddr::new(ip, *port));
            judged.map_err(|sentence| InvalidSetting::new(format!("setting `url`: {sentence}")))?;
        }
        if let Some((_, secret)) = &address.user {
            secret.check_place(&self.folder).map_err(InvalidSetting::new)?;
        }
        Ok(address)
    }

    fn visitor(&self, property: &Property, settings: &Settings) -> Result<Visitor, InvalidSetting> {
        Visitor::read(property, settings)
    }

    fn is_command(&self, visitor: &Visitor) -> bool {
        visitor.what.is_command()
    }

    fn judges_targets(&self) -> bool {
        true
    }

    /// For the name or the search, the connection and the camera's clock.
    fn connect_deadline(&self, address: &Address) -> Duration {
        discovery::FOUND_WITHIN + Duration::from_secs(1) + address.answer * 4
    }

    async fn connect(&self, address: &Address) -> Result<OnvifSession, Fault> {
        let (dialled, path) = self.dial(address).await?;
        let user = match &address.user {
            Some((user, secret)) => {
                Some((user.clone(), secret.reveal(&self.folder).map_err(Fault::NotSent)?))
            }
            None => None,
        };
        let login = Login::new(user, address.way, address.may_basic);
        OnvifSession::open(Arc::new(Camera::new(address.clone(), dialled, path, login, self.clone()))).await
    }
}
