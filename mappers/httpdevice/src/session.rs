//! A connection to a device, kept as long as the device keeps it.

use std::time::Duration;

use bytes::Bytes;
use framework::stream::FrameSource;
use framework::{Fault, Session, Value};
use http_body_util::Full;
use httpclient::SendRequest;
use hyper::Method;

use crate::address::Address;
use crate::camera::Camera;
use crate::exchange::{connect, refused, request, whole};
use crate::visitor::Visitor;

/// A connection to a device.
#[derive(Debug)]
pub struct HttpSession {
    address: Address,
    sender: SendRequest<Full<Bytes>>,
    /// It has answered before: if it is closed now, that may be for idleness.
    is_kept: bool,
}

impl HttpSession {
    /// Connects.
    ///
    /// # Errors
    /// When nobody takes the connection.
    pub async fn open(address: Address) -> Result<Self, Fault> {
        let sender = connect(&address).await?;
        Ok(HttpSession { address, sender, is_kept: false })
    }

    /// The status and the body of an answer. What was not answered is asked again on a new connection, if it was closed while
    /// idle, and if it does no harm to ask twice or nothing was sent.
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Option<(String, &str)>,
    ) -> Result<Bytes, Fault> {
        if self.sender.is_closed() || (self.is_kept && self.sender.ready().await.is_err()) {
            (self.sender, self.is_kept) = (connect(&self.address).await?, false);
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
                (self.sender, self.is_kept) = (connect(&self.address).await?, false);
                let again = request(&self.address, &method, path, body)?;
                let sent = self.sender.send_request(again).await;
                sent.map_err(|error| Fault::Link(format!("the device has closed the connection: {error}")))?
            }
        };
        self.is_kept = true;
        let status = answer.status();
        let body = whole(answer, self.address.bytes).await?;
        if status.is_success() { Ok(body) } else { Err(refused(status, &body)) }
    }
}

impl Session for HttpSession {
    type Visitor = Visitor;

    /// A request, and another one on a new connection.
    fn deadline(&self) -> Duration {
        self.address.answer * 2
    }

    async fn read(&mut self, visitor: &Visitor) -> Result<Value, Fault> {
        let body = self.ask(Method::GET, &visitor.path, None).await?;
        visitor.payload.value(&body)
    }

    async fn read_many(&mut self, visitors: &[&Visitor]) -> Vec<(usize, Result<Value, Fault>)> {
        let Some(first) = visitors.first() else { return Vec::new() };
        match self.ask(Method::GET, &first.path, None).await {
            Ok(body) => {
                let same = visitors.iter().enumerate().filter(|(_, visitor)| visitor.path == first.path);
                same.map(|(at, visitor)| (at, visitor.payload.value(&body))).collect()
            }
            Err(fault) => vec![(0, Err(fault))],
        }
    }

    fn frames(&mut self, visitor: &Visitor) -> Result<Box<dyn FrameSource>, Fault> {
        Ok(Box::new(Camera::at(self.address.clone(), visitor.path.clone())))
    }

    async fn write(&mut self, visitor: &Visitor, value: &Value) -> Result<(), Fault> {
        let (path, body) = visitor.written(value).map_err(Fault::Unfit)?;
        let body = (visitor.write.method != Method::GET).then_some((body, &*visitor.write.content_type));
        // A GET that writes is no question, and is not repeated.
        let method = visitor.write.method.clone();
        if method == Method::GET && self.is_kept {
            (self.sender, self.is_kept) = (connect(&self.address).await?, false);
        }
        self.ask(method, &path, body).await.map(drop)
    }
}
