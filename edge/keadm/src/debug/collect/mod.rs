//! `keadm debug collect`: what somebody else needs to find a fault, in one file, without what opens doors.

mod archive;
mod redact;

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use beehive::Env;
use clap::Args;
use config::edge::{DEFAULT_PATH, EdgeCore};
use cri::Runtime as _;
use cri::v1::{ContainerFilter, PodSandboxFilter};
use edge_store::StoreInspector;
use nodechecks::{Finding, Host, bytes};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use self::archive::{Archive, FILE_MAX};
use super::check::{self, CheckWith, Topic};
use super::diagnose::{self, DiagnoseNode, Live};
use crate::config_location;
use crate::store::{entries_table, plain, reports_table};

/// 10 s for a program of the machine's to print.
const PRINTS_WITHIN: Duration = Duration::from_secs(10);
/// 5,000 lines of edgecore's log, and 50,000 with --detail.
const LINES: &str = "5000";
const LINES_OF_DETAIL: &str = "50000";
/// 64 names of files of a folder of logs.
const LOGS_MAX: usize = 64;

/// Stands in place of a log, and is said.
const NO_LOG: &str = "no log of edgecore was found: systemd's journal has none of the unit edgecore; where edgecore writes it elsewhere, name the file or the folder with --log-path\n";

/// Files of the machine that say what it is. None has a secret in it, and what looks like one is taken out all the same.
const FILES: [(&str, &str); 20] = [
    ("system/os-release", "/etc/os-release"),
    ("system/kernel", "/proc/version"),
    ("system/cmdline", "/proc/cmdline"),
    ("system/uptime", "/proc/uptime"),
    ("system/loadavg", "/proc/loadavg"),
    ("system/meminfo", "/proc/meminfo"),
    ("system/cpuinfo", "/proc/cpuinfo"),
    ("system/cgroups", "/proc/cgroups"),
    ("system/cgroup.controllers", "/sys/fs/cgroup/cgroup.controllers"),
    ("system/mounts", mountinfo::TABLE),
    ("system/modules", "/proc/modules"),
    ("system/filesystems", "/proc/filesystems"),
    ("system/pressure-memory", "/proc/pressure/memory"),
    ("network/resolv.conf", "/etc/resolv.conf"),
    ("network/hosts", "/etc/hosts"),
    ("network/addresses-v4", "/proc/net/fib_trie"),
    ("network/addresses-v6", "/proc/net/if_inet6"),
    ("network/routes", "/proc/net/route"),
    ("network/interfaces", "/proc/net/dev"),
    ("network/sockets", "/proc/net/sockstat"),
];

/// What is collected, and where to.
#[derive(Debug, Clone, Args)]
pub struct CollectArgs {
    /// The node's edgecore.yaml
    #[arg(short = 'c', long, default_value = DEFAULT_PATH, value_parser = config_location::parser())]
    pub config: PathBuf,
    /// The folder in which the archive is made
    #[arg(short = 'o', long, default_value = ".")]
    pub output_path: PathBuf,
    /// More: ten times as much of the log, the kernel's, the runtime's, edgecore's metrics and the node's page
    #[arg(short = 'd', long)]
    pub detail: bool,
    /// A log of edgecore's, or a folder of logs, where it does not write into systemd's journal
    #[arg(short = 'l', long)]
    pub log_path: Option<PathBuf>,
}

/// Collects, and says what, a line each; the archive's name comes last.
///
/// # Errors
/// When the archive cannot be written. What cannot be read is said in its place in the archive.
pub(super) async fn collect(order: &CollectArgs, env: &Env, say: &mut dyn FnMut(String)) -> Result<()> {
    if !order.output_path.is_dir() {
        bail!(
            "{} is no folder: make it first, or name another with --output-path",
            order.output_path.display()
        );
    }
    check_kind(&order.config)?;
    let host = Host::here();
    let (settings, has_joined, _) = check::configuration(&order.config);
    let now = env.wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut archive = Archive::begin(&order.output_path, &name(&settings, &host, now), now)?;
    let mut add = |name: &str, text: String| -> Result<()> {
        let length = archive.add(name, &text)?;
        say(format!("{name}: {}", bytes(length as u64)));
        Ok(())
    };

    // What was wrong comes first: who opens the archive reads that.
    let with = CheckWith::of(&order.config);
    let findings = check::findings(Topic::All, &with, &host, env).await?;
    add("check.txt", lines(&findings))?;
    if has_joined {
        let of = DiagnoseNode { config: order.config.clone() };
        add("diagnose.txt", lines(&Box::pin(diagnose::of_node(&of, env)).await))?;
    }
    add(
        "version.txt",
        format!(
            "keadm {}\nedgecore: {}\n",
            buildinfo::TEXT,
            program_says("edgecore", &["--version"], env).await
        ),
    )?;
    add("edgecore.yaml", configuration(&order.config))?;
    add("store.txt", store(&settings.database.data_source, now))?;
    for (name, path) in FILES {
        add(name, host.read(path).unwrap_or_else(|| format!("({path} cannot be read)\n")))?;
    }
    add("system/disks", disks(&host, &settings))?;
    add("system/processes", processes(&host))?;
    add("network/listening", listening(&host))?;
    add("runtime/runtime.txt", runtime(&settings, order.detail, env).await)?;
    let logs = logs(order, env).await;
    let has_log = !logs.iter().any(|(_, text)| text == NO_LOG);
    for (name, text) in logs {
        add(&name, text)?;
    }
    if order.detail {
        let live = Live::ask(&settings, &order.config).await;
        add("edgecore/metrics.txt", live.metrics.unwrap_or_else(|| "(edgecore does not say)\n".to_owned()))?;
        let page = live.page.map(|page| serde_json::to_string_pretty(&page)).transpose()?;
        add(
            "edgecore/page.json",
            page.unwrap_or_else(|| "(the node's page is off: modules.edgePage.enable)\n".to_owned()),
        )?;
    }
    let at = archive.end()?;
    if !has_log {
        say(format!("WARNING: {}", NO_LOG.trim_end()));
    }
    let size = std::fs::metadata(&at).map_or(0, |metadata| metadata.len());
    say(format!(
        "{} ({}, mode 0600): keys, tokens and contents of Secrets are not in it; look through it before you hand it on",
        at.display(),
        bytes(size)
    ));
    Ok(())
}

/// `edge_NAME_2023-11-14T221320Z`, as KubeEdge's begins.
fn name(settings: &EdgeCore, host: &Host, now: u64) -> String {
    let told = &settings.modules.edged.hostname_override;
    let node =
        if told.is_empty() { host.text("/proc/sys/kernel/hostname").trim().to_owned() } else { told.clone() };
    let node: String = node
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric() || "-.".contains(*letter))
        .take(64)
        .collect();
    let time = i64::try_from(now).ok().and_then(|now| jiff::Timestamp::from_second(now).ok());
    let time = time.map(|time| time.to_string().replace(':', "")).unwrap_or_default();
    format!("edge_{}_{time}", node.trim_matches('.'))
}

fn lines(findings: &[Finding]) -> String {
    findings.iter().map(|finding| finding.line() + "\n").collect()
}

/// Refuses a file that is another than an `edgecore.yaml`, be it a broken one: what in it is a secret nobody here knows.
fn check_kind(path: &Path) -> Result<()> {
    let shown = path.display();
    let Ok(found) = path.symlink_metadata() else { return Ok(()) };
    if found.is_symlink() {
        bail!("{shown} is a link, and is not followed: name what it leads to");
    }
    if !found.is_file() || found.len() > FILE_MAX as u64 {
        return Ok(());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    // One that is no YAML is left out.
    let Ok(document) = config::yaml_document(&text) else { return Ok(()) };
    let is_of_kind = document.get("kind").is_none_or(|kind| kind == "EdgeCore");
    let known = ["kind", "modules", "database"].iter().any(|key| document.get(key).is_some());
    let is_own = document.is_null() || (is_of_kind && known);
    if !is_own {
        bail!("{shown} is no configuration of EdgeCore: name the node's edgecore.yaml with --config");
    }
    Ok(())
}

/// `edgecore.yaml` as a document, without its comments: what is commented out may be a password.
fn configuration(path: &Path) -> String {
    let text = match std::fs::metadata(path) {
        // The bound of edgecore's own reading is near this.
        Ok(metadata) if metadata.is_file() && metadata.len() <= FILE_MAX as u64 => {
            std::fs::read_to_string(path)
        }
        Ok(_) => {
            return format!("({} is no file, or larger than {})\n", path.display(), bytes(FILE_MAX as u64));
        }
        Err(error) => Err(error),
    };
    let text = match text {
        Ok(text) => text,
        Err(error) => return format!("({} cannot be read: {error})\n", path.display()),
    };
    match config::yaml_document(&text) {
        Ok(mut document) => {
            redact::document(&mut document);
            serde_saphyr::to_string(&document).unwrap_or_else(|error| format!("({error})\n"))
        }
        // A line of it could be in the words of who could not read it.
        Err(_) => format!(
            "({} is no YAML, and is left out: what in it is a secret is not known; `keadm debug check node` says what is wrong)\n",
            path.display()
        ),
    }
}

/// What the store holds: keys, versions and sizes, and no value.
fn store(path: &Path, now: u64) -> String {
    let inspector = match StoreInspector::open(path) {
        Ok(inspector) => inspector,
        Err(error) => return format!("({error})\n"),
    };
    let mut text = format!("{} at revision {}\n\n", path.display(), inspector.revision());
    let mut say = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    match (inspector.entries(None, None, false), inspector.reports(None)) {
        (Ok(rows), Ok(reports)) => {
            entries_table(&rows, &mut say);
            say(String::new());
            reports_table(&reports, now, &mut say);
        }
        (Err(error), _) | (_, Err(error)) => say(format!("({error})")),
    }
    text
}

fn disks(host: &Host, settings: &EdgeCore) -> String {
    let mut text = String::new();
    for (folder, disk) in nodechecks::machine::disks(host, &nodechecks::machine::folders(settings)) {
        // A String takes whatever is written into it.
        let _ = writeln!(
            text,
            "{}: {} of {} left, {} of {} inodes left{}",
            folder.display(),
            bytes(disk.available),
            bytes(disk.size),
            disk.inodes_free,
            disk.inodes,
            if disk.read_only { ", takes no writes" } else { "" }
        );
    }
    text
}

/// Their names alone: a command line may have a token in it.
fn processes(host: &Host) -> String {
    host.processes().iter().map(|process| format!("{} {}\n", process.pid, process.name)).collect()
}

fn listening(host: &Host) -> String {
    let listeners = nodechecks::ports::listeners(host);
    let inodes: Vec<u64> = listeners.iter().map(|listener| listener.inode).collect();
    let owners = host.socket_owners(&inodes);
    let line = |listener: &nodechecks::ports::Listener| {
        let owner = owners
            .get(&listener.inode)
            .map_or_else(|| "-".to_owned(), |process| format!("{} (pid {})", process.name, process.pid));
        format!("{} {owner}\n", listener.address)
    };
    listeners.iter().map(line).collect()
}

/// What the runtime says of itself, and which sandboxes and containers it has: names, states and images, no environment.
async fn runtime(settings: &EdgeCore, detail: bool, env: &Env) -> String {
    let runtime = match nodechecks::runtime::client(settings) {
        Ok(runtime) => runtime,
        Err(error) => return format!("({error})\n"),
    };
    let mut text = String::new();
    let late = "(no answer)".to_owned();
    let version = env.timeout(PRINTS_WITHIN, runtime.version()).await;
    let version = version.map_or_else(
        || late.clone(),
        |said| said.map_or_else(|error| error.to_string(), |said| format!("{said:?}")),
    );
    let _ = writeln!(text, "version: {version}");
    let status = env.timeout(PRINTS_WITHIN, runtime.status()).await;
    let status = status.map_or_else(
        || late.clone(),
        |said| said.map_or_else(|error| error.to_string(), |said| format!("{said:#?}")),
    );
    let _ = writeln!(text, "status: {status}");
    if let Some(Ok(sandboxes)) =
        env.timeout(PRINTS_WITHIN, runtime.list_sandboxes(PodSandboxFilter::default())).await
    {
        let _ = writeln!(text, "\nsandboxes:");
        for sandbox in sandboxes {
            let metadata = sandbox.metadata.clone().unwrap_or_default();
            let _ = writeln!(
                text,
                "{} {:?} {}/{} attempt {}",
                sandbox.id,
                sandbox.state(),
                metadata.namespace,
                metadata.name,
                metadata.attempt
            );
        }
    }
    if let Some(Ok(containers)) =
        env.timeout(PRINTS_WITHIN, runtime.list_containers(ContainerFilter::default())).await
    {
        let _ = writeln!(text, "\ncontainers:");
        for container in containers {
            let metadata = container.metadata.clone().unwrap_or_default();
            let image = container.image.clone().unwrap_or_default().image;
            let _ = writeln!(
                text,
                "{} {:?} {} attempt {} of sandbox {} image {image}",
                container.id,
                container.state(),
                metadata.name,
                metadata.attempt,
                container.pod_sandbox_id
            );
        }
    }
    if detail && let Some(Ok(images)) = env.timeout(PRINTS_WITHIN, runtime.list_images()).await {
        let _ = writeln!(text, "\nimages:");
        for image in images {
            let _ = writeln!(text, "{} {} {}", image.id, bytes(image.size), image.repo_tags.join(" "));
        }
    }
    text
}

/// The logs: systemd's journal where there is one, or what --log-path names.
async fn logs(order: &CollectArgs, env: &Env) -> Vec<(String, String)> {
    let mut logs = Vec::new();
    let count = if order.detail { LINES_OF_DETAIL } else { LINES };
    let journal = async |of: &[&str]| {
        let mut arguments = vec!["--no-pager", "--output=short-iso", "--lines", count];
        arguments.extend(of);
        program_says("journalctl", &arguments, env).await
    };
    match &order.log_path {
        Some(path) => logs.extend(files_of(path)),
        None => {
            let said = journal(&["--unit=edgecore"]).await;
            let said = if is_empty(&said) { NO_LOG.to_owned() } else { said };
            logs.push(("logs/edgecore.log".to_owned(), said));
        }
    }
    if order.detail {
        logs.push(("logs/containerd.log".to_owned(), journal(&["--unit=containerd"]).await));
        logs.push(("logs/kernel.log".to_owned(), journal(&["--dmesg"]).await));
    }
    logs
}

/// Whether journalctl has no line, or cannot be run.
fn is_empty(journal: &str) -> bool {
    let text = journal.trim();
    text.is_empty() || text == "-- No entries --" || text.starts_with("(journalctl ")
}

/// A file, or those of a folder, each from its end.
fn files_of(path: &Path) -> Vec<(String, String)> {
    let one = |path: &Path, how: OFlags| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name: String = name
            .chars()
            .filter(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(*letter))
            .take(100)
            .collect();
        (
            format!("logs/{}", name.trim_start_matches('.')),
            end_of(path, how).unwrap_or_else(|error| format!("({error:#})\n")),
        )
    };
    let Ok(entries) = std::fs::read_dir(path) else { return vec![one(path, OFlags::empty())] };
    let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.sort();
    let is_file = |path: &&PathBuf| path.symlink_metadata().is_ok_and(|metadata| !metadata.is_dir());
    // Who may write in that folder need not be who may read what a link of his leads to.
    paths.iter().filter(is_file).take(LOGS_MAX).map(|path| one(path, OFlags::NOFOLLOW)).collect()
}

fn end_of(path: &Path, how: OFlags) -> Result<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let at = || format!("cannot read {}", path.display());
    // A pipe would be waited for, and what the kernel prints as well.
    let how = how | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut file = match rustix::fs::open(path, how, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        Err(Errno::LOOP) => bail!("{} is a link, and is not followed: name what it leads to", path.display()),
        Err(error) => return Err(error).with_context(at),
    };
    let metadata = file.metadata().with_context(at)?;
    if !metadata.is_file() {
        bail!("{} is no file", path.display());
    }
    if how.contains(OFlags::NOFOLLOW) && metadata.nlink() > 1 {
        bail!("{} has other names, too, which may be another user's doing: name it itself", path.display());
    }
    file.seek(SeekFrom::Start(metadata.len().saturating_sub(FILE_MAX as u64))).with_context(at)?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX as u64).read_to_end(&mut bytes).with_context(at)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a program prints, or why it does not.
async fn program_says(program: &str, arguments: &[&str], env: &Env) -> String {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    match env.timeout(PRINTS_WITHIN, command.output()).await {
        Some(Ok(output)) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        Some(Ok(output)) => format!(
            "({program} ended with {}: {})\n",
            output.status,
            plain(String::from_utf8_lossy(&output.stderr).trim())
        ),
        Some(Err(error)) => format!("({program} cannot be started: {error})\n"),
        None => format!("({program} has not ended within {} s)\n", PRINTS_WITHIN.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_without_a_line_is_no_log() {
        for none in ["-- No entries --\n", "", "(journalctl cannot be started: No such file)\n"] {
            assert!(is_empty(none), "{none}");
        }
        assert!(!is_empty("2023-11-14T22:13:20Z edge-1 edgecore[7]: -- No entries --\n"));
    }

    #[test]
    fn a_file_that_is_no_yaml_is_left_out_and_comments_never_come_along() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edgecore.yaml");
        assert!(configuration(&path).contains("cannot be read"));
        std::fs::write(
            &path,
            "# mqttPassword: hunter2\nmodules: {eventBus: {mqttPassword: hunter2, mqttMode: 1}}\n",
        )
        .unwrap();
        let text = configuration(&path);
        assert!(!text.contains("hunter2") && text.contains("mqttMode: 1"), "{text}");
        std::fs::write(&path, "{{{ mqttPassword: hunter2\n").unwrap();
        let text = configuration(&path);
        assert!(!text.contains("hunter2") && text.contains("is no YAML"), "{text}");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(configuration(&path).contains("is no file"));
    }

    #[test]
    fn a_file_that_is_another_than_edgecore_yaml_and_a_link_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edgecore.yaml");
        let judge = |text: &str| {
            std::fs::write(&path, text).unwrap();
            check_kind(&path)
        };
        for other in [
            "root:$6$salt$hash:19000:0:99999:7:::\nuser:*:19000:0:99999:7:::\n",
            "apiVersion: v1\nkind: Config\nusers: [{user: {token: t}}]\n",
            "password: hunter2\n",
            "- hunter2\n",
        ] {
            let why = judge(other).unwrap_err().to_string();
            assert!(why.contains("is no configuration of EdgeCore"), "{other}: {why}");
        }
        for own in ["kind: EdgeCore\n", "modules: {edgeHub: {heartbeat: x}}\n", "{{{ broken\n", ""] {
            judge(own).unwrap();
        }
        judge("kind: EdgeCore\n").unwrap();
        let link = folder.path().join("link.yaml");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(check_kind(&link).unwrap_err().to_string().contains("is a link"));
        check_kind(&folder.path().join("nothing.yaml")).unwrap();
    }

    #[test]
    fn the_name_is_one_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = EdgeCore::default();
        settings.modules.edged.hostname_override = "../edge-1\u{1b}".to_owned();
        assert_eq!(
            name(&settings, &Host::in_folder(folder.path()), 1_700_000_000),
            "edge_edge-1_2023-11-14T221320Z"
        );
    }

    #[test]
    fn logs_are_taken_from_their_end_and_pipes_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("edgecore.log"), "x".repeat(FILE_MAX) + "end").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join("pipe"), 0o600.into()).unwrap();
        let [(name, text), (_, pipe)] = &files_of(folder.path())[..] else { panic!("a file and a pipe") };
        assert_eq!(name, "logs/edgecore.log");
        assert!(text.len() == FILE_MAX && text.ends_with("end"));
        assert!(pipe.contains("is no file"));
        assert!(files_of(&folder.path().join("pipe"))[0].1.contains("is no file"));
    }

    #[test]
    fn what_somebody_else_has_linked_into_a_folder_of_logs_is_not_read() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secret = other.path().join("edgecore.db.key");
        std::fs::write(&secret, "kubehive-node-key-1 40dd84").unwrap();
        std::os::unix::fs::symlink(&secret, folder.path().join("a.log")).unwrap();
        std::os::unix::fs::symlink("/proc/kmsg", folder.path().join("b.log")).unwrap();
        std::fs::hard_link(&secret, folder.path().join("c.log")).unwrap();
        let texts: Vec<String> = files_of(folder.path()).into_iter().map(|(_, text)| text).collect();
        let [linked, kernel, named] = &texts[..] else { panic!("{texts:?}") };
        assert!(linked.contains("is a link") && kernel.contains("is a link"), "{texts:?}");
        assert!(named.contains("other names"), "{texts:?}");
        // What is named itself is meant.
        assert!(files_of(&folder.path().join("a.log"))[0].1.contains("40dd84"));
    }

    #[actix_rt::test]
    async fn a_program_that_is_not_there_is_said() {
        let env = Env::real();
        assert!(program_says("no-such-program", &[], &env).await.contains("cannot be started"));
        assert!(program_says("false", &[], &env).await.contains("ended with"));
    }
}
