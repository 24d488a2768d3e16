//! The target of the rules: an HTTP server that keeps what it is told.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::fleet::Fleet;
use super::publisher::Reading;
use crate::Samples;

#[derive(Default)]
struct Kept {
    /// Each reading with how often it came.
    readings: BTreeMap<Reading, u32>,
    /// The newest of each device.
    newest: BTreeMap<usize, u64>,
    times: Samples,
    wrong: Vec<String>,
}

/// The server.
pub(super) struct Collector {
    kept: Arc<Mutex<Kept>>,
    task: AbortHandle,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Collector {
    /// On loopback. Answers its address, too.
    pub(super) async fn start(fleet: Arc<Fleet>) -> Result<(SocketAddr, Collector)> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.context("listen")?;
        let address = listener.local_addr()?;
        let kept = Arc::<Mutex<Kept>>::default();
        let shared = Arc::clone(&kept);
        let serve = async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (kept, fleet) = (Arc::clone(&shared), Arc::clone(&fleet));
                tokio::spawn(async move {
                    let service = service_fn(|request| answer(request, &kept, &fleet));
                    // A caller that goes is no fault of the server.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
                });
            }
        };
        Ok((address, Collector { kept, task: tokio::spawn(serve).abort_handle() }))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many different readings have come.
    pub(super) fn count(&self) -> usize {
        self.kept().readings.len()
    }

    /// From the reading to here.
    pub(super) fn times(&self) -> Samples {
        self.kept().times.clone()
    }

    /// What is missing of these, and what came out of order.
    pub(super) fn wrong(&self, sent: &[Reading]) -> Vec<String> {
        let kept = self.kept();
        let missing = sent.iter().filter(|reading| !kept.readings.contains_key(reading));
        let missing = missing.map(|(device, count)| format!("reading {count} of device {device} is missing"));
        missing.chain(kept.wrong.iter().cloned()).collect()
    }
}

async fn answer(
    request: Request<Incoming>,
    kept: &Mutex<Kept>,
    fleet: &Fleet,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            kept.lock().unwrap_or_else(PoisonError::into_inner).wrong.push(format!("a body: {error}"));
            return Ok(status(StatusCode::BAD_REQUEST));
        }
    };
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((device, count, at)) = read(&body) else {
        kept.wrong.push(format!("no reading: {}", String::from_utf8_lossy(&body)));
        return Ok(status(StatusCode::BAD_REQUEST));
    };
    kept.take((device, count), fleet.age(at));
    Ok(status(StatusCode::NO_CONTENT))
}

fn status(status: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

fn read(body: &[u8]) -> Option<(usize, u64, u64)> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let number = |key: &str| body.get(key)?.as_u64();
    Some((usize::try_from(number("device")?).ok()?, number("count")?, number("at")?))
}

impl Kept {
    /// Once more is no fault (at least once); an older one that was not there yet is.
    fn take(&mut self, reading: Reading, age: Duration) {
        let times = self.readings.entry(reading).or_default();
        *times += 1;
        if *times > 1 {
            return;
        }
        self.times.add(age);
        let (device, count) = reading;
        let newest = self.newest.insert(device, count);
        if newest.is_some_and(|newest| newest > count) {
            self.wrong.push(format!("reading {count} of device {device} came behind {newest:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_is_no_fault_and_what_comes_late_is() {
        let mut kept = Kept::default();
        for count in [0, 1, 1, 3] {
            kept.take((7, count), Duration::ZERO);
        }
        assert!(kept.wrong.is_empty(), "{:?}", kept.wrong);
        kept.take((7, 2), Duration::ZERO);
        assert_eq!(kept.wrong.len(), 1);
        assert_eq!((kept.readings.len(), kept.times.count()), (4, 4));
        assert_eq!(read(br#"{"device":7,"count":2,"at":3}"#), Some((7, 2, 3)));
        assert_eq!(read(b"{}"), None);
    }
}
