//! What is asked of a node: `pods/{log,exec,attach,portforward}` and `nodes/proxy`, as calls of its kubelet endpoint over the
//! node's link, in this process.
//!
//! The paths and parameters are those by which an API server asks a kubelet (pkg/registry/core/pod/strategy.go of Kubernetes
//! 1.36). WebSocket protocols beyond v4 are refused before the upgrade, so that `kubectl` falls back to SPDY: the runtimes on the
//! nodes know none.

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use contract::NodeName;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use https::{Answer, Peer, body};
use hyper::body::Incoming;
use kubeapi::{Api, ApiError, Attributes, Body, User};
use nodecalls::{Call, NodeCalls, Route, route};
use serde_json::{Value, json};

use crate::answer::reply;
use crate::bootstrap;
use crate::store::SqliteStore;

/// The path of nodes.
const NODES: &str = "/api/v1/nodes/";
/// 50,000 bytes of an error of a kubelet are shown, as an API server does.
const ERROR_MAX: usize = 50_000;
/// WebSocket protocols that no runtime of a node knows.
const BEYOND_V4: [&str; 2] = ["v5.channel.k8s.io", "SPDY/3.1+portforward.k8s.io"];

/// The way to the nodes, once a CloudCore runs in this process.
#[derive(Clone, Default)]
pub(crate) struct Kubelets(Arc<RwLock<Option<NodeCalls>>>);

impl Kubelets {
    pub(crate) fn set(&self, calls: NodeCalls) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(calls);
    }

    fn calls(&self) -> Option<NodeCalls> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What of a node is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Log,
    Exec,
    Attach,
    PortForward,
    Proxy,
}

impl Wanted {
    /// `None`: the request is about an object alone. A path below `nodes/proxy` is no part of the subresource's name.
    pub(crate) fn of(attributes: &mut Attributes) -> Option<Wanted> {
        if attributes.name.is_empty() || !attributes.group.is_empty() {
            return None;
        }
        let wanted = match (attributes.resource.as_str(), attributes.subresource.as_str()) {
            ("pods", "log") => Wanted::Log,
            ("pods", "exec") => Wanted::Exec,
            ("pods", "attach") => Wanted::Attach,
            ("pods", "portforward") => Wanted::PortForward,
            ("nodes", proxy) if proxy == "proxy" || proxy.starts_with("proxy/") => Wanted::Proxy,
            _ => return None,
        };
        if wanted == Wanted::Proxy {
            "proxy".clone_into(&mut attributes.subresource);
        }
        Some(wanted)
    }

    /// The rights that are needed: what runs a command or opens a connection needs `create`, also as a GET.
    pub(crate) fn rights(self, attributes: &Attributes) -> Vec<Attributes> {
        let connects = match self {
            Wanted::Log => false,
            Wanted::Exec | Wanted::Attach | Wanted::PortForward => true,
            Wanted::Proxy => proxied(&attributes.path, &attributes.name).is_some_and(route::connects),
        };
        let create = Attributes { verb: "create".to_owned(), ..attributes.clone() };
        if connects && attributes.verb != "create" {
            vec![attributes.clone(), create]
        } else {
            vec![attributes.clone()]
        }
    }
}

/// What follows `/proxy` in the path of a node, as it was sent. `None`: the path is written in another way than it is read by who
/// authorises it.
fn proxied<'a>(path: &'a str, node: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(NODES)?.strip_prefix(node)?.strip_prefix("/proxy")?;
    match rest {
        "" => Some("/"),
        rest => rest.starts_with('/').then_some(rest),
    }
}

/// Answers what is asked of a node. The sender may.
pub(crate) async fn answer(
    (api, kubelets): (&Api<SqliteStore>, &Kubelets),
    (wanted, attributes): (Wanted, &Attributes),
    user: &User,
    request: Request<Incoming>,
    peer: &Peer,
) -> Answer {
    let is_served = match wanted {
        Wanted::Log => *request.method() == Method::GET,
        Wanted::Exec | Wanted::Attach | Wanted::PortForward => {
            matches!(*request.method(), Method::GET | Method::POST)
        }
        Wanted::Proxy => true,
    };
    if !is_served {
        return reply(ApiError::method_not_allowed().to_response());
    }
    if let Some(refusal) = refused_upgrade(&request) {
        return refusal;
    }
    let (node, target) = match destination(api, wanted, attributes, &request).await {
        Ok(found) => found,
        Err(refusal) => return refusal,
    };
    let Some(calls) = kubelets.calls() else {
        let words = "no CloudCore runs in this process, so that no node is reached\n";
        return body::sentence(StatusCode::SERVICE_UNAVAILABLE, words);
    };
    let call = Call { node: &node, target: &target, user: &user.name, speaks_for_himself: true };
    let answer = calls.call(call, request, peer).await;
    match wanted {
        Wanted::Log if answer.status().as_u16() >= 400 => as_status(answer).await,
        _ => answer,
    }
}

fn refused_upgrade(request: &Request<Incoming>) -> Option<Answer> {
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let offered = offered.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let mut offered = offered.map(str::trim).peekable();
    if offered.peek().is_some() && offered.all(|protocol| BEYOND_V4.contains(&protocol)) {
        let words = "WebSocket protocols beyond v4.channel.k8s.io are not spoken here: use SPDY\n";
        return Some(body::sentence(StatusCode::BAD_REQUEST, words));
    }
    None
}

/// Which node, and what of it.
async fn destination(
    api: &Api<SqliteStore>,
    wanted: Wanted,
    attributes: &Attributes,
    request: &Request<Incoming>,
) -> Result<(NodeName, String), Answer> {
    let bad = |words: String| reply(ApiError::bad_request(words).to_response());
    let named = |name: &str| NodeName::parse(name).map_err(|error| error.to_string());
    let query = request.uri().query().unwrap_or_default();
    if wanted == Wanted::Proxy {
        let path = proxied(request.uri().path(), &attributes.name).unwrap_or_default();
        match route::route(request.method(), path) {
            Route::Node(_) => {}
            Route::Unknown => return Err(body::sentence(StatusCode::NOT_FOUND, "404 page not found\n")),
            Route::Moved(to) => return Err(moved(&attributes.name, to)),
        }
        let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        return Ok((named(&attributes.name).map_err(bad)?, target));
    }
    let pod = read_pod(api, attributes).await?;
    let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
    let name = &attributes.name;
    if node.is_empty() {
        return Err(match wanted {
            // As a server answers whose pod has not been scheduled: nothing was written yet.
            Wanted::Log => body::sentence(StatusCode::NO_CONTENT, ""),
            _ => bad(format!("pod {name} does not have a host assigned")),
        });
    }
    let target = target(wanted, attributes, &pod, query).map_err(bad)?;
    Ok((named(node).map_err(bad)?, target))
}

/// A kubelet serves it with a slash at its end.
fn moved(node: &str, to: &str) -> Answer {
    let mut answer = body::sentence(StatusCode::MOVED_PERMANENTLY, "");
    if let Ok(location) = header::HeaderValue::from_str(&format!("{NODES}{node}/proxy{to}")) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    answer
}

async fn read_pod(api: &Api<SqliteStore>, attributes: &Attributes) -> Result<Value, Answer> {
    let path = format!("/api/v1/namespaces/{}/pods/{}", attributes.namespace, attributes.name);
    let asked = Request::builder().method(Method::GET).uri(path).body(Bytes::new());
    let asked = asked.map_err(|error| reply(ApiError::bad_request(error.to_string()).to_response()))?;
    let found = api.handle(asked, &bootstrap::loopback()).await;
    match (found.status(), found.into_parts()) {
        (StatusCode::OK, (_, Body::Whole(bytes))) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
        (_, (head, body)) => Err(reply(http::Response::from_parts(head, body))),
    }
}

/// The kubelet's path and parameters.
fn target(wanted: Wanted, attributes: &Attributes, pod: &Value, query: &str) -> Result<String, String> {
    let Attributes { namespace, name, .. } = attributes;
    let pairs: Vec<(&str, &str)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    let said = |key: &str| pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
    let is_true = |key: &str| said(key).is_some_and(|value| !matches!(value, "false" | "0" | "False"));
    let mut asked: Vec<String> = Vec::new();
    if wanted == Wanted::PortForward {
        let ports = pairs.iter().filter(|(key, _)| matches!(*key, "ports" | "port"));
        asked.extend(ports.map(|(_, value)| format!("port={value}")));
        return Ok(with_query(format!("/portForward/{namespace}/{name}"), &asked));
    }
    let container = container(pod, name, said("container").unwrap_or_default())?;
    let path = match wanted {
        Wanted::Log => {
            let flags = ["follow", "previous", "timestamps"].into_iter().filter(|key| is_true(key));
            asked.extend(flags.map(|key| format!("{key}=true")));
            let options = ["sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"];
            asked.extend(options.iter().filter_map(|key| Some(format!("{key}={}", said(key)?))));
            "containerLogs"
        }
        _ => {
            let streams = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
            let streams = streams.into_iter().filter(|(key, _)| is_true(key));
            asked.extend(streams.map(|(_, kubelets)| format!("{kubelets}=1")));
            let commands = pairs.iter().filter(|(key, _)| *key == "command");
            asked.extend(commands.map(|(_, value)| format!("command={value}")));
            if wanted == Wanted::Exec { "exec" } else { "attach" }
        }
    };
    Ok(with_query(format!("/{path}/{namespace}/{name}/{container}"), &asked))
}

fn with_query(path: String, asked: &[String]) -> String {
    if asked.is_empty() { path } else { format!("{path}?{}", asked.join("&")) }
}

/// The container that is meant, in an API server's words where that is none.
fn container(pod: &Value, name: &str, said: &str) -> Result<String, String> {
    let of = |list: &str| -> Vec<String> {
        let all = pod["spec"][list].as_array().into_iter().flatten();
        all.filter_map(|container| container["name"].as_str().map(str::to_owned)).collect()
    };
    let main = of("containers");
    if said.is_empty() {
        return match main.as_slice() {
            [only] => Ok(only.clone()),
            several => Err(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                several.join(" ")
            )),
        };
    }
    let known =
        main.iter().chain(&of("initContainers")).chain(&of("ephemeralContainers")).any(|one| one == said);
    if known { Ok(said.to_owned()) } else { Err(format!("container {said} is not valid for pod {name}")) }
}

/// A kubelet's error as a Status, as an API server makes it of one about logs.
async fn as_status(answer: Answer) -> Answer {
    let code = answer.status();
    let read = Limited::new(answer.into_body(), ERROR_MAX).collect().await;
    let bytes = read.map(|body| body.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
    let (reason, message) = match code {
        StatusCode::BAD_REQUEST => ("BadRequest", text),
        StatusCode::NOT_FOUND => ("NotFound", text),
        StatusCode::UNPROCESSABLE_ENTITY => ("Invalid", text),
        StatusCode::TOO_MANY_REQUESTS => ("TooManyRequests", text),
        StatusCode::INTERNAL_SERVER_ERROR => ("InternalError", format!("Internal error occurred: {text}")),
        _ => ("", text),
    };
    let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16() });
    body::answer(code, "application/json", status.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(method: Method, uri: &str) -> Attributes {
        Attributes::of(&Request::builder().method(method).uri(uri).body(()).unwrap().into_parts().0)
    }

    fn rights(method: Method, uri: &str) -> Vec<String> {
        let mut attributes = attributes(method, uri);
        let wanted = Wanted::of(&mut attributes).unwrap();
        let all = wanted.rights(&attributes).into_iter();
        all.map(|right| format!("{} {}/{}", right.verb, right.resource, right.subresource)).collect()
    }

    #[test]
    fn what_connects_needs_create_whatever_its_method() {
        let pod = "/api/v1/namespaces/d/pods/p";
        assert_eq!(rights(Method::GET, &format!("{pod}/log")), ["get pods/log"]);
        assert_eq!(rights(Method::POST, &format!("{pod}/exec")), ["create pods/exec"]);
        assert_eq!(rights(Method::GET, &format!("{pod}/exec?x")), ["get pods/exec", "create pods/exec"]);
        let node = "/api/v1/nodes/n/proxy";
        assert_eq!(rights(Method::GET, &format!("{node}/metrics/cadvisor")), ["get nodes/proxy"]);
        assert_eq!(rights(Method::GET, node), ["get nodes/proxy"]);
        let both = ["get nodes/proxy", "create nodes/proxy"];
        assert_eq!(rights(Method::GET, &format!("{node}/exec/d/p/c")), both);
        assert_eq!(Wanted::of(&mut attributes(Method::GET, pod)), None);
        assert_eq!(Wanted::of(&mut attributes(Method::GET, "/api/v1/nodes/n/proxyx")), None);
    }

    #[test]
    fn a_kubelets_path_and_parameters_are_made() {
        let pod = json!({ "spec": { "containers": [{ "name": "c" }], "initContainers": [{ "name": "i" }] } });
        let of = |wanted, query: &str| {
            target(wanted, &attributes(Method::GET, "/api/v1/namespaces/d/pods/p/x"), &pod, query)
        };
        assert_eq!(of(Wanted::Log, "").unwrap(), "/containerLogs/d/p/c");
        let query = "follow=true&previous=false&tailLines=5&container=i&pretty=1";
        assert_eq!(of(Wanted::Log, query).unwrap(), "/containerLogs/d/p/i?follow=true&tailLines=5");
        let query = "command=sh&command=-c&command=echo%20a%26b&stdin=true&stdout=true&tty=false";
        let path = "/exec/d/p/c?input=1&output=1&command=sh&command=-c&command=echo%20a%26b";
        assert_eq!(of(Wanted::Exec, query).unwrap(), path);
        assert_eq!(of(Wanted::Attach, "stdout=1").unwrap(), "/attach/d/p/c?output=1");
        assert_eq!(of(Wanted::PortForward, "").unwrap(), "/portForward/d/p");
        assert_eq!(of(Wanted::PortForward, "ports=80").unwrap(), "/portForward/d/p?port=80");
        assert_eq!(of(Wanted::Log, "container=x"), Err("container x is not valid for pod p".to_owned()));
        let two = json!({ "spec": { "containers": [{ "name": "a" }, { "name": "b" }] } });
        let words = "a container name must be specified for pod p, choose one of: [a b]";
        assert_eq!(container(&two, "p", ""), Err(words.to_owned()));
    }

    #[test]
    fn what_follows_proxy_goes_on_as_it_was_sent() {
        for (path, rest) in [
            ("/api/v1/nodes/n/proxy", Some("/")),
            ("/api/v1/nodes/n/proxy/", Some("/")),
            ("/api/v1/nodes/n/proxy/logs/a%2Fb/c", Some("/logs/a%2Fb/c")),
            ("/api/v1/nodes/n", None),
            ("/api/v1/nodes/n/status", None),
            ("/api/v1/nodes/n/proxyx/exec", None),
            // Whoever authorises reads a node named n there, or none.
            ("/api/v1/nodes/%6e/proxy/pods", None),
            ("/api/v1//nodes/n/proxy/pods", None),
            ("/api/v1/namespaces/d/nodes/n/proxy/pods", None),
        ] {
            assert_eq!(proxied(path, "n"), rest, "{path}");
        }
    }
}
