//! Where the story plays: the edge machine, which is a network namespace with a containerd of its own and a cable to this machine;
//! folders, ports, processes.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use testhost::{Daemon, TestHost, free_ports, tail};

use crate::console::Console;
use crate::relay::Relay;
use crate::setup::Tools;

/// The node's name.
pub(crate) const NODE: &str = "edge-1";
/// 100 ms between looks at what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Ports that were free a moment ago, of this machine and of the edge machine.
pub(crate) struct Ports {
    pub(crate) api: u16,
    pub(crate) link: u16,
    pub(crate) enrolment: u16,
    pub(crate) monitor: u16,
    pub(crate) mqtt: u16,
    pub(crate) device: u16,
}

/// The stage.
pub(crate) struct Testbed<'a> {
    pub(crate) tools: &'a Tools,
    pub(crate) host: TestHost,
    /// This machine's end of the cable.
    pub(crate) address: IpAddr,
    pub(crate) folder: PathBuf,
    pub(crate) ports: Ports,
    /// The kubeconfig of a cluster that is not ours.
    pub(crate) cluster: Option<PathBuf>,
    /// What that cluster had before the story of what CloudCore makes for itself.
    found: Option<BTreeSet<String>>,
    pub(crate) relay: Option<Relay>,
    pub(crate) cloudcore: Option<Daemon>,
    pub(crate) edgecore: Option<Daemon>,
    pub(crate) device: Option<Daemon>,
    pub(crate) mapper: Option<Daemon>,
}

impl<'a> Testbed<'a> {
    pub(crate) fn new(tools: &'a Tools, cluster: Option<PathBuf>) -> Result<Testbed<'a>> {
        let host = TestHost::builder("demo").uplink().start()?;
        let (_, address) = host.uplink().context("the edge machine has no cable")?;
        let address = address.parse().context("the address of the cable")?;
        let folder = host.dir().join("story");
        std::fs::create_dir_all(&folder).context("make the story's folder")?;
        let [api, link, enrolment, monitor, mqtt, device] = free_ports()?;
        let ports = Ports { api, link, enrolment, monitor, mqtt, device };
        Ok(Testbed {
            tools,
            host,
            address,
            folder,
            ports,
            cluster,
            found: None,
            relay: None,
            cloudcore: None,
            edgecore: None,
            device: None,
            mapper: None,
        })
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.cluster.clone().unwrap_or_else(|| self.folder.join("cloud/admin.kubeconfig"))
    }

    /// Looks at a cluster that is not ours before anything of the story is there.
    pub(crate) fn look_around(&mut self) -> Result<()> {
        if self.cluster.is_some() {
            self.found = Some(self.of_cloudcore().context("look into the cluster")?);
        }
        Ok(())
    }

    /// What the cluster has of what CloudCore makes for itself, by kubectl's names.
    fn of_cloudcore(&self) -> Result<BTreeSet<String>> {
        let names = |kinds: &str| -> Result<BTreeSet<String>> {
            Ok(self.kubectl(&["get", kinds, "-o", "name"])?.lines().map(str::to_owned).collect())
        };
        let mut found = names("customresourcedefinitions,namespaces")?;
        found.retain(|name| is_of_cloudcore(name));
        for kind in ["edgenodes", "jointokens"] {
            if found.iter().any(|name| name.starts_with(&format!("{DEFINITION}/{kind}."))) {
                found.extend(names(kind)?);
            }
        }
        Ok(found)
    }

    pub(crate) fn edgecore_config(&self) -> PathBuf {
        self.folder.join("edgecore.yaml")
    }

    pub(crate) fn our(&self, binary: &str) -> Command {
        Command::new(self.tools.binaries.join(binary))
    }

    /// One of our binaries on the edge machine.
    pub(crate) fn ours_on_node(&self, binary: &str) -> Command {
        self.host.command(&self.tools.binaries.join(binary).display().to_string())
    }

    /// Python on the edge machine.
    pub(crate) fn python(&self) -> Command {
        self.host.command(&self.tools.python.display().to_string())
    }

    pub(crate) fn start_edgecore(&mut self) -> Result<()> {
        let mut command = self.ours_on_node("edgecore");
        command.arg("--config").arg(self.edgecore_config());
        self.edgecore = Some(Daemon::start("edgecore", &self.folder, &mut command)?);
        Ok(())
    }

    /// What kubectl prints.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl_with(args, "")
    }

    pub(crate) fn kubectl_with(&self, args: &[&str], input: &str) -> Result<String> {
        said(&mut self.kubectl_command(args), input)
    }

    pub(crate) fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.tools.kubectl);
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command.arg("--cache-dir").arg(self.folder.join("kubectl-cache")).args(args);
        command
    }

    /// Ids of running containers of this name, by the runtime's own word.
    pub(crate) fn running(&self, container: &str) -> Result<Vec<String>> {
        let filter = format!("labels.\"io.kubernetes.container.name\"=={container}");
        let named = said(self.host.ctr().args(["containers", "list", "--quiet", &filter]), "")?;
        let tasks = said(self.host.ctr().args(["tasks", "list"]), "")?;
        let runs = |id: &str| {
            tasks
                .lines()
                .any(|line| line.starts_with(id) && line.split_whitespace().last() == Some("RUNNING"))
        };
        Ok(named.lines().filter(|id| !id.is_empty() && runs(id)).map(str::to_owned).collect())
    }

    /// One holding register, read by pymodbus.
    pub(crate) fn register(&self, number: u16) -> Result<i64> {
        let script = self.folder.join("register.py");
        std::fs::write(&script, include_str!("register.py"))?;
        let mut command = self.python();
        command.arg(script).arg(self.ports.device.to_string()).arg(number.to_string());
        said(&mut command, "")?.trim().parse().context("pymodbus printed no number")
    }

    /// The pod's page, fetched on the edge machine.
    pub(crate) fn page(&self, address: &str) -> Result<String> {
        let script = self.folder.join("page.py");
        std::fs::write(&script, include_str!("page.py"))?;
        said(self.python().arg(script).arg(format!("http://{address}/")), "")
    }

    /// Looks until `holds` answers, and says how long it took. Errors of a look are told only if it never holds.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut holds: impl FnMut(&Testbed<'a>) -> Result<Option<T>>,
    ) -> Result<(T, Duration)> {
        let begun = Instant::now();
        let mut last = None;
        while begun.elapsed() < limit {
            let parts = [&mut self.cloudcore, &mut self.edgecore, &mut self.mapper, &mut self.device];
            for part in parts.into_iter().flatten() {
                part.check()?;
            }
            match tokio::task::block_in_place(|| holds(self)) {
                Ok(Some(found)) => return Ok((found, begun.elapsed())),
                Ok(None) => {}
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let why = last.map(|error| format!(" (last: {error:#})")).unwrap_or_default();
        bail!("not seen within {} s: {what}{why}", limit.as_secs())
    }

    pub(crate) fn show_logs(&self, console: &Console) {
        for name in ["cloudcore", "edgecore", "mapper", "device"] {
            let log = self.folder.join(format!("{name}.log"));
            if log.exists() {
                console.line(&format!("\n--- the end of {name}'s log\n{}", tail(&log, 12)));
            }
        }
    }

    /// Stays up until Ctrl-C.
    pub(crate) async fn stay(&self, console: &Console) -> Result<()> {
        console.line("\nThe cluster stays up until Ctrl-C. Try it:\n");
        console.line(&format!("  export KUBECONFIG={}", self.kubeconfig().display()));
        console.line("  kubectl get nodes,pods -o wide");
        console.line("  kubectl get devicestatus boiler-1 -w");
        console.line("  kubectl logs -f deployment/web");
        console.line("  kubectl exec -it deployment/web -- sh");
        console.line(&format!(
            "  ip netns exec {} mosquitto_sub -p {} -t '$hw/events/#' -v",
            self.host.netns(),
            self.ports.mqtt
        ));
        tokio::signal::ctrl_c().await.context("wait for Ctrl-C")
    }

    /// Ends everything that was started.
    pub(crate) async fn leave(mut self, console: &Console) {
        console.doing("cleaning up");
        if self.found.is_some() {
            // While edgecore is there, pods end in order.
            for kinds in
                ["deployment/web", "pod/extra", "configmap/page", "device/boiler-1", "devicemodel/boiler"]
            {
                self.forget(&["delete", kinds, "--ignore-not-found", "--timeout=30s"], console);
            }
            self.forget(&["wait", "--for=delete", "pod", "-l", "app=web", "--timeout=30s"], console);
            if let Some(edgecore) = &mut self.edgecore {
                edgecore.end();
            }
            if self.edgecore_config().exists()
                && let Err(error) = said(
                    self.ours_on_node("keadm").arg("reset").arg("--config").arg(self.edgecore_config()),
                    "",
                )
            {
                console.line(&format!("the name {NODE} is not given back: {error:#}"));
            }
            self.forget(&["delete", "node", NODE, "--ignore-not-found"], console);
        }
        let parts = [&mut self.mapper, &mut self.edgecore, &mut self.cloudcore, &mut self.device];
        for part in parts.into_iter().flatten() {
            part.end();
        }
        if let Some(found) = &self.found {
            match self.of_cloudcore() {
                Ok(now) => {
                    for name in deletions(found, &now) {
                        self.forget(&["delete", &name, "--ignore-not-found", "--timeout=60s"], console);
                    }
                }
                Err(error) => console.line(&format!("left in the cluster: {error:#}")),
            }
        }
        // The host's containers, namespace and folder go with it.
        drop(self.host);
    }
}

impl Testbed<'_> {
    fn forget(&self, args: &[&str], console: &Console) {
        if let Err(error) = self.kubectl(args) {
            console.line(&format!("left in the cluster: {error:#}"));
        }
    }
}

/// How kubectl names a definition.
const DEFINITION: &str = "customresourcedefinition.apiextensions.k8s.io";

/// Whether CloudCore makes a definition or namespace of this name where there is none.
fn is_of_cloudcore(name: &str) -> bool {
    let definition = name.strip_prefix(DEFINITION);
    name == "namespace/kubeedge"
        || definition.is_some_and(|name| name.ends_with(".kubeedge.io") || name.ends_with("kubehive.io"))
}

/// What is there `now` and was not before, in the order of its deletion: an object goes with its definition.
fn deletions(before: &BTreeSet<String>, now: &BTreeSet<String>) -> Vec<String> {
    let is_frame = |name: &&String| name.starts_with(DEFINITION) || name.starts_with("namespace/");
    let (frames, objects): (Vec<&String>, Vec<&String>) = now.difference(before).partition(is_frame);
    let has_gone = |object: &String| {
        let kind = object.split('.').next().unwrap_or_default();
        frames.iter().any(|frame| frame.starts_with(&format!("{DEFINITION}/{kind}s.")))
    };
    let objects = objects.into_iter().filter(|object| !has_gone(object));
    objects.chain(frames.iter().copied()).cloned().collect()
}

/// What a program prints; an error holds what it said.
pub(crate) fn said(command: &mut Command, input: &str) -> Result<String> {
    let output = answered(command, input)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let shown =
        Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    bail!("{shown}: {}", String::from_utf8_lossy(&output.stderr).trim())
}

/// What a program says and how it ends.
pub(crate) fn answered(command: &mut Command, input: &str) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that reads no input may have gone already.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output().context("wait for a program")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_there_is_deleted_and_objects_before_their_namespace() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let definition = |name: &str| format!("{DEFINITION}/{name}");
        let (edge_nodes, devices) =
            (definition("edgenodes.kubehive.io"), definition("devices.devices.kubeedge.io"));
        let node = "edgenode.kubehive.io/edge-1";
        let now = set(&[&edge_nodes, &devices, node, "namespace/kubeedge"]);
        let new = deletions(&BTreeSet::new(), &now);
        assert_eq!(new, [devices.clone(), edge_nodes.clone(), "namespace/kubeedge".to_owned()]);
        let installed = set(&[&edge_nodes, &devices, "namespace/kubeedge"]);
        assert_eq!(deletions(&installed, &now), [node]);
        assert!(deletions(&now, &now).is_empty());
        for (name, is_ours) in [
            (devices.as_str(), true),
            (&edge_nodes, true),
            ("namespace/kubeedge", true),
            ("namespace/default", false),
            (&definition("issuers.cert-manager.io"), false),
        ] {
            assert_eq!(is_of_cloudcore(name), is_ours, "{name}");
        }
    }
}
