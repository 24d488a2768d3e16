//! Both services at the driver's one socket.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use csi::v1::controller_server::ControllerServer;
use csi::v1::node_server::NodeServer;
use hyper::body::Incoming;
use tonic::body::Body;
use tower::Service;

use crate::controller::ControllerService;
use crate::node::NodeService;

/// Answers a call by the service that its path names.
#[derive(Clone)]
pub(crate) struct Both {
    pub(crate) node: NodeServer<NodeService>,
    pub(crate) controller: ControllerServer<ControllerService>,
}

type Answering = Pin<Box<dyn Future<Output = Result<hyper::Response<Body>, Infallible>> + Send>>;

impl Service<hyper::Request<Incoming>> for Both {
    type Response = hyper::Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: hyper::Request<Incoming>) -> Answering {
        if request.uri().path().starts_with("/csi.v1.Controller/") {
            Box::pin(self.controller.call(request))
        } else {
            Box::pin(self.node.call(request))
        }
    }
}
