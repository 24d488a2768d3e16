//! A link that comes in: its hello, and the answer.

use std::time::Duration;

use futures::future::{Either, select};

use super::capability::Capabilities;
use super::core::Core;
use super::frame::{Frame, Kind};
use super::inbound::Routes;
use super::session::{Hello, LINK_FRAME_MAX, Link, LinkError, Refused, ack_body, first_frame, new_core};
use super::transport::{Connection, PeerName, Reader, Writer};
use super::version::{Protocol, Versions, WireVersion};
use crate::Env;

/// 5 s: how long a hello may take once there is a connection. It leaves with the last words of the handshake.
const HELLO_DUE: Duration = Duration::from_secs(5);

/// A connection whose hello was read and is to be answered.
pub struct IncomingLink {
    env: Env,
    core: Core,
    connection: Box<dyn Connection>,
    control: (Writer, Reader),
}

impl IncomingLink {
    /// Reads the hello of a connection that was accepted, and checks it against the certificate.
    ///
    /// # Errors
    /// See [`LinkError`]; the other end has been told as far as it could be.
    pub async fn read_hello(env: &Env, connection: Box<dyn Connection>) -> Result<IncomingLink, LinkError> {
        IncomingLink::read_hello_as(env, connection, Versions::OURS).await
    }

    /// The same as an end that speaks `ours`.
    ///
    /// # Errors
    /// See [`IncomingLink::read_hello`].
    pub async fn read_hello_as(
        env: &Env,
        connection: Box<dyn Connection>,
        ours: Versions,
    ) -> Result<IncomingLink, LinkError> {
        let core = new_core(env, &*connection);
        let hello = async {
            let mut control =
                connection.accept().await.map_err(|error| LinkError::Broke(error.to_string()))?;
            let frame = first_frame(&core, &mut control.1).await?;
            Ok((frame, control))
        };
        let heard = async {
            match select(std::pin::pin!(hello), connection.early_traffic()).await {
                Either::Left((heard, _)) => heard,
                Either::Right(_) => Err(LinkError::Unexpected { expected: "hello and nothing beside it" }),
            }
        };
        let heard = env.timeout(HELLO_DUE, heard).await.unwrap_or(Err(LinkError::Late));
        let (frame, control) = heard.inspect_err(|_| connection.close())?;
        let mut arrival = IncomingLink { env: env.clone(), core, connection, control };
        match arrival.check(&frame, ours) {
            Ok(protocol) => {
                arrival.core.protocol = protocol;
                Ok(arrival)
            }
            Err(error) => {
                arrival.refuse(Refused { reason: error.to_string(), wait: None }).await;
                Err(error)
            }
        }
    }

    fn check(&self, frame: &Frame, ours: Versions) -> Result<Protocol, LinkError> {
        let greeting = (frame.kind == Kind::Hello).then(|| Hello::decode(&frame.body)).flatten();
        let Some((greeting, capabilities)) = greeting else {
            return Err(LinkError::Unexpected { expected: "hello" });
        };
        if greeting.name != self.core.peer.as_str() {
            return Err(LinkError::Impostor {
                claimed: greeting.name.escape_debug().to_string(),
                certified: self.core.peer.to_string(),
            });
        }
        match ours.newest_common(greeting.versions) {
            Some(version) => Ok(Protocol::new(version, capabilities)),
            None => {
                let name = self.core.peer.to_string();
                Err(LinkError::Versions { name, theirs: greeting.versions, ours })
            }
        }
    }

    /// The wire version that was agreed on.
    pub fn version(&self) -> WireVersion {
        self.core.protocol.version
    }

    /// What the other end understands, as its hello said.
    pub fn capabilities(&self) -> &Capabilities {
        &self.core.protocol.capabilities
    }

    /// Who it is, by its certificate.
    pub fn peer(&self) -> &PeerName {
        &self.core.peer
    }

    /// Accepts it: the other end may reach `routes`.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn admit(mut self, routes: Routes) -> Result<Link, LinkError> {
        // Before the answer, which may be followed at once.
        self.connection.admitted();
        let routes = routes.following(&self.env);
        let ack = Frame::new(Kind::HelloAck, 0, ack_body(self.core.protocol.version, &routes.capabilities()));
        self.core
            .write(&mut self.control.0, &ack)
            .await
            .map_err(|error| LinkError::Broke(error.to_string()))?;
        Ok(Link::start(self.env, self.core, self.connection, self.control, routes, false))
    }

    /// Refuses it, and says why.
    pub async fn refuse(mut self, why: Refused) {
        let mut refuse = Frame::new(Kind::Refuse, 0, why.reason.into_bytes());
        refuse.amount = why.wait.map_or(0, |wait| u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1));
        let goodbye = async {
            let _ = self.core.write(&mut self.control.0, &refuse).await;
            // Closing at once could overtake the sentence: the other end closes when it has read it, and says nothing more.
            let _ = self.core.read(&mut self.control.1, LINK_FRAME_MAX).await;
        };
        let _ = self.env.timeout(Duration::from_secs(2), goodbye).await;
        self.connection.close();
    }
}
