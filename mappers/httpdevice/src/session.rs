//! A connection to a device, kept as long as the device keeps it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use framework::answers::{Said, TURN_WITHIN};
use framework::stream::FrameSource;
use framework::{Fault, Session, Value};
use http_body_util::Full;
use httpclient::SendRequest;
use hyper::Method;

use crate::HttpDevice;
use crate::address::Address;
use crate::camera::Camera;
use crate::exchange::{connect, refused, request};
use crate::visitor::Visitor;

/// A connection to a device.
#[derive(Debug)]
pub struct HttpSession {
    address: Address,
    device: HttpDevice,
    sender: SendRequest<Full<Bytes>>,
    /// It has answered before: if it is closed now, that may be for idleness.
    is_kept: bool,
}

impl HttpSession {
    /// Connects.
    ///
    /// # Errors
    /// When nobody takes the connection, or the address is closed to devices.
    pub async fn open(address: Address, device: HttpDevice) -> Result<Self, Fault> {
        let sender = connect(&address, &device).await?;
        Ok(HttpSession { address, device, sender, is_kept: false })
    }

    /// The status and the body of an answer. What was not answered is asked again on a new connection, if it was closed while
    /// idle, and if it does no harm to ask twice or nothing was sent.
    async fn ask(&mut self, method: Method, path: &str, body: Option<(String, &str)>) -> Result<Said, Fault> {
        if self.sender.is_closed() || (self.is_kept && self.sender.ready().await.is_err()) {
            (self.sender, self.is_kept) = (connect(&self.address, &self.device).await?, false);
        }
        let is_repeatable = matches!(method, Method::GET | Method::PUT);
        let first = request(&self.address, &method, path, body.clone())?;
        let answer = match self.sender.send_request(first).await {
            Ok(answer) => answer,
            Err(error) => {
                let is_unsent = error.is_unsent();
                let is_idle_close = self.is_kept && (is_unsent || is_repeatable);
                if !is_idle_close {
                    let reason = format!("the device has closed the connection: {error}");
                    return Err(if is_unsent { Fault::NotSent(reason) } else { Fault::Link(reason) });
                }
                (self.sender, self.is_kept) = (connect(&self.address, &self.device).await?, false);
                let again = request(&self.address, &method, path, body)?;
                let sent = self.sender.send_request(again).await;
                sent.map_err(|error| Fault::Link(format!("the device has closed the connection: {error}")))?
            }
        };
        self.is_kept = true;
        let status = answer.status();
        let said = self.device.answers.whole(answer.into_body(), self.address.bytes).await?;
        if status.is_success() { Ok(said) } else { Err(refused(status, &said.body)) }
    }
}

impl Session for HttpSession {
    type Visitor = Visitor;

    /// A request, and another one on a new connection, and the wait of a large answer for those of others.
    fn deadline(&self) -> Duration {
        self.address.answer * 2 + TURN_WITHIN
    }

    async fn read(&mut self, visitor: &Visitor) -> Result<Value, Fault> {
        let (_, value) = self
            .read_many(&[visitor])
            .await
            .pop()
            .unwrap_or_else(|| (0, Err(Fault::NoValue("nothing was asked for".to_owned()))));
        value
    }

    async fn read_many(&mut self, visitors: &[&Visitor]) -> Vec<(usize, Result<Value, Fault>)> {
        let Some(first) = visitors.first() else { return Vec::new() };
        match self.ask(Method::GET, &first.path, None).await {
            Ok(said) => {
                let same = visitors.iter().enumerate().filter(|(_, visitor)| visitor.path == first.path);
                let (places, payloads): (Vec<usize>, Vec<_>) =
                    same.map(|(at, visitor)| (at, Arc::clone(&visitor.payload))).unzip();
                places.into_iter().zip(self.device.answers.values(said, payloads).await).collect()
            }
            Err(fault) => vec![(0, Err(fault))],
        }
    }

    fn frames(&mut self, visitor: &Visitor) -> Result<Box<dyn FrameSource>, Fault> {
        Ok(Box::new(Camera::at(self.address.clone(), self.device.clone(), visitor.path.clone())))
    }

    async fn write(&mut self, visitor: &Visitor, value: &Value) -> Result<(), Fault> {
        let (path, body) = visitor.written(value).map_err(Fault::Unfit)?;
        let body = (visitor.write.method != Method::GET).then_some((body, &*visitor.write.content_type));
        // A GET that writes is no question, and is not repeated.
        let method = visitor.write.method.clone();
        if method == Method::GET && self.is_kept {
            (self.sender, self.is_kept) = (connect(&self.address, &self.device).await?, false);
        }
        self.ask(method, &path, body).await.map(drop)
    }
}
