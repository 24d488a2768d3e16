//! How long CloudCore waits for an API server that says nothing. A connection can die without a word, and a request on it would
//! never end: a list that hangs blinds CloudCore for its kind, a token that hangs takes the place of others.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, TryFutureExt as _};
use http::{Request, Response};
use tower::{BoxError, Layer, Service};
use tower_http::timeout::TimeoutBody;

/// 30 s for an answer to begin, and for each next part of it: the longest work of an API server at a request is a list.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// 10 s after a watch was to end, for the next event of it or its end.
const END_WITHIN: Duration = Duration::from_secs(10);

/// Gives up requests that are not answered, and answers that stop midway.
#[derive(Debug, Clone, Copy)]
pub struct RequestDeadlines {
    answer: Duration,
    event: Duration,
}

impl Default for RequestDeadlines {
    fn default() -> Self {
        let watched = Duration::from_secs(kubewatch::WATCH_SECONDS.into());
        RequestDeadlines { answer: ANSWER_WITHIN, event: watched + END_WITHIN }
    }
}

impl<S> Layer<S> for RequestDeadlines {
    type Service = Timed<S>;

    fn layer(&self, inner: S) -> Timed<S> {
        Timed { inner, deadlines: *self }
    }
}

/// A client's service whose requests end.
#[derive(Debug, Clone)]
pub struct Timed<S> {
    inner: S,
    deadlines: RequestDeadlines,
}

impl<S, B, C> Service<Request<B>> for Timed<S>
where
    S: Service<Request<B>, Response = Response<C>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = Response<TimeoutBody<C>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let within = self.deadlines.answer;
        let mut query = request.uri().query().unwrap_or_default().split('&');
        let silence = if query.any(|part| part == "watch=true") { self.deadlines.event } else { within };
        let answered = tokio::time::timeout(within, self.inner.call(request));
        answered
            .map(move |answered| match answered {
                Ok(answer) => answer.map_err(Into::into),
                Err(_) => {
                    let words = format!("the API server did not answer within {} s", within.as_secs());
                    Err(io::Error::new(io::ErrorKind::TimedOut, words).into())
                }
            })
            .map_ok(move |answer| answer.map(|body| TimeoutBody::new(silence, body)))
            .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::{StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};
    use k8s_openapi::api::core::v1::Pod;
    use kube::api::Api;
    use kube::runtime::watcher::{Event, watcher};

    const SHORT: RequestDeadlines =
        RequestDeadlines { answer: Duration::from_millis(20), event: Duration::from_millis(500) };

    type Frame = Result<http_body::Frame<Bytes>, io::Error>;

    /// Answers all but `/silent`; each answer stops midway, with a next part after 100 ms.
    async fn answer(
        request: Request<()>,
    ) -> Result<Response<impl http_body::Body<Data = Bytes, Error = io::Error>>, io::Error> {
        if request.uri().path() == "/silent" {
            std::future::pending::<()>().await;
        }
        let part =
            |text: &'static str| -> Frame { Ok(http_body::Frame::data(Bytes::from_static(text.as_bytes()))) };
        let late = stream::once(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            part("late")
        });
        Ok(Response::new(StreamBody::new(stream::iter([part("first")]).chain(late).boxed())))
    }

    async fn read(path: &str) -> Result<Bytes, String> {
        let mut service = SHORT.layer(tower::service_fn(answer));
        let answered =
            service.call(Request::get(path).body(()).unwrap()).await.map_err(|error| error.to_string())?;
        answered.into_body().collect().await.map(|body| body.to_bytes()).map_err(|error| error.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_ends_whatever_the_server_does() {
        let silent = read("/silent").await.unwrap_err();
        assert!(silent.contains("did not answer within"), "{silent}");
        assert!(read("/api/v1/pods").await.is_err(), "a list that stops midway is given up");
        assert_eq!(
            read("/api/v1/pods?limit=1&watch=true").await.unwrap(),
            "firstlate",
            "a watch may be silent for longer"
        );
    }

    /// A list of nothing, and watches that say nothing and end when they were asked to, as those of a kind of which nothing changes
    /// where etcd tells an API server of no progress.
    async fn quiet(
        request: Request<kube::client::Body>,
    ) -> Result<Response<impl http_body::Body<Data = Bytes, Error = io::Error> + Send>, io::Error> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let is_watch = query.split('&').any(|part| part == "watch=true");
        let seconds = query.split('&').find_map(|part| part.strip_prefix("timeoutSeconds="));
        let lives = Duration::from_secs(seconds.map_or(u64::MAX >> 8, |text| text.parse().unwrap()));
        let text = r#"{"apiVersion":"v1","kind":"PodList","metadata":{"resourceVersion":"1"},"items":[]}"#;
        let body = stream::once(async move {
            if is_watch {
                tokio::time::sleep(lives).await;
            }
            Ok(http_body::Frame::data(Bytes::from_static(if is_watch { b"" } else { text.as_bytes() })))
        });
        Ok(Response::new(StreamBody::new(body.boxed())))
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_of_which_nothing_changes_is_no_interruption() {
        let service = RequestDeadlines::default().layer(tower::service_fn(quiet));
        let pods: Api<Pod> = Api::all(kube::Client::new(service, "default"));
        let mut events = std::pin::pin!(watcher(pods, kubewatch::watch_config(None)));
        let mut said = Vec::new();
        let hour = tokio::time::sleep(Duration::from_secs(3600));
        tokio::pin!(hour);
        loop {
            tokio::select! {
                event = events.next() => said.push(event.unwrap().expect("an interruption")),
                () = &mut hour => break,
            }
        }
        assert!(matches!(said[..], [Event::Init, Event::InitDone]), "listed once: {said:?}");
    }
}
