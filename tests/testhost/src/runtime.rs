//! The private containerd.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{Image, TestHost, processes, run};

/// Long enough for a cold, shared machine.
const READY_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(25);

impl TestHost {
    pub(crate) fn start_runtime(&mut self) -> Result<()> {
        self.write_config()?;
        self.spawn_runtime()
    }

    /// Ends the runtime by SIGKILL; its containers go on.
    ///
    /// # Errors
    /// When the process cannot be ended.
    pub fn kill_runtime(&mut self) -> Result<()> {
        let Some(mut child) = self.containerd.take() else { return Ok(()) };
        child.kill().context("kill containerd")?;
        child.wait().context("wait for containerd to end")?;
        Ok(())
    }

    /// Starts the runtime again after [`TestHost::kill_runtime`].
    ///
    /// # Errors
    /// When it does not answer in time; the error holds the end of its log.
    pub fn restart_runtime(&mut self) -> Result<()> {
        self.kill_runtime()?;
        self.spawn_runtime()
    }

    /// Takes everything from the runtime that it has, as when its disk is replaced: sandboxes, containers, images and what it
    /// wrote down about them. It then runs again and holds the images that every host holds.
    ///
    /// # Errors
    /// See [`TestHost::restart_runtime`] and [`TestHost::import`].
    pub fn wipe_runtime(&mut self) -> Result<()> {
        self.kill_runtime()?;
        self.end_containers();
        for folder in ["root", "state", "ipam"] {
            let path = self.dir.join(folder);
            match std::fs::remove_dir_all(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove {}", path.display()));
                }
                Ok(()) | Err(_) => {}
            }
        }
        self.start_runtime()?;
        self.import_own()
    }

    /// Puts an image into the runtime and waits until CRI sees it.
    ///
    /// # Errors
    /// When the archive cannot be made or the runtime refuses it.
    pub fn import(&self, image: &Image) -> Result<()> {
        let path = self.dir.join("import.tar");
        image.write(&path)?;
        // Without --no-unpack the snapshot is made now and not with the first container.
        run(self.ctr().args(["images", "import", "--snapshotter", "overlayfs"]).arg(&path))?;
        std::fs::remove_file(&path).context("remove the imported archive")?;
        let label = "io.cri-containerd.image=managed";
        wait_for(&format!("CRI to see {}", image.name), || {
            let list = crate::output(self.ctr().args(["images", "list"]))?;
            Ok(list.lines().any(|line| line.starts_with(&image.name) && line.contains(label)))
        })
    }

    fn spawn_runtime(&mut self) -> Result<()> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("containerd.log"))
            .context("open containerd's log")?;
        let errors = log.try_clone().context("open containerd's log")?;
        let child = self
            .command("containerd")
            .arg("--config")
            .arg(self.dir.join("containerd.toml"))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .context("start containerd")?;
        self.containerd = Some(child);
        let answered = wait_for("containerd to answer", || {
            if let Some(child) = self.containerd.as_mut()
                && let Some(status) = child.try_wait().context("look at containerd")?
            {
                bail!("containerd ended with {status}");
            }
            // `ctr version` waits 10 s for a socket that is not there yet.
            if !self.socket().exists() {
                return Ok(false);
            }
            let plugins = self.ctr().args(["plugins", "list"]).output().context("start ctr")?;
            let list = String::from_utf8_lossy(&plugins.stdout).into_owned();
            Ok(list.lines().any(|line| {
                let mut words = line.split_whitespace();
                words.nth(1) == Some("cri") && words.last() == Some("ok")
            }))
        });
        answered.with_context(|| format!("log of containerd ends with:\n{}", self.log_tail()))
    }

    /// The end of the runtime's log.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(self.dir.join("containerd.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn write_config(&self) -> Result<()> {
        let dir = self.dir.display();
        for folder in ["net.d", "certs.d", "root", "state", "opt"] {
            std::fs::create_dir_all(self.dir.join(folder))
                .with_context(|| format!("make folder {dir}/{folder}"))?;
        }
        let config = format!(
            r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]

[grpc]
  address = "{dir}/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Without CAP_SYS_RESOURCE a score below the daemon's own cannot be set.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_bin}"
    conf_dir = "{dir}/net.d"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{dir}/certs.d"
"#,
            pause = crate::PAUSE,
            cni_bin = crate::needs::cni_bin(),
        );
        write(&self.dir.join("containerd.toml"), &config)?;
        let network = serde_json::json!({
            "cniVersion": "0.4.0",
            "name": "kubehive-test",
            "plugins": [
                {
                    "type": "bridge", "bridge": "kh0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": format!("{dir}/ipam"),
                        "ranges": [[{"subnet": format!("{}.0/24", self.pod_prefix())}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
            ],
        });
        write(&self.dir.join("net.d/10-test.conflist"), &serde_json::to_string_pretty(&network)?)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn wait_for(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let mut waited = Duration::ZERO;
    while waited < READY_WITHIN {
        if holds()? {
            return Ok(());
        }
        processes::pause(LOOK_EVERY);
        waited += LOOK_EVERY;
    }
    bail!("waited {} s in vain for {what}", READY_WITHIN.as_secs())
}
