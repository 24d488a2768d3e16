//! What the story needs of the machine: packages, tools, our binaries.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::console::Console;

/// Debian packages, and a file of each.
const PACKAGES: [(&str, &[&str]); 9] = [
    ("containerd", &["/usr/bin/containerd"]),
    ("runc", &["/usr/sbin/runc", "/usr/bin/runc"]),
    ("containernetworking-plugins", &["/usr/lib/cni/bridge", "/opt/cni/bin/bridge"]),
    ("iptables", &["/usr/sbin/iptables"]),
    ("iproute2", &["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"]),
    ("util-linux", &["/usr/bin/nsenter"]),
    ("busybox-static", &["/usr/bin/busybox", "/bin/busybox"]),
    ("mosquitto-clients", &["/usr/bin/mosquitto_sub"]),
    ("python3-venv", &["/usr/share/doc/python3-venv"]),
];

/// The Modbus device of the story is one that we did not write.
const PYMODBUS: &str = "pymodbus==3.11.4";

/// Where everything is.
pub(crate) struct Tools {
    pub(crate) kubectl: PathBuf,
    pub(crate) python: PathBuf,
    /// The folder of our binaries.
    pub(crate) binaries: PathBuf,
}

/// Installs and builds what is missing.
pub(crate) fn prepare(profile: &str, console: &Console) -> Result<Tools> {
    console.line("KubeHive's story, on this machine, with nothing faked.\n");
    if !is_root() {
        bail!(
            "the story runs real containers in network namespaces of its own and needs root: sudo -E cargo demo"
        );
    }
    packages(console)?;
    let kubectl = kubectl(console)?;
    let target = target_folder()?;
    console.doing(&format!(
        "building cloudcore, edgecore, keadm and modbus-mapper (profile {profile}; some minutes the first time)"
    ));
    let build = Build::start(profile)?;
    // Its wheels are on their way while cargo works; without them there is no story, and nothing to build for.
    let python = pymodbus(&target, console)?;
    build.end()?;
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(Tools { kubectl, python, binaries: target.join(folder) })
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn packages(console: &Console) -> Result<()> {
    let is_there = |files: &[&str]| files.iter().any(|file| Path::new(file).exists());
    let missing: Vec<&str> =
        PACKAGES.iter().filter(|(_, files)| !is_there(files)).map(|(package, _)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    console.doing(&format!("installing {}", missing.join(", ")));
    run(Command::new("apt-get").args(["update", "-q"]))?;
    run(Command::new("apt-get")
        .args(["install", "-q", "-y", "--no-install-recommends"])
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive"))
    .with_context(|| format!("install these packages by hand: {}", missing.join(" ")))
}

/// kubectl 1.32 or newer from the path, else Debian's.
fn kubectl(console: &Console) -> Result<PathBuf> {
    let version = |program: &str| -> Option<(u32, String)> {
        let out = Command::new(program).args(["version", "--client", "-o", "json"]).output().ok()?;
        let json: serde_json::Value = serde_json::from_slice(&out.stdout).ok()?;
        let client = &json["clientVersion"];
        let minor = client["minor"].as_str()?.trim_end_matches('+').parse().ok()?;
        Some((minor, client["gitVersion"].as_str()?.to_owned()))
    };
    if let Some((minor, shown)) = version("kubectl")
        && minor >= 32
    {
        console.line(&format!("kubectl {shown} from the path"));
        return Ok(PathBuf::from("kubectl"));
    }
    let debian = "/usr/bin/kubectl";
    if !Path::new(debian).exists() {
        console.doing("installing kubernetes-client (no kubectl 1.32 or newer is in the path)");
        run(Command::new("apt-get").args([
            "install",
            "-q",
            "-y",
            "--no-install-recommends",
            "kubernetes-client",
        ]))?;
    }
    match version(debian) {
        Some((_, shown)) => {
            console.line(&format!("kubectl {shown}, Debian's (none of 1.32 or newer is in the path)"))
        }
        None => bail!("no kubectl works: put kubectl 1.32 or newer into the path"),
    }
    Ok(PathBuf::from(debian))
}

fn target_folder() -> Result<PathBuf> {
    let out = Command::new("cargo").args(["metadata", "--format-version", "1", "--no-deps"]).output()?;
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).context("cargo metadata")?;
    Ok(PathBuf::from(json["target_directory"].as_str().context("cargo metadata names no target folder")?))
}

fn pymodbus(target: &Path, console: &Console) -> Result<PathBuf> {
    let venv = target.join("demo-venv");
    let python = venv.join("bin/python");
    let works = || {
        let quiet = Command::new(&python)
            .args(["-c", "import pymodbus.server"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        quiet.is_ok_and(|status| status.success())
    };
    if !works() {
        console.doing(&format!("installing {PYMODBUS} (the Modbus device of the story)"));
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        run(Command::new(venv.join("bin/pip")).args(["install", "-q", PYMODBUS]))
            .context("pymodbus comes from PyPI, which was not reached")?;
    }
    Ok(python)
}

/// A cargo that builds. It ends with whoever waits for it.
struct Build(Child);

impl Build {
    fn start(profile: &str) -> Result<Build> {
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--locked", "--profile", profile]);
        cargo.args(["-p", "cloud", "-p", "edge", "-p", "keadm", "-p", "modbus"]);
        // No others of those packages: the newcomer waits for each.
        cargo.args(["--bin", "cloudcore", "--bin", "edgecore", "--bin", "keadm", "--bin", "modbus-mapper"]);
        Ok(Build(cargo.stdin(Stdio::null()).spawn().context("start cargo")?))
    }

    fn end(mut self) -> Result<()> {
        let status = self.0.wait().context("wait for cargo")?;
        if status.success() { Ok(()) } else { bail!("the binaries do not build") }
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        // One that has ended is not signalled; of what another was about to compile the next build begins anew.
        drop(self.0.kill().and_then(|()| self.0.wait()));
    }
}

fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {shown}"))?;
    if output.status.success() {
        return Ok(());
    }
    bail!("{shown}: {}", String::from_utf8_lossy(&output.stderr).trim())
}
