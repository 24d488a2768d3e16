use super::*;
use std::convert::Infallible;
use std::task::Poll;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic_prost::ProstCodec;

/// A server that answers with a status, or, without one, does not have the health service.
#[derive(Clone)]
struct Health(Option<i32>);

impl NamedService for Health {
    const NAME: &'static str = "grpc.health.v1.Health";
}

impl UnaryService<HealthCheckRequest> for Health {
    type Response = HealthCheckResponse;
    type Future = BoxFuture<'static, Result<tonic::Response<HealthCheckResponse>, Status>>;

    fn call(&mut self, request: Request<HealthCheckRequest>) -> Self::Future {
        assert!(
            request.metadata().get("user-agent").unwrap().to_str().unwrap().starts_with("kube-probe/1.36")
        );
        let known = request.into_inner().service == "known";
        let status = self.0;
        async move {
            let status = status.filter(|_| known);
            status
                .map(|status| tonic::Response::new(HealthCheckResponse { status }))
                .ok_or(Status::not_found("x"))
        }
        .boxed()
    }
}

impl Service<http::Request<tonic::body::Body>> for Health {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let own = self.clone();
        async move {
            if own.0 == Some(-1) {
                futures::future::pending::<()>().await;
            }
            if own.0.is_none() {
                return Ok(Status::unimplemented("unknown service").into_http());
            }
            let codec: ProstCodec<HealthCheckResponse, HealthCheckRequest> = ProstCodec::default();
            Ok(Grpc::new(codec).unary(own, request).await)
        }
        .boxed()
    }
}

async fn served(status: Option<i32>) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper_util::service::TowerToHyperService::new(Health(status));
        let builder = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
        let served = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            hyper::service::Service::call(&service, request.map(tonic::body::Body::new))
        });
        // It ends when the probe has gone.
        drop(builder.serve_connection(hyper_util::rt::TokioIo::new(stream), served).await);
    });
    port
}

async fn ask(port: u16, service: &str) -> Answer {
    probe(&Env::real(), "127.0.0.1", port, service, Duration::from_secs(1)).await
}

#[tokio::test]
async fn health_is_told_in_the_kubelets_words() {
    let failure = |text: &str| Answer::Failure(text.to_owned());
    assert_eq!(ask(served(Some(SERVING)).await, "known").await, Answer::Success);
    let port = served(Some(2)).await;
    assert_eq!(ask(port, "known").await, failure("service unhealthy (responded with \"NOT_SERVING\")"));
    assert_eq!(
        ask(served(Some(SERVING)).await, "another").await,
        failure("error: health rpc probe failed: rpc error: code = NotFound desc = x")
    );
    assert_eq!(
        ask(served(None).await, "known").await,
        failure(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown service"
        )
    );
    assert_eq!(
        ask(served(Some(-1)).await, "known").await,
        failure("timeout: health rpc did not complete within 1s")
    );
    let [free] = testhost::free_ports().unwrap();
    let Answer::Failure(text) = ask(free, "").await else { panic!("nobody is there") };
    let begins = format!("timeout: failed to connect service \"127.0.0.1:{free}\" within 1s: ");
    assert!(text.starts_with(&begins) && text.ends_with("connection refused\""), "{text}");
}
