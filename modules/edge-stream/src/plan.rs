//! What a request asks for: a kubelet's paths, methods and parameters (`pkg/kubelet/server`), and its words where they are wrong.

use apimachinery::NamespacedName;

use crate::error::Refusal;
use crate::log::options::LogOptions;
use crate::query::{Query, Target};

/// Which streams of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Streams {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) tty: bool,
}

/// A container of a pod; with a uid only of that incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InPod {
    pub(crate) pod: NamespacedName,
    pub(crate) uid: Option<String>,
    pub(crate) container: String,
}

/// A page of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    Kubelet,
    Cadvisor,
    Resource,
    Probes,
    Slis,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Logs {
        pod: NamespacedName,
        container: String,
        options: LogOptions,
    },
    Exec {
        of: InPod,
        streams: Streams,
        command: Vec<String>,
    },
    Attach {
        of: InPod,
        streams: Streams,
    },
    PortForward {
        pod: NamespacedName,
        uid: Option<String>,
        ports: Vec<i32>,
    },
    Run {
        of: InPod,
        command: Vec<String>,
    },
    Pods,
    RunningPods,
    Summary {
        only_cpu_and_memory: bool,
    },
    Metrics(Page),
    Health {
        check: Option<String>,
        verbose: bool,
        excluded: Vec<String>,
    },
    Configz,
    Statusz,
    Flagz,
    /// A file or folder below /var/log.
    NodeLogs {
        path: Vec<String>,
        is_folder: bool,
    },
    Checkpoint {
        pod: NamespacedName,
        container: String,
    },
}

impl Call {
    /// Its name in counters and the log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Call::Logs { .. } => "containerLogs",
            Call::Exec { .. } => "exec",
            Call::Attach { .. } => "attach",
            Call::PortForward { .. } => "portForward",
            Call::Run { .. } => "run",
            Call::Pods => "pods",
            Call::RunningPods => "runningpods",
            Call::Summary { .. } => "stats",
            Call::Metrics(_) => "metrics",
            Call::Health { .. } => "healthz",
            Call::Configz => "configz",
            Call::Statusz => "statusz",
            Call::Flagz => "flagz",
            Call::NodeLogs { .. } => "logs",
            Call::Checkpoint { .. } => "checkpoint",
        }
    }

    /// Whether its answer is made whole, however long it is. That of `run` is, too, and has places of its own.
    pub(crate) fn is_made_whole(&self) -> bool {
        match self {
            Call::RunningPods
            | Call::Summary { .. }
            | Call::Metrics(_)
            | Call::Configz
            | Call::Flagz
            | Call::NodeLogs { .. } => true,
            Call::Logs { .. }
            | Call::Exec { .. }
            | Call::Attach { .. }
            | Call::PortForward { .. }
            | Call::Run { .. }
            | Call::Pods
            | Call::Health { .. }
            | Call::Statusz
            | Call::Checkpoint { .. } => false,
        }
    }

    /// Whether an agent on the node itself may ask for it: what changes nothing and tells of no container's words.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Call::Pods | Call::Summary { .. } | Call::Metrics(_) | Call::Health { .. })
    }
}

/// What `method` at `target` asks for.
pub(crate) fn call(method: &str, target: &str, is_web_socket: bool) -> Result<Call, Refusal> {
    let target = Target::parse(target);
    let parts: Vec<&str> = target.segments.iter().map(String::as_str).collect();
    let query = &target.query;
    match parts.as_slice() {
        ["containerLogs", namespace, pod, container] => {
            only(method, &["GET"])?;
            let options = LogOptions::parse(query)?;
            Ok(Call::Logs { pod: named(namespace, pod), container: (*container).to_owned(), options })
        }
        ["exec", rest @ ..] => {
            let of = in_pod(method, &["GET", "POST"], rest)?;
            let command = query.all("command").map(str::to_owned).collect();
            Ok(Call::Exec { of, streams: streams(query)?, command })
        }
        ["attach", rest @ ..] => {
            let of = in_pod(method, &["GET", "POST"], rest)?;
            Ok(Call::Attach { of, streams: streams(query)? })
        }
        ["portForward", namespace, pod] => port_forward(method, namespace, pod, None, query, is_web_socket),
        ["portForward", namespace, pod, uid] => {
            port_forward(method, namespace, pod, Some((*uid).to_owned()), query, is_web_socket)
        }
        ["run", rest @ ..] => {
            let of = in_pod(method, &["POST"], rest)?;
            let command = query.first("cmd").unwrap_or_default().split(' ').map(str::to_owned).collect();
            Ok(Call::Run { of, command })
        }
        ["pods"] => only(method, &["GET"]).map(|()| Call::Pods),
        ["runningpods"] => Err(Refusal::new(301, "").with("location", "/runningpods/")),
        ["runningpods", ""] => only(method, &["GET"]).map(|()| Call::RunningPods),
        ["stats", "summary"] => {
            only(method, &["GET", "POST"])?;
            let given: Vec<&str> = query.all("only_cpu_and_memory").collect();
            Ok(Call::Summary { only_cpu_and_memory: given == ["true"] })
        }
        ["metrics"] => Ok(Call::Metrics(Page::Kubelet)),
        ["metrics", "cadvisor"] => Ok(Call::Metrics(Page::Cadvisor)),
        ["metrics", "resource"] => Ok(Call::Metrics(Page::Resource)),
        ["metrics", "probes"] => Ok(Call::Metrics(Page::Probes)),
        ["metrics", "slis"] => Ok(Call::Metrics(Page::Slis)),
        ["healthz"] => Ok(health(None, query)),
        ["healthz", check] => Ok(health(Some((*check).to_owned()), query)),
        ["configz"] => Ok(Call::Configz),
        ["statusz"] => only(method, &["GET"]).map(|()| Call::Statusz),
        ["flagz"] => only(method, &["GET"]).map(|()| Call::Flagz),
        ["logs", path @ ..] => {
            only(method, &["GET"])?;
            let is_folder = path.last().is_none_or(|last| last.is_empty());
            let path = path.iter().filter(|part| !part.is_empty()).map(|part| (*part).to_owned()).collect();
            Ok(Call::NodeLogs { path, is_folder })
        }
        ["checkpoint", namespace, pod, container] => {
            only(method, &["POST"])?;
            Ok(Call::Checkpoint { pod: named(namespace, pod), container: (*container).to_owned() })
        }
        ["debug", "pprof", ..] => Err(Refusal::new(405, "profiling endpoint is disabled.\n")),
        ["debug", "flags", ..] => Err(Refusal::new(405, "flags endpoint is disabled.\n")),
        [known, ..] if KNOWN.contains(known) => Err(Refusal::missing("404: Page Not Found")),
        _ => Err(Refusal::missing("404 page not found\n")),
    }
}

/// First parts of paths that a kubelet has more of.
const KNOWN: [&str; 9] =
    ["containerLogs", "exec", "attach", "portForward", "run", "pods", "runningpods", "stats", "checkpoint"];

fn named(namespace: &str, pod: &str) -> NamespacedName {
    NamespacedName::new(namespace, pod)
}

fn only(method: &str, methods: &[&str]) -> Result<(), Refusal> {
    if methods.contains(&method) {
        return Ok(());
    }
    Err(Refusal::new(405, "405: Method Not Allowed").with("allow", methods.join(", ")))
}

/// `/{ns}/{pod}/{container}` or `/{ns}/{pod}/{uid}/{container}`.
fn in_pod(method: &str, methods: &[&str], rest: &[&str]) -> Result<InPod, Refusal> {
    let (namespace, pod, uid, container) = match rest {
        [namespace, pod, container] => (namespace, pod, None, container),
        [namespace, pod, uid, container] => (namespace, pod, Some((*uid).to_owned()), container),
        _ => return Err(Refusal::missing("404: Page Not Found")),
    };
    only(method, methods)?;
    Ok(InPod { pod: named(namespace, pod), uid, container: (*container).to_owned() })
}

fn streams(query: &Query) -> Result<Streams, Refusal> {
    let (stdin, stdout, tty) = (query.is_one("input"), query.is_one("output"), query.is_one("tty"));
    // A terminal has one stream for both.
    let stderr = query.is_one("error") && !tty;
    if !stdin && !stdout && !stderr {
        return Err(Refusal::bad("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(Streams { stdin, stdout, stderr, tty })
}

fn port_forward(
    method: &str,
    namespace: &str,
    pod: &str,
    uid: Option<String>,
    query: &Query,
    is_web_socket: bool,
) -> Result<Call, Refusal> {
    only(method, &["GET", "POST"])?;
    // Over SPDY each stream names its port.
    let ports = if is_web_socket { ports(query)? } else { Vec::new() };
    Ok(Call::PortForward { pod: named(namespace, pod), uid, ports })
}

fn ports(query: &Query) -> Result<Vec<i32>, Refusal> {
    let mut ports = Vec::new();
    for text in query.all("port").flat_map(|given| given.split(',')) {
        if text.is_empty() {
            return Err(Refusal::bad(r#"query parameter "port" cannot be empty"#));
        }
        match text.parse::<u16>() {
            Ok(0) => return Err(Refusal::bad(format!("port {text:?} must be > 0"))),
            Ok(port) => ports.push(i32::from(port)),
            Err(error) => return Err(Refusal::bad(format!("unable to parse {text:?} as a port: {error}"))),
        }
    }
    if ports.is_empty() {
        return Err(Refusal::bad(r#"query parameter "port" is required"#));
    }
    Ok(ports)
}

fn health(check: Option<String>, query: &Query) -> Call {
    let excluded = query.all("exclude").map(str::to_owned).collect();
    Call::Health { check, verbose: query.first("verbose").is_some(), excluded }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(method: &str, target: &str) -> (u16, String) {
        let refusal = call(method, target, true).unwrap_err();
        (refusal.status, refusal.text)
    }

    #[test]
    fn a_kubelets_paths_are_known() {
        for (method, target, name) in [
            ("GET", "/containerLogs/d/p/c?follow=true", "containerLogs"),
            ("POST", "/exec/d/p/c?command=ls&output=1", "exec"),
            ("GET", "/attach/d/p/u/c?input=1", "attach"),
            ("GET", "/portForward/d/p?port=80", "portForward"),
            ("POST", "/run/d/p/c?cmd=ls%20-l", "run"),
            ("GET", "/pods", "pods"),
            ("GET", "/runningpods/", "runningpods"),
            ("POST", "/stats/summary", "stats"),
            ("GET", "/metrics/cadvisor", "metrics"),
            ("GET", "/healthz/ping", "healthz"),
            ("GET", "/configz", "configz"),
            ("GET", "/logs/", "logs"),
            ("POST", "/checkpoint/d/p/c", "checkpoint"),
        ] {
            assert_eq!(call(method, target, true).unwrap().name(), name, "{target}");
        }
    }

    #[test]
    fn what_a_kubelet_refuses_is_refused_in_its_words() {
        let unknown = (404, "404 page not found\n".to_owned());
        assert_eq!(refused("GET", "/"), unknown);
        assert_eq!(refused("GET", "/podz"), unknown);
        assert_eq!(refused("GET", "/pods/x"), (404, "404: Page Not Found".to_owned()));
        assert_eq!(refused("POST", "/pods"), (405, "405: Method Not Allowed".to_owned()));
        let nothing = (400, "you must specify at least 1 of stdin, stdout, stderr".to_owned());
        assert_eq!(refused("POST", "/exec/d/p/c?command=ls"), nothing);
        assert_eq!(refused("POST", "/exec/d/p/c?output=true"), nothing, "only 1 is true");
        assert_eq!(refused("POST", "/exec/d/p/c?error=1&tty=1"), nothing, "a terminal has no error stream");
        assert_eq!(refused("GET", "/portForward/d/p").1, r#"query parameter "port" is required"#);
        assert_eq!(refused("GET", "/portForward/d/p?port=0").1, r#"port "0" must be > 0"#);
        assert_eq!(refused("GET", "/portForward/d/p?port=80,70000").0, 400);
        assert_eq!(refused("GET", "/debug/pprof/heap").0, 405);
        assert_eq!(refused("GET", "/runningpods").0, 301);
        let allow = call("PUT", "/run/d/p/c", false).unwrap_err();
        assert_eq!(allow.headers, [("allow".to_owned(), "POST".to_owned())]);
    }

    #[test]
    fn parameters_are_a_kubelets() {
        let exec = call(
            "POST",
            "/exec/d/p/u/c?command=sh&command=-c&command=echo+a&input=1&output=1&error=1",
            false,
        );
        let Call::Exec { of, streams, command } = exec.unwrap() else { panic!("no exec") };
        assert_eq!(of, InPod { pod: named("d", "p"), uid: Some("u".into()), container: "c".into() });
        assert_eq!(command, ["sh", "-c", "echo a"]);
        assert_eq!(streams, Streams { stdin: true, stdout: true, stderr: true, tty: false });
        let Call::Run { command, .. } = call("POST", "/run/d/p/c?cmd=ls%20%20-l", false).unwrap() else {
            panic!()
        };
        assert_eq!(command, ["ls", "", "-l"]);
        let forward = call("GET", "/portForward/d/p?port=80,81&port=82", true).unwrap();
        assert_eq!(forward, Call::PortForward { pod: named("d", "p"), uid: None, ports: vec![80, 81, 82] });
        let spdy = call("POST", "/portForward/d/p", false).unwrap();
        assert_eq!(spdy, Call::PortForward { pod: named("d", "p"), uid: None, ports: vec![] });
        let only = |query: &str| call("GET", &format!("/stats/summary{query}"), false).unwrap();
        assert_eq!(only("?only_cpu_and_memory=true"), Call::Summary { only_cpu_and_memory: true });
        let twice = only("?only_cpu_and_memory=true&only_cpu_and_memory=true");
        assert_eq!(twice, Call::Summary { only_cpu_and_memory: false });
    }

    #[test]
    fn agents_on_the_node_get_no_shell_and_no_words_of_a_container() {
        for (method, target, local) in [
            ("GET", "/pods", true),
            ("GET", "/metrics", true),
            ("GET", "/stats/summary", true),
            ("GET", "/healthz", true),
            ("GET", "/configz", false),
            ("GET", "/logs/", false),
            ("GET", "/containerLogs/d/p/c", false),
            ("POST", "/run/d/p/c", false),
            ("POST", "/exec/d/p/c?output=1", false),
        ] {
            assert_eq!(call(method, target, false).unwrap().is_local(), local, "{target}");
        }
    }
}
