//! Answers, and how they become bytes.

use bytes::Bytes;
use futures::stream::BoxStream;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use crate::error::ApiError;

/// The body of an answer.
pub enum Body {
    /// All of it.
    Whole(Bytes),
    /// A watch: a JSON document a line, for as long as it is read.
    Stream(BoxStream<'static, Bytes>),
}

/// An answer before it is bytes.
pub enum Answer {
    /// An object, and warnings for whoever asked.
    Object(StatusCode, Value, Vec<String>),
    /// Bytes of a media type, and warnings for whoever asked.
    Raw(&'static str, Bytes, Vec<String>),
    /// A watch.
    Stream(BoxStream<'static, Bytes>),
}

impl Answer {
    /// 200 with an object.
    pub fn ok(object: Value) -> Self {
        Answer::Object(StatusCode::OK, object, Vec::new())
    }

    /// 201 with an object.
    pub fn created(object: Value) -> Self {
        Answer::Object(StatusCode::CREATED, object, Vec::new())
    }

    /// 201 with a Status that says Success: something was done that is no object.
    pub fn success() -> Self {
        Answer::created(json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "code": 201 }))
    }
}

/// The answer, or the error, as HTTP.
pub(crate) fn respond(answer: Result<Answer, ApiError>) -> Response<Body> {
    match answer {
        Ok(Answer::Object(code, object, warnings)) => object_response(code, &object, &warnings),
        Ok(Answer::Raw(media, bytes, warnings)) => warned(of_media(media, Body::Whole(bytes)), &warnings),
        Ok(Answer::Stream(stream)) => of_media("application/json", Body::Stream(stream)),
        Err(error) => error.to_response(),
    }
}

fn of_media(media: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

fn object_response(code: StatusCode, object: &Value, warnings: &[String]) -> Response<Body> {
    let (bytes, media) = match object {
        Value::String(text) => (text.clone().into_bytes(), "text/plain; charset=utf-8"),
        object => (serde_json::to_vec(object).unwrap_or_default(), "application/json"),
    };
    let mut response = of_media(media, Body::Whole(Bytes::from(bytes)));
    *response.status_mut() = code;
    warned(response, warnings)
}

fn warned(mut response: Response<Body>, warnings: &[String]) -> Response<Body> {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
    response
}

impl ApiError {
    /// The error as an answer.
    pub fn to_response(&self) -> Response<Body> {
        let code = StatusCode::from_u16(self.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        object_response(code, &self.to_status(), &[])
    }
}
