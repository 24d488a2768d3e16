//! Where a request to a kubelet goes, and what it needs. Pure, and the one reader of such paths in the cloud: what one reader lets
//! through as harmless, another would run.
//!
//! Paths, verbs and subresources are those of the kubelet (pkg/kubelet/server/auth.go of Kubernetes 1.36, with
//! `KubeletFineGrainedAuthz`), but for one: what runs a command or opens a connection in a pod asks for `create`, whatever
//! its method. A kubelet asks `get` of a WebSocket, so that whoever may read a node's metrics by its proxy runs commands there.

use contract::csi_call;
use http::Method;

/// Beside the user, what is asked of the API server: `verb` on `nodes/<subresource>` of the node, the first yes decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Kubernetes' verb; empty for a method that has none.
    pub verb: &'static str,
    /// In order.
    pub subresources: Vec<&'static str>,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Nowhere: no path of a kubelet.
    Unknown,
    /// Go's mux sends it there.
    Moved(&'static str),
    /// To the node, if the caller may.
    Node(Needs),
}

/// What runs a command or opens a connection in a pod, or makes and removes volumes by a CSI driver's pod
/// ([`contract::csi_call`], which no kubelet has).
const CONNECTING: [&str; 5] = ["exec", "attach", "portForward", "run", csi_call::SEGMENT];

/// Whether a path does one of these. Only where [`route`] leads to the node does its first segment say so.
#[must_use]
pub fn connects(path: &str) -> bool {
    path.strip_prefix('/')
        .and_then(|rest| rest.split('/').next())
        .is_some_and(|first| CONNECTING.contains(&first))
}

/// Whether a call to this target lasts: it follows a log, or is a command or a connection.
pub(crate) fn lasts(target: &str) -> bool {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let follows = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        name == "follow" && !matches!(value, "0" | "false" | "False")
    };
    // What is written in another way than anybody writes it counts as one that lasts.
    connects(path)
        || (path.starts_with("/containerLogs/") && (query.split('&').any(follows) || query.contains('%')))
}

/// The route of a request, for every door through which one comes. The first segment decides alone, as it was sent: nothing is decoded or cleaned first, so that the node
/// cannot read another path than the one that was asked for.
pub fn route(method: &Method, path: &str) -> Route {
    let Some(rest) = path.strip_prefix('/') else { return Route::Unknown };
    let (first, below) = match rest.split_once('/') {
        Some((first, below)) => (first, Some(below)),
        None => (rest, None),
    };
    let subresources = match (first, below) {
        ("runningpods", None) => return Route::Moved("/runningpods/"),
        ("logs", None) => return Route::Moved("/logs/"),
        ("pods" | "runningpods", _) => vec!["pods", "proxy"],
        ("healthz", _) => vec!["healthz", "proxy"],
        ("configz", _) => vec!["configz", "proxy"],
        ("flagz", _) => vec!["configz"],
        ("statusz", _) => vec!["statusz"],
        ("stats", _) => vec!["stats"],
        ("metrics", _) => vec!["metrics"],
        ("logs", _) => vec!["log"],
        ("checkpoint", _) => vec!["checkpoint"],
        (
            "containerLogs" | "exec" | "attach" | "portForward" | "run" | "debug" | csi_call::SEGMENT,
            Some(_),
        ) => {
            vec!["proxy"]
        }
        _ => return Route::Unknown,
    };
    if below.is_some_and(is_odd) {
        return Route::Unknown;
    }
    let verb = if connects(path) { "create" } else { verb_of(method) };
    Route::Node(Needs { verb, subresources })
}

/// Segments that a reader of paths takes away or adds: those are no path that a kubelet serves.
fn is_odd(below: &str) -> bool {
    let below = below.strip_suffix('/').unwrap_or(below);
    let is_dots =
        |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    !below.is_empty() && below.split('/').any(|segment| segment.is_empty() || is_dots(segment))
}

fn verb_of(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(method: Method, path: &str) -> (&'static str, Vec<&'static str>) {
        match route(&method, path) {
            Route::Node(Needs { verb, subresources }) => (verb, subresources),
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn every_path_asks_for_what_a_kubelet_asks_for() {
        for (path, subresources) in [
            ("/pods", &["pods", "proxy"][..]),
            ("/pods/", &["pods", "proxy"]),
            ("/runningpods/", &["pods", "proxy"]),
            ("/healthz", &["healthz", "proxy"]),
            ("/healthz/ping", &["healthz", "proxy"]),
            ("/configz", &["configz", "proxy"]),
            ("/flagz", &["configz"]),
            ("/statusz", &["statusz"]),
            ("/stats/summary", &["stats"]),
            ("/metrics", &["metrics"]),
            ("/metrics/cadvisor", &["metrics"]),
            ("/logs/", &["log"]),
            ("/logs/pods/a.log", &["log"]),
            ("/checkpoint/d/p/c", &["checkpoint"]),
            ("/containerLogs/d/p/c", &["proxy"]),
            ("/debug/pprof/heap", &["proxy"]),
        ] {
            assert_eq!(needs(Method::GET, path), ("get", subresources.to_vec()), "{path}");
        }
        for (method, verb) in [
            (Method::POST, "create"),
            (Method::PUT, "update"),
            (Method::PATCH, "patch"),
            (Method::DELETE, "delete"),
            (Method::HEAD, ""),
            (Method::OPTIONS, ""),
        ] {
            assert_eq!(needs(method, "/stats/summary").0, verb);
        }
    }

    #[test]
    fn no_method_runs_a_command_without_create() {
        for path in [
            "/exec/d/p/c",
            "/attach/d/p/u/c",
            "/portForward/d/p",
            "/run/d/p/c",
            "/csi/d/csi.v1.Controller/DeleteVolume",
        ] {
            for method in [Method::GET, Method::POST, Method::PUT, Method::HEAD] {
                assert_eq!(needs(method, path), ("create", vec!["proxy"]), "{path}");
            }
        }
    }

    #[test]
    fn what_is_no_path_of_a_kubelet_goes_nowhere() {
        for path in [
            "",
            "/",
            "*",
            "//pods",
            "/Pods",
            "/podsx",
            "/metricsx/cadvisor",
            "/exec",
            "/csi",
            "/csi/../exec/d/p/c",
            "/%65xec/d/p/c",
            "/metrics/../exec/d/p/c",
            "/metrics/%2e%2E/exec/d/p/c",
            "/metrics/./cadvisor",
            "/logs//etc/passwd",
            "/spec",
            "/metrics%2Fcadvisor",
        ] {
            assert_eq!(route(&Method::GET, path), Route::Unknown, "{path}");
        }
        assert_eq!(route(&Method::GET, "/runningpods"), Route::Moved("/runningpods/"));
        assert_eq!(route(&Method::GET, "/logs"), Route::Moved("/logs/"));
    }

    #[test]
    fn what_connects_is_told_from_the_rest() {
        for (path, expected) in [
            ("/exec/d/p/c", true),
            ("/run/d/p/c", true),
            ("/csi/d/m", true),
            ("/csix", false),
            ("/pods", false),
            ("/containerLogs/d/p/c", false),
        ] {
            assert_eq!(connects(path), expected, "{path}");
        }
    }

    #[test]
    fn followers_and_commands_last() {
        for (target, expected) in [
            ("/containerLogs/d/p/c?follow=true", true),
            ("/containerLogs/d/p/c?tailLines=1&follow", true),
            ("/containerLogs/d/p/c?%66ollow=true", true),
            ("/containerLogs/d/p/c?follow=false&tailLines=5", false),
            ("/containerLogs/d/p/c", false),
            ("/exec/d/p/c?command=a", true),
            ("/metrics?follow=true", false),
        ] {
            assert_eq!(lasts(target), expected, "{target}");
        }
    }
}
