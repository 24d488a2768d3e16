//! How CloudCore's requests to the API server ended: `rest_client_requests_total`, by the labels of client-go.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use tower::{Layer, Service};

/// The counts of the requests to one API server, by code and method. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct RequestCounts {
    host: Arc<str>,
    counts: Arc<Mutex<BTreeMap<(String, String), u64>>>,
}

impl RequestCounts {
    /// Of the API server at `host` (HOST:PORT).
    pub fn of(host: &str) -> Self {
        RequestCounts { host: host.into(), ..RequestCounts::default() }
    }

    fn add(&self, code: String, method: &Method) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((code, method.as_str().to_owned())).or_default() += 1;
    }

    /// The series, if there was any request.
    pub(crate) fn text(&self) -> String {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let host = &self.host;
        let mut text = String::new();
        if counts.is_empty() {
            return text;
        }
        let name = "rest_client_requests_total";
        let help = "Number of HTTP requests, partitioned by status code, method, and host";
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
        for ((code, method), count) in counts.iter() {
            let _ = writeln!(text, "{name}{{code=\"{code}\",host=\"{host}\",method=\"{method}\"}} {count}");
        }
        text
    }
}

impl<S> Layer<S> for RequestCounts {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, counts: self.clone() }
    }
}

/// A client's service whose answers are counted.
#[derive(Debug, Clone)]
pub struct Counted<S> {
    inner: S,
    counts: RequestCounts,
}

impl<S, B, C> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<C>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let method = request.method().clone();
        let counts = self.counts.clone();
        let answered = self.inner.call(request);
        async move {
            let answer = answered.await;
            // As client-go names a request that was not answered.
            let code =
                answer.as_ref().map_or("<error>".to_owned(), |answer| answer.status().as_u16().to_string());
            counts.add(code, &method);
            answer
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_is_counted_by_its_code_and_each_silence_as_an_error() {
        let counts = RequestCounts::of("api:6443");
        assert_eq!(counts.text(), "");
        let mut service =
            counts.layer(tower::service_fn(async |request: Request<()>| match request.uri().path() {
                "/gone" => Err(std::io::Error::other("gone")),
                _ => Ok(Response::builder().status(404).body(()).unwrap()),
            }));
        for path in ["/a", "/b", "/gone"] {
            let request = Request::get(path).body(()).unwrap();
            let answered = service.call(request).now_or_never();
            assert!(answered.is_some(), "it is answered at once");
        }
        let text = counts.text();
        for line in [
            "# TYPE rest_client_requests_total counter",
            "rest_client_requests_total{code=\"404\",host=\"api:6443\",method=\"GET\"} 2",
            "rest_client_requests_total{code=\"<error>\",host=\"api:6443\",method=\"GET\"} 1",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{text}");
        }
    }
}
