//! What the rules answer, as an answer over HTTP.

use futures::StreamExt;
use http::Response;
use http_body::Frame;
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use https::Answer;
use kubeapi::Body;

pub(crate) fn reply(response: Response<Body>) -> Answer {
    response.map(|body| match body {
        Body::Whole(bytes) => https::body::whole(bytes),
        Body::Stream(lines) => UnsyncBoxBody::new(StreamBody::new(lines.map(|line| Ok(Frame::data(line))))),
    })
}
