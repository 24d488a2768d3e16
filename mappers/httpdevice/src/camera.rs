//! The pictures of a camera: one for each request, or all in one answer.

use std::time::Duration;

use bytes::Bytes;
use framework::Fault;
use framework::stream::{FRAME_MAX, Frame, FrameSource, JPEG, NextFrame, picture, picture_format};
use http_body_util::{BodyExt as _, Full};
use httpclient::SendRequest;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Response};
use tokio::time::{Instant, sleep, timeout};

use crate::HttpDevice;
use crate::address::Address;
use crate::exchange::{connect, refused, request};
use crate::parts::Parts;

/// The pictures that are at a path.
pub(crate) struct Camera {
    address: Address,
    device: HttpDevice,
    path: String,
    /// An answer that does not end.
    live: Option<Live>,
}

struct Live {
    parts: Parts,
    answer: Incoming,
    /// Without it the connection ends.
    _sender: SendRequest<Full<Bytes>>,
}

impl Camera {
    pub(crate) fn at(address: Address, device: HttpDevice, path: String) -> Self {
        Camera { address, device, path, live: None }
    }

    async fn frame(&mut self, after: Duration) -> Result<Frame, Fault> {
        let not_before = Instant::now() + after;
        let mut live = match self.live.take() {
            Some(live) => live,
            None => {
                sleep(after).await;
                match self.ask().await? {
                    Asked::Picture(frame) => return Ok(frame),
                    Asked::Live(live) => live,
                }
            }
        };
        loop {
            // One that began before, and came since, is passed over: what comes meanwhile would wait, and be old.
            let began = Instant::now();
            let bytes = live.part(self.address.answer).await?;
            if began >= not_before {
                let frame = picture(bytes, JPEG)?;
                self.live = Some(live);
                return Ok(frame);
            }
        }
    }

    async fn ask(&self) -> Result<Asked, Fault> {
        let mut sender = connect(&self.address, &self.device).await?;
        let asked = request(&self.address, &Method::GET, &self.path, None)?;
        let answer = match timeout(self.address.answer, sender.send_request(asked)).await {
            Ok(answer) => answer.map_err(|error| Fault::Link(format!("the camera has closed: {error}")))?,
            Err(_) => return Err(Fault::Silent("the camera has not answered".to_owned())),
        };
        let most = self.address.bytes.min(FRAME_MAX);
        let (status, kind) = (answer.status(), content_type(&answer));
        if !status.is_success() {
            let said = self.device.answers.whole(answer.into_body(), most).await?;
            return Err(refused(status, &said.body));
        }
        if let Some(parts) = Parts::of(&kind, most) {
            return Ok(Asked::Live(Live { parts, answer: answer.into_body(), _sender: sender }));
        }
        let format = picture_format(&kind).ok_or_else(|| {
            let kind: String = kind.chars().take(64).collect();
            Fault::Device(format!(
                "it sends `{kind}`; a picture is image/jpeg or image/png, and a stream multipart/x-mixed-replace"
            ))
        })?;
        let said = timeout(self.address.answer, self.device.answers.whole(answer.into_body(), most)).await;
        let said = said.map_err(|_| Fault::Silent("the picture does not come to its end".to_owned()))??;
        picture(said.body.into(), format).map(Asked::Picture)
    }
}

enum Asked {
    Picture(Frame),
    Live(Live),
}

impl Live {
    /// The next picture that is whole, within a time that is taken anew with all that comes.
    async fn part(&mut self, within: Duration) -> Result<Bytes, Fault> {
        loop {
            if let Some(part) = self.parts.next().map_err(Fault::Device)? {
                return Ok(part.into());
            }
            let came = timeout(within, self.answer.frame()).await;
            let came = came.map_err(|_| Fault::Silent("the stream has come to a standstill".to_owned()))?;
            let came = came.ok_or_else(|| Fault::Link("the camera has ended the stream".to_owned()))?;
            let came = came.map_err(|error| Fault::Link(format!("the stream broke off: {error}")))?;
            if let Ok(data) = came.into_data() {
                self.parts.feed(&data);
            }
        }
    }
}

impl FrameSource for Camera {
    fn next(&mut self, after: Duration) -> NextFrame<'_> {
        Box::pin(self.frame(after))
    }

    fn rest(&mut self) {
        self.live = None;
    }
}

fn content_type(answer: &Response<Incoming>) -> String {
    let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.unwrap_or_default().to_owned()
}
