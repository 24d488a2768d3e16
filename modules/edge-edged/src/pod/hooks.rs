//! A container's postStart and preStop hooks, with the kubelet's words (kubelet's `lifecycle/handlers.go`).

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler};

use crate::dependencies::Dependencies;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::recorder::EventType;
use crate::prober::{HttpFault, HttpRequest, PodDialer, command_failed, follow, port_of};
use crate::runtime::pods::RuntimeContainer;

/// CRI's word for no limit: a hook may take as long as the container lives.
const NO_LIMIT: Duration = Duration::ZERO;
/// 30 times, a second apart, a hook waits for a place to look its host's name up from.
const LOOKUP_TRIES: u32 = 30;
const LOOKUP_PAUSE: Duration = Duration::from_secs(1);

/// What a hook has at hand.
struct Hook<'a> {
    deps: &'a Rc<Dependencies>,
    pod: &'a ParsedPod,
    container: &'a Container,
    id: &'a str,
    ip: &'a str,
}

/// Runs the hook of a container that was started.
pub(crate) async fn post_start(
    deps: Rc<Dependencies>,
    pod: Arc<ParsedPod>,
    instance: RuntimeContainer,
    ip: String,
) -> Result<(), String> {
    let hook = |container: &Container| container.lifecycle.as_ref()?.post_start.clone();
    let done = run(&deps, &pod, &instance, &ip, hook).await;
    if done.is_err() {
        let (kind, text) = (EventType::Warning, "PostStartHook failed");
        deps.container_event(&pod, &instance.name, kind, "FailedPostStartHook", text);
    }
    done
}

/// Runs the hook of a container that is stopped then.
pub(crate) async fn pre_stop(
    deps: Rc<Dependencies>,
    pod: Arc<ParsedPod>,
    instance: RuntimeContainer,
    ip: String,
) -> Result<(), String> {
    let hook = |container: &Container| container.lifecycle.as_ref()?.pre_stop.clone();
    let done = run(&deps, &pod, &instance, &ip, hook).await;
    if let Err(why) = &done {
        // The event doesn't say why: what a server answered is its secret.
        tracing::debug!(pod = %pod.id.name, container = %instance.name, why, "preStop hook failed");
        let (kind, text) = (EventType::Warning, "PreStopHook failed");
        deps.container_event(&pod, &instance.name, kind, "FailedPreStopHook", text);
    }
    done
}

async fn run(
    deps: &Rc<Dependencies>,
    pod: &ParsedPod,
    instance: &RuntimeContainer,
    ip: &str,
    which: impl Fn(&Container) -> Option<LifecycleHandler>,
) -> Result<(), String> {
    let Some(container) = pod.container(&instance.name) else { return Ok(()) };
    let Some(handler) = which(container) else { return Ok(()) };
    Hook { deps, pod, container, id: &instance.id, ip }.run(&handler).await
}

impl Hook<'_> {
    async fn run(&self, handler: &LifecycleHandler) -> Result<(), String> {
        if let Some(exec) = &handler.exec {
            return self.exec(exec.command.as_deref().unwrap_or_default()).await;
        }
        if let Some(action) = &handler.http_get {
            let path = action.path.as_deref().unwrap_or_default();
            let done = self.http(action).await;
            return done.map_err(|error| {
                format!("HTTP lifecycle hook ({path}) for {} failed - error: {error}", self.whose())
            });
        }
        if let Some(sleep) = &handler.sleep {
            self.deps.env.sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
            return Ok(());
        }
        // The API takes a tcpSocket, and no kubelet has ever had one.
        Err("Cannot run handler: invalid handler".to_owned())
    }

    fn whose(&self) -> String {
        let id = &self.pod.id;
        format!("Container {:?} in Pod \"{}_{}({})\"", self.container.name, id.name, id.namespace, id.uid)
    }

    async fn exec(&self, command: &[String]) -> Result<(), String> {
        let done = self.deps.runtime.exec_sync(self.id, command.to_vec(), NO_LIMIT).await;
        let (error, output) = match done {
            Ok(done) if done.exit_code == 0 => return Ok(()),
            Ok(done) => command_failed(command, &done),
            Err(error) => (error.grpc_text(), String::new()),
        };
        let shown = command.join(" ");
        let whose = self.whose();
        Err(format!(
            "Exec lifecycle hook ([{shown}]) for {whose} failed - error: {error}, message: {output:?}"
        ))
    }

    /// Whatever a server answers is well.
    async fn http(&self, action: &HTTPGetAction) -> Result<(), String> {
        let port = port_of(&action.port, self.container)?;
        let request = HttpRequest::new(action, port, self.ip, "kube-lifecycle")?;
        let dialer = PodDialer { lookups: &self.deps.lookups, namespace: &self.pod.id.namespace };
        let mut answered = follow(dialer, &request, &Cell::default()).await;
        for _ in 0..LOOKUP_TRIES {
            let Err(HttpFault::Unasked(_)) = &answered else { break };
            self.deps.env.sleep(LOOKUP_PAUSE).await;
            answered = follow(dialer, &request, &Cell::default()).await;
        }
        match answered {
            Ok(_) => Ok(()),
            Err(HttpFault::PlainHttp) => {
                let plain = request.in_plain_text();
                follow(dialer, &plain, &Cell::default()).await.map_err(|fault| fault.text(&plain.url))?;
                let host = request.url.authority();
                let text = format!(
                    "request to HTTPS lifecycle hook {host} got HTTP response, retry with HTTP succeeded"
                );
                self.deps.event(&self.pod.id, EventType::Warning, "LifecycleHTTPFallback", &text);
                Ok(())
            }
            Err(fault) => Err(fault.text(&request.url)),
        }
    }
}
