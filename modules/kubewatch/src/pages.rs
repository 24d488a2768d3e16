//! Lists come in pages that are bounded in bytes. A page is read as a whole, and how large its objects are nobody knows before: so the number of
//! objects that is asked for follows from the pages that came, and a page that is too large all the same is given up and asked
//! for again with fewer.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response, Uri};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use kube::client::Body;
use tower::{BoxError, Service};

/// 200 objects in one answer of a list at the most: all kinds are listed at once when a CloudCore starts.
pub(crate) const PAGE: u32 = 200;
/// 25 objects in the first, when nobody knows how large they are.
const FIRST: u32 = 25;
/// 4 MiB of one page.
const PAGE_BYTES: usize = 4 << 20;
/// 16 MiB of a page of one object: an API server takes 3 MiB at the most, and an object can be larger as JSON than it is stored.
const OBJECT_BYTES: usize = 16 << 20;

/// A client whose lists come in pages of few bytes.
pub(crate) fn paged(client: &kube::Client) -> kube::Client {
    let namespace = client.default_namespace().to_owned();
    kube::Client::new(Pages { client: client.clone(), next: Arc::new(AtomicU32::new(FIRST)) }, namespace)
}

/// Passes requests on, lists by pages.
struct Pages {
    client: kube::Client,
    /// How many objects the next page is to have.
    next: Arc<AtomicU32>,
}

impl Service<Request<Body>> for Pages {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // The client waits for room itself.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (client, next) = (self.client.clone(), Arc::clone(&self.next));
        if !is_page(request.uri()) {
            return async move { client.send(request).await.map_err(Into::into) }.boxed();
        }
        let (parts, _) = request.into_parts();
        async move {
            loop {
                let limit = next.load(Ordering::Relaxed);
                let mut request = Request::new(Body::empty());
                *request.method_mut() = parts.method.clone();
                *request.headers_mut() = parts.headers.clone();
                *request.extensions_mut() = parts.extensions.clone();
                *request.uri_mut() = with_limit(&parts.uri, limit)?;
                let (head, body) = client.send(request).await?.into_parts();
                if !head.status.is_success() {
                    return Ok(Response::from_parts(head, body));
                }
                let most = if limit == 1 { OBJECT_BYTES } else { PAGE_BYTES };
                let read = read(body, most).await?;
                next.store(after(limit, read.as_ref().map(Bytes::len)), Ordering::Relaxed);
                match read {
                    Some(bytes) => return Ok(Response::from_parts(head, Body::from(bytes))),
                    None if limit > 1 => {}
                    None => {
                        let words = format!("a list of one object has more than {most} bytes");
                        return Err(io::Error::new(io::ErrorKind::InvalidData, words).into());
                    }
                }
            }
        }
        .boxed()
    }
}

fn is_page(uri: &Uri) -> bool {
    let mut is_watch = false;
    let mut has_limit = false;
    for part in uri.query().unwrap_or_default().split('&') {
        is_watch |= part == "watch=true";
        has_limit |= part.starts_with("limit=");
    }
    has_limit && !is_watch
}

/// The same with another `limit`.
fn with_limit(uri: &Uri, limit: u32) -> Result<Uri, http::Error> {
    let others = uri.query().unwrap_or_default().split('&').filter(|part| !part.starts_with("limit="));
    let mut query: Vec<&str> = others.filter(|part| !part.is_empty()).collect();
    let limit = format!("limit={limit}");
    query.push(&limit);
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("{}?{}", uri.path(), query.join("&")).parse()?);
    Uri::from_parts(parts).map_err(Into::into)
}

/// How many objects to ask for after a page of so many bytes; `None`: it had too many.
fn after(limit: u32, bytes: Option<usize>) -> u32 {
    match bytes {
        None => (limit / 4).max(1),
        Some(bytes) if bytes > PAGE_BYTES / 2 => (limit / 2).max(1),
        Some(bytes) if bytes < PAGE_BYTES / 8 => (limit * 2).min(PAGE),
        Some(_) => limit,
    }
}

/// All of it; `None` if it has more bytes than that, of which no more are read.
async fn read(mut body: Body, most: usize) -> Result<Option<Bytes>, BoxError> {
    if body.size_hint().lower() > most as u64 {
        return Ok(None);
    }
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if all.len() + data.len() > most {
            return Ok(None);
        }
        all.extend_from_slice(&data);
    }
    Ok(Some(all.freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::sync::Mutex;

    use http_body_util::Full;
    use kube::api::{Api, ListParams, ObjectList};

    use crate::WatchedObject;

    /// A server with objects of these sizes, and the limits that it was asked with.
    fn server(sizes: Vec<usize>) -> (kube::Client, Arc<Mutex<Vec<u32>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&asked);
        let service = tower::service_fn(move |request: Request<Body>| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let of = |name: &str| {
                let value = query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
                value.map(|value| value.parse::<usize>().unwrap())
            };
            let (from, limit) = (of("continue").unwrap_or_default(), of("limit").unwrap());
            told.lock().unwrap().push(u32::try_from(limit).unwrap());
            let to = (from + limit).min(sizes.len());
            let items: Vec<String> = (from..to)
                .map(|at| format!(r#"{{"metadata":{{"name":"n{at}"}},"spec":"{}"}}"#, "x".repeat(sizes[at])))
                .collect();
            let next = if to < sizes.len() { to.to_string() } else { String::new() };
            let text = format!(
                r#"{{"kind":"L","apiVersion":"v1","metadata":{{"resourceVersion":"1","continue":"{next}"}},"items":[{}]}}"#,
                items.join(",")
            );
            async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text)))) }
        });
        (kube::Client::new(service, "default"), asked)
    }

    async fn list(client: &kube::Client) -> Result<usize, kube::Error> {
        let api: Api<WatchedObject> =
            Api::all_with(paged(client), &crate::WatchedKind::core("pods", "Pod").api_resource());
        let (mut found, mut from) = (0, String::new());
        loop {
            let mut params = ListParams::default().limit(PAGE);
            params.continue_token = (!from.is_empty()).then(|| from.clone());
            let page: ObjectList<WatchedObject> = api.list(&params).await?;
            found += page.items.len();
            from = page.metadata.continue_.unwrap_or_default();
            if from.is_empty() {
                return Ok(found);
            }
        }
    }

    #[tokio::test]
    async fn small_objects_come_in_large_pages_and_large_ones_in_small() {
        let (client, asked) = server(vec![100; 1000]);
        assert_eq!(list(&client).await.unwrap(), 1000);
        assert_eq!(asked.lock().unwrap().clone(), [25, 50, 100, 200, 200, 200, 200, 200]);
        let (client, asked) = server(vec![1_500_000; 6]);
        assert_eq!(list(&client).await.unwrap(), 6, "none is missing");
        assert_eq!(asked.lock().unwrap().clone(), [25, 6, 1, 1, 1, 1, 1, 1]);
        let (client, _) = server(vec![17 << 20]);
        assert!(list(&client).await.unwrap_err().to_string().contains("bytes"));
    }
}
