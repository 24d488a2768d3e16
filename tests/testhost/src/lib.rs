//! A host to test on: a network namespace with a private containerd in it and two images made from busybox.
//!
//! Needs root, containerd, runc, the CNI plugins, iproute2, util-linux and busybox-static; [`TestHost::new`] says which
//! of them is missing. Everything of a host lies under one folder in `/tmp` and in one namespace, and goes with it:
//! processes by their ids, mounts, cgroups, the namespace and the folder.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let host = testhost::TestHost::new("demo")?;
//! println!("{} in {}", host.endpoint(), host.netns());
//! host.command("ip").args(["address", "show"]).status()?;
//! # Ok(()) }
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod bus;
mod daemon;
mod needs;
mod oci;
mod power;
mod processes;
mod registry;
mod runtime;
mod soft_token;
mod teardown;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

pub use bus::PrivateBus;
pub use daemon::{Daemon, free_ports, tail};
pub use needs::missing;
pub use oci::{Entry, Image};
pub use registry::{Registry, Repository};
pub use soft_token::SoftToken;

/// The busybox image that every host holds: `/bin/sh` and all applets, no command of its own but `sh`.
pub const BUSYBOX: &str = "kubehive.test/busybox:1";
/// The image of the sandboxes.
pub const PAUSE: &str = "kubehive.test/pause:1";

/// How a host is made.
#[derive(Debug, Clone)]
pub struct Builder {
    name: String,
    uplink: bool,
    parent: PathBuf,
}

impl Builder {
    /// Joins the namespace to the machine with a veth pair and routes, so that the machine reaches the pods.
    #[must_use]
    pub fn uplink(mut self) -> Self {
        self.uplink = true;
        self
    }

    /// Puts the host's folder under `parent` instead of `/tmp`. Keep it short: sockets lie in it.
    #[must_use]
    pub fn under(mut self, parent: &Path) -> Self {
        self.parent = parent.to_owned();
        self
    }

    /// Makes the host and waits until its runtime answers and holds the images.
    ///
    /// # Errors
    /// Names what is missing on this machine, or which step failed and what the program said.
    pub fn start(self) -> Result<TestHost> {
        if let Some(sentence) = missing() {
            bail!("{sentence}");
        }
        TestHost::start(self)
    }
}

/// A running host. Dropping it removes all of it.
#[derive(Debug)]
pub struct TestHost {
    dir: PathBuf,
    netns: String,
    subnet: Subnet,
    uplink: bool,
    containerd: Option<Child>,
}

static MADE: AtomicU32 = AtomicU32::new(0);

impl TestHost {
    /// A host of the plain kind.
    ///
    /// # Errors
    /// See [`Builder::start`].
    pub fn new(name: &str) -> Result<TestHost> {
        TestHost::builder(name).start()
    }

    /// A host with choices. `name` shows in the folder and in the namespace.
    pub fn builder(name: &str) -> Builder {
        Builder { name: name.to_owned(), uplink: false, parent: PathBuf::from("/tmp") }
    }

    fn start(how: Builder) -> Result<TestHost> {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let label: String = how.name.chars().filter(|c| c.is_ascii_alphanumeric()).take(12).collect();
        let unique = format!("{label}{}n{number}", std::process::id());
        let dir = how.parent.join(format!("kh-{unique}"));
        std::fs::create_dir_all(&dir).with_context(|| format!("make folder {}", dir.display()))?;
        let subnet = Subnet::free()?;
        // From here on Drop cleans up whatever was made.
        let mut host =
            TestHost { dir, netns: format!("kh-{unique}"), subnet, uplink: how.uplink, containerd: None };
        host.make_network()?;
        host.start_runtime()?;
        host.import_own()?;
        Ok(host)
    }

    /// The images that every host holds.
    pub(crate) fn import_own(&self) -> Result<()> {
        self.import(&Image::busybox(BUSYBOX)?)?;
        self.import(&Image::pause(PAUSE)?)
    }

    /// The host's folder. Tests may put what they like into it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The name of the network namespace.
    pub fn netns(&self) -> &str {
        &self.netns
    }

    /// The runtime's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    /// The runtime's socket as a CRI endpoint.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// What an edgecore on this host is configured to, beside its addresses: all that it keeps lies in `folder`, and the machine's own disk
    /// counts as large enough, however full it is.
    pub fn edgecore_settings(&self, folder: &Path) -> Vec<String> {
        let (folder, kubelet) = (folder.display(), "modules.edged.tailoredKubeletConfig");
        vec![
            format!("database.dataSource={folder}/edgecore.db"),
            format!("modules.edged.rootDirectory={folder}/kubelet"),
            format!("modules.edged.devicePluginPath={folder}/device-plugins"),
            format!("modules.edged.podResourcesPath={folder}/pod-resources"),
            format!("{kubelet}.containerRuntimeEndpoint={}", self.endpoint()),
            format!("{kubelet}.podLogsDir={folder}/logs"),
            // A few megabytes will do.
            format!("{kubelet}.evictionHard.nodefs\\.available=64Mi"),
            format!("{kubelet}.evictionHard.imagefs\\.available=64Mi"),
            format!("{kubelet}.imageGCHighThresholdPercent=100"),
            format!("modules.edgeHub.tlsCaFile={folder}/edge-ca.crt"),
            format!("modules.edgeHub.tlsCertFile={folder}/edge.crt"),
            format!("modules.edgeHub.tlsPrivateKeyFile={folder}/edge.key"),
            format!("modules.deviceTwin.dmiSockPath={folder}/dmi/"),
        ]
    }

    /// The first three numbers of the pods' addresses.
    pub fn pod_prefix(&self) -> String {
        format!("10.202.{}", self.subnet.number)
    }

    /// The host's address as the machine sees it, and the machine's as the host sees it, when there is an uplink.
    pub fn uplink(&self) -> Option<(String, String)> {
        self.uplink
            .then(|| (format!("10.201.{}.2", self.subnet.number), format!("10.201.{}.1", self.subnet.number)))
    }

    /// The process id of the runtime, while it runs.
    pub fn runtime_pid(&self) -> Option<u32> {
        self.containerd.as_ref().map(Child::id)
    }

    /// A command that will run in the host's network namespace.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns)).arg("--").arg(program);
        command
    }

    /// `ctr` on this host's runtime, in the namespace of CRI.
    pub fn ctr(&self) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io"]);
        command
    }

    /// The machine's end of the uplink.
    pub(crate) fn outer_link(&self) -> Option<String> {
        self.uplink.then(|| format!("khu{}", self.subnet.number))
    }

    pub(crate) fn make_network(&self) -> Result<()> {
        run(Command::new("ip").args(["netns", "add", &self.netns]))?;
        run(self.command("ip").args(["link", "set", "lo", "up"]))?;
        let Some(outer) = self.outer_link() else { return Ok(()) };
        let inner = format!("khd{}", self.subnet.number);
        // One of the host before with this number, which was killed, or whose namespace is still being taken down: it may go by
        // itself meanwhile.
        if Path::new("/sys/class/net").join(&outer).exists() {
            drop(Command::new("ip").args(["link", "delete", &outer]).output());
        }
        run(Command::new("ip").args([
            "link",
            "add",
            &outer,
            "type",
            "veth",
            "peer",
            "name",
            &inner,
            "netns",
            &self.netns,
        ]))?;
        let (here, there) =
            (format!("10.201.{}.1/30", self.subnet.number), format!("10.201.{}.2/30", self.subnet.number));
        run(Command::new("ip").args(["address", "add", &here, "dev", &outer]))?;
        run(Command::new("ip").args(["link", "set", &outer, "up"]))?;
        run(self.command("ip").args(["address", "add", &there, "dev", &inner]))?;
        run(self.command("ip").args(["link", "set", &inner, "up"]))?;
        let gateway = format!("10.201.{}.1", self.subnet.number);
        run(self.command("ip").args(["route", "add", "default", "via", &gateway]))?;
        let pods = format!("10.202.{}.0/24", self.subnet.number);
        let via = format!("10.201.{}.2", self.subnet.number);
        run(Command::new("ip").args(["route", "replace", &pods, "via", &via]))
    }
}

/// Runs a command to its end; an error holds what it said.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("start {shown}"))?;
    if !output.status.success() {
        bail!("{shown} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A number that no other test host has, for as long as its file is open: a process that is killed lets go of it, too.
#[derive(Debug)]
struct Subnet {
    number: u8,
    _lock: std::fs::File,
}

impl Subnet {
    fn free() -> Result<Subnet> {
        let locks = Path::new("/tmp/kh-subnets");
        std::fs::create_dir_all(locks).context("make folder /tmp/kh-subnets")?;
        for number in 0..250_u8 {
            let path = locks.join(number.to_string());
            let lock = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path);
            let lock = lock.with_context(|| format!("open {}", path.display()))?;
            if lock.try_lock().is_ok() {
                return Ok(Subnet { number, _lock: lock });
            }
        }
        bail!("250 test hosts hold a subnet: wait for one to end")
    }
}
