//! `keadm debug check`: what stops this machine from being a node, each with a name and a cure, within 10 s, without edgecore and without
//! the cloud. `join` looks at a part of it.

mod cloud;
mod dns_query;
mod identity;
mod names;
mod ping;
mod store;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use beehive::Env;
use clap::{Args, ValueEnum};
use config::edge::{DEFAULT_PATH, EdgeCore};
use config::parse_host_port;
use edge_hub::StoredIdentity;
use edge_store::StoreInspector;
use nodechecks::leftovers::{self, Remains};
use nodechecks::{
    Beside, Finding, Grade, Host, address, clock, daemon_sets, machine, of_machine, ports, resolver, runtime,
    silent,
};
use serde_json::Value;

use crate::config_location;

pub(crate) use identity::{configuration, identity_files, written};
pub(crate) use store::store;

/// 9 s for what goes over a wire or to the runtime: each part has less.
const ALL_WITHIN: Duration = Duration::from_secs(9);
/// 200 ms over which it is seen how busy the processors are.
const BUSY_OVER: Duration = Duration::from_millis(200);

/// What is looked at: KubeEdge's words, and `node`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Topic {
    /// All of it
    #[default]
    All,
    /// Architecture
    Arch,
    /// Cpu
    Cpu,
    /// Memory, MemoryCgroup
    Mem,
    /// Disk, Inodes
    Disk,
    /// ResolvConf, DnsServers, Names
    Dns,
    /// NodeAddress, Ports, CloudCore, CloudCoreCertificate, Clock, Quic, Ping
    Network,
    /// Pids
    Pid,
    /// RuntimeEndpoint, CriPlugin, CniConfiguration, CgroupDriver, KernelModules, Iptables
    Runtime,
    /// Configuration, NodeCertificate, Token, Store, Leftovers, DaemonSets
    Node,
}

impl Topic {
    fn has(self, part: Topic) -> bool {
        self == Topic::All || self == part
    }
}

/// What is looked at, and with what.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// What is looked at
    #[arg(value_enum, default_value_t)]
    pub topic: Topic,
    /// With what.
    #[command(flatten)]
    pub with: CheckWith,
}

/// Flags of checks, which `diagnose install` has, too.
#[derive(Debug, Clone, Args)]
pub struct CheckWith {
    /// The node's edgecore.yaml; where it is not there the defaults are looked at
    #[arg(short = 'c', long, default_value = DEFAULT_PATH, value_parser = config_location::parser())]
    pub config: PathBuf,
    /// A name that this machine has to find; CloudCore's if left out
    #[arg(short = 'd', long)]
    pub domain: Option<String>,
    /// The name server that is asked for it; those of /etc/resolv.conf if left out
    #[arg(short = 'D', long)]
    pub dns_ip: Option<IpAddr>,
    /// An address that has to answer a ping
    #[arg(short = 'i', long)]
    pub ip: Option<IpAddr>,
    /// A port of CloudCore's, HOST:PORT, as enrolment's (10002, or the NodePort 30002); those of edgecore.yaml if left out
    #[arg(short = 's', long)]
    pub cloud_hub_server: Option<String>,
    /// A file with the token that this machine is to join with: whether it is whole, not over, and of that CloudCore
    #[arg(long)]
    pub token_file: Option<PathBuf>,
}

impl CheckWith {
    /// With that file, and nothing else told.
    pub fn of(config: &Path) -> Self {
        CheckWith {
            config: config.to_owned(),
            domain: None,
            dns_ip: None,
            ip: None,
            cloud_hub_server: None,
            token_file: None,
        }
    }
}

/// Looks, and says what is found, a line each.
///
/// # Errors
/// When a check fails, with the names of those; when a flag has no effect.
pub(super) async fn check(order: &CheckArgs, env: &Env, say: &mut dyn FnMut(String)) -> Result<()> {
    let findings = findings(order.topic, &order.with, &Host::here(), env).await?;
    judge(&findings, say)
}

/// Says them, and whether all is well.
pub(crate) fn judge(findings: &[Finding], say: &mut dyn FnMut(String)) -> Result<()> {
    findings.iter().for_each(|finding| say(finding.line()));
    let failed: Vec<&str> = findings
        .iter()
        .filter(|finding| finding.grade == Grade::Failed)
        .map(|finding| finding.check)
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    bail!("{} of {} checks failed: {}", failed.len(), findings.len(), failed.join(", "))
}

/// What the flags say, once they make sense.
struct FlagValues {
    targets: Option<Vec<cloud::Target>>,
    token: Option<Result<String, String>>,
}

fn told(topic: Topic, with: &CheckWith) -> Result<FlagValues> {
    let dns = topic.has(Topic::Dns);
    let network = topic.has(Topic::Network);
    for (is_given, is_used, flag, of) in [
        (with.domain.is_some(), dns, "--domain", "dns"),
        (with.dns_ip.is_some(), dns, "--dns-ip", "dns"),
        (with.ip.is_some(), network, "--ip", "network"),
        (with.cloud_hub_server.is_some(), network, "--cloud-hub-server", "network"),
        (
            with.token_file.is_some(),
            network || topic == Topic::Node,
            "--token-file",
            "network` and `check node",
        ),
    ] {
        if is_given && !is_used {
            bail!("{flag} has no effect here: it is one of `check {of}` and `check all`");
        }
    }
    let targets = match &with.cloud_hub_server {
        Some(server) => {
            let (host, port) = parse_host_port(server.strip_prefix("https://").unwrap_or(server))
                .map_err(|why| anyhow::anyhow!("--cloud-hub-server: {why}"))?;
            Some(vec![cloud::Target { host, port, what: "--cloud-hub-server" }])
        }
        None => None,
    };
    let token =
        with.token_file.as_deref().map(|path| crate::read_token(path).map_err(|error| format!("{error:#}")));
    Ok(FlagValues { targets, token })
}

/// All that is found.
///
/// # Errors
/// When a flag has no effect, or makes no sense.
pub(crate) async fn findings(topic: Topic, with: &CheckWith, host: &Host, env: &Env) -> Result<Vec<Finding>> {
    let told = told(topic, with)?;
    let now = env.wall();
    let (settings, has_joined, of_file) = configuration(&with.config);
    let stat = host.text("/proc/stat");
    let local = {
        let (host, settings, config) = (host.clone(), settings.clone(), with.config.clone());
        async move {
            let look = move || Local::look(topic, &host, &settings, &config, has_joined, now);
            Beside::default().look(look, env).await
        }
    };
    let targets = told.targets.clone().unwrap_or_else(|| match has_joined {
        true => cloud::targets(&settings),
        false => Vec::new(),
    });
    let stored = if has_joined {
        Some(identity_files(&settings).look().map_err(|error| format!("{error:#}")))
    } else {
        None
    };
    let (of_token, token) = told.token.map(|read| identity::token(read, now)).unzip();
    let trusted = match (token.flatten(), &stored) {
        (Some(token), _) => cloud::Trusted::Pin(token.ca_pin),
        (None, Some(Ok(stored))) => cloud::Trusted::Authorities(identity::authorities(&stored.authorities)),
        (None, Some(Err(_)) | None) => cloud::Trusted::Anything,
    };
    let identity = stored.as_ref().and_then(|stored| stored.as_ref().ok());
    let remote = remote(topic, with, &settings, &targets, &trusted, identity, host, env);
    let key = async {
        match identity.filter(|_| topic.has(Topic::Node)) {
            Some(stored) => identity::key_in_token(&stored.key, env).await,
            None => None,
        }
    };
    let ((), local, remote, key) =
        tokio::join!(env.sleep(BUSY_OVER), local, env.timeout(ALL_WITHIN, remote), key);
    let local = local.unwrap_or_else(|| Local { machine: vec![silent()], ..Local::default() });
    // Each part has a bound of its own, and all of them are below this one.
    let remote = remote.unwrap_or_else(|| Remote {
        network: vec![Finding::failed(
            "RemoteChecks",
            format!(
                "not all was looked at within {} s: this machine has no time for it (`top`)",
                ALL_WITHIN.as_secs()
            ),
        )],
        ..Remote::default()
    });
    let mut findings = local.machine;
    if topic.has(Topic::Cpu) {
        findings.push(machine::cpu(&stat, &host.text("/proc/stat")));
    }
    findings.extend(local.resources);
    findings.extend(remote.runtime);
    findings.extend(local.kernel);
    if topic.has(Topic::Node) {
        findings.push(of_file);
        if let Some(stored) = &stored {
            let stored = stored.as_ref().map_err(Clone::clone);
            findings.extend(identity::certificate(&settings, stored, now));
        }
        findings.extend(key);
        findings.extend(local.node);
    }
    if topic.has(Topic::Node) || topic.has(Topic::Network) {
        findings.extend(of_token);
    }
    findings.extend(local.network);
    findings.extend(remote.network);
    findings.extend(remote.dns);
    Ok(one_clock(findings))
}

/// Several things tell of the clock: where one of them finds it wrong, the others say no more.
fn one_clock(mut findings: Vec<Finding>) -> Vec<Finding> {
    let mut found: Option<Finding> = None;
    for finding in findings.iter().filter(|finding| finding.check == clock::CLOCK) {
        let is_worse = finding.grade == Grade::Failed;
        if found.as_ref().is_none_or(|found| is_worse && found.grade != Grade::Failed) {
            found = Some(finding.clone());
        }
    }
    let Some(place) = findings.iter().position(|finding| finding.check == clock::CLOCK) else {
        return findings;
    };
    findings.retain(|finding| finding.check != clock::CLOCK);
    findings.splice(place..place, found);
    findings
}

/// What this machine alone says.
#[derive(Default)]
struct Local {
    machine: Vec<Finding>,
    resources: Vec<Finding>,
    kernel: Vec<Finding>,
    node: Vec<Finding>,
    network: Vec<Finding>,
}

impl Local {
    fn look(
        topic: Topic,
        host: &Host,
        settings: &EdgeCore,
        config: &Path,
        has_joined: bool,
        now: SystemTime,
    ) -> Local {
        let mut local = Local::default();
        if topic.has(Topic::Arch) {
            local.machine.push(machine::architecture(std::env::consts::ARCH));
        }
        if topic == Topic::All {
            local.machine.push(machine::privileges(rustix::process::geteuid().is_root()));
        }
        if topic.has(Topic::Mem) {
            local.resources.push(machine::memory(&host.text("/proc/meminfo")));
            local.resources.push(machine::memory_cgroup(&machine::Cgroups::of(host)));
        }
        if topic.has(Topic::Disk) {
            let disks = machine::disks(host, &machine::folders(settings));
            let room = machine::disk(&disks, &machine::evicts_below(host, settings));
            local.resources.extend([room, machine::inodes(&disks)]);
        }
        if topic.has(Topic::Pid) {
            let [most, threads] =
                ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"].map(|path| host.text(path));
            local.resources.push(machine::pids(&most, &threads, &host.text("/proc/loadavg")));
        }
        if topic.has(Topic::Runtime) {
            local.kernel.extend([machine::kernel_modules(host), machine::iptables(host)]);
        }
        if topic.has(Topic::Node) {
            let (of_store, inspector) =
                store(&settings.database.data_source, &settings.modules.edged.hostname_override);
            local.node.push(of_store);
            let written = if has_joined { Vec::new() } else { others_files(settings, config) };
            local.node.push(leftovers::leftovers(&Remains::of(host, settings, written, has_joined)));
            if let Some(inspector) = inspector {
                let sets: Vec<_> = pods(&inspector).iter().flat_map(daemon_sets::of_pod).collect();
                local.node.push(daemon_sets::verdict(&sets));
            }
        }
        if topic.has(Topic::Network) {
            local.network.push(address::node_address(&settings.modules.edged.node_ip));
            local.network.push(ports::look(host, settings, None));
            local.network.extend(clock::before_program(now));
        }
        if topic.has(Topic::Dns) {
            local.network.push(resolver::resolv_conf(host, settings));
        }
        local
    }
}

/// The pods that a store holds.
pub(crate) fn pods(inspector: &StoreInspector) -> Vec<Value> {
    let rows = inspector.entries(Some("pods"), None, true).unwrap_or_default();
    rows.into_iter().filter_map(|row| serde_json::from_slice(&row.value?).ok()).collect()
}

/// What the runtime and the network say.
#[derive(Default)]
struct Remote {
    runtime: Vec<Finding>,
    network: Vec<Finding>,
    dns: Vec<Finding>,
}

#[expect(clippy::too_many_arguments, reason = "what was read once is handed on")]
async fn remote(
    topic: Topic,
    with: &CheckWith,
    settings: &EdgeCore,
    targets: &[cloud::Target],
    trusted: &cloud::Trusted,
    identity: Option<&StoredIdentity>,
    host: &Host,
    env: &Env,
) -> Remote {
    let runtime = async {
        match topic.has(Topic::Runtime) {
            true => runtime::verdicts(&runtime::ask(settings, env).await, settings, host),
            false => Vec::new(),
        }
    };
    let network = async {
        if !topic.has(Topic::Network) {
            return Vec::new();
        }
        let quic = async {
            // With an address of somebody's own the settings' is not asked.
            if with.cloud_hub_server.is_some() { None } else { cloud::quic(settings, identity, env).await }
        };
        let ping = async {
            match with.ip {
                Some(ip) => Some(ping::ping(ip, env).await),
                None => None,
            }
        };
        let (mut found, quic, ping) = tokio::join!(cloud::look(targets, trusted, env), quic, ping);
        found.extend(quic.into_iter().chain(ping));
        found
    };
    let dns = async {
        let names = with.domain.clone().map_or_else(|| cloud::host_names(targets), |domain| vec![domain]);
        if !topic.has(Topic::Dns) {
            return Vec::new();
        }
        let servers =
            names::ask_servers(host, with.dns_ip, names.first().map(String::as_str), dns_query::TRIES, env);
        let search = async {
            match names.is_empty() || with.dns_ip.is_some() {
                true => None,
                false => Some(names::find(&names, env).await),
            }
        };
        let (servers, search) = tokio::join!(servers, search);
        servers.into_iter().chain(search).collect()
    };
    let (runtime, network, dns) = tokio::join!(runtime, network, dns);
    Remote { runtime, network, dns }
}

/// The files of an earlier node, beside the one that says that there is a node.
fn others_files(settings: &EdgeCore, config: &Path) -> Vec<PathBuf> {
    written(settings, config).into_iter().filter(|path| path != config).collect()
}

/// Who joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joins {
    /// A machine that is no node yet.
    Anew,
    /// One whose node KubeEdge's edgecore runs until it has moved over.
    FromKubeEdge,
}

/// What is not looked at while KubeEdge's edgecore runs, and why.
const NOT_BESIDE_KUBEEDGE: &str = "not looked at while KubeEdge's edgecore runs: Leftovers (its processes, files and mounts are those of this node), and of \
                                   Ports those that it has itself, which it leaves";

/// What `join` looks at before it asks the cloud: a node that could run no pod joins all the same, and its owner knows why. Says what is
/// not well, a line each.
pub(crate) async fn before_join(settings: &EdgeCore, joins: Joins, env: &Env, say: &mut dyn FnMut(String)) {
    before_join_of(&Host::here(), settings, joins, env, say).await;
}

async fn before_join_of(
    host: &Host,
    settings: &EdgeCore,
    joins: Joins,
    env: &Env,
    say: &mut dyn FnMut(String),
) {
    let machine_time = env.wall();
    let local = async {
        let (host, settings) = (host.clone(), settings.clone());
        let look = move || {
            let mut found = vec![machine::memory(&host.text("/proc/meminfo"))];
            found.extend(of_machine(&host, &settings, machine_time, None));
            if joins == Joins::Anew {
                // Files of an earlier node have stopped `join` before.
                found.push(leftovers::leftovers(&Remains::of(&host, &settings, Vec::new(), false)));
            }
            found
        };
        Beside::default().look(look, env).await.unwrap_or_else(|| vec![silent()])
    };
    // The cloud's name, or none: images are pulled by names in any case.
    let names = cloud::host_names(&cloud::targets(settings));
    let servers = names::ask_servers(host, None, names.first().map(String::as_str), 1, env);
    let (seen, local, servers) = tokio::join!(runtime::ask(settings, env), local, servers);
    let mut findings = runtime::verdicts(&seen, settings, host);
    findings.extend(local);
    findings.extend(servers);
    let bad: Vec<&Finding> = findings.iter().filter(|finding| finding.grade != Grade::Passed).collect();
    bad.iter().for_each(|finding| say(finding.line()));
    if joins == Joins::FromKubeEdge {
        say(NOT_BESIDE_KUBEEDGE.to_owned());
    }
    if !bad.is_empty() {
        say("this machine joins all the same, and its pods may not run before that is mended; `keadm debug check` looks again".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        of: CheckArgs,
    }

    fn parse(line: &[&str]) -> CheckArgs {
        Cli::try_parse_from(std::iter::once("check").chain(line.iter().copied())).unwrap().of
    }

    #[test]
    fn the_words_and_flags_are_kubeedges() {
        for word in ["all", "arch", "cpu", "mem", "disk", "dns", "network", "pid", "runtime", "node"] {
            parse(&[word]);
        }
        assert_eq!(parse(&[]).topic, Topic::All);
        let line = [
            "-d",
            "a.example",
            "-D",
            "192.0.2.1",
            "-i",
            "192.0.2.2",
            "-s",
            "192.0.2.3:10002",
            "-c",
            "/x.yaml",
        ];
        let with = parse(&line).with;
        assert_eq!(with.domain.as_deref(), Some("a.example"));
        assert_eq!(with.config, Path::new("/x.yaml"));
    }

    #[test]
    fn a_flag_without_effect_is_refused_by_its_name() {
        let refused = |line: &[&str]| {
            let order = parse(line);
            told(order.topic, &order.with).err().map(|error| error.to_string())
        };
        assert_eq!(refused(&["-d", "a", "-i", "192.0.2.1"]), None);
        let said = refused(&["cpu", "-d", "a"]).unwrap();
        assert!(said.starts_with("--domain has no effect here") && said.contains("`check dns`"), "{said}");
        assert!(refused(&["dns", "-i", "192.0.2.1"]).unwrap().starts_with("--ip "));
        assert!(refused(&["runtime", "-s", "a:1"]).unwrap().starts_with("--cloud-hub-server "));
        assert!(refused(&["disk", "--token-file", "x"]).unwrap().contains("`check node`"));
        assert!(refused(&["-s", "nonsense"]).unwrap().starts_with("--cloud-hub-server: "));
    }

    /// The files are really there.
    #[test]
    fn the_files_of_an_earlier_node_are_found_but_for_the_one_that_says_that_there_is_a_node() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut settings = EdgeCore::default();
        let hub = &mut settings.modules.edge_hub;
        (hub.tls_cert_file, hub.tls_private_key_file) = (at("server.crt"), at("server.key"));
        hub.tls_ca_file = at("rootCA.crt");
        for name in ["server.key", "server.crt", "edgecore.yaml"] {
            std::fs::write(at(name), "").unwrap();
        }
        assert_eq!(others_files(&settings, &at("edgecore.yaml")), [at("server.crt"), at("server.key")]);
    }

    /// A machine whose memory controller is off, and on which an edgecore runs.
    #[actix_rt::test]
    async fn a_machine_is_looked_at_before_it_joins_and_one_of_kubeedges_but_for_what_is_its_own() {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids\n"),
            ("proc/7/comm", "edgecore\n"),
            // Nobody answers there.
            ("etc/resolv.conf", "nameserver 127.9.9.9\n"),
        ] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let mut settings = EdgeCore::default();
        settings.modules.edged.tailored_kubelet_config.container_runtime_endpoint =
            format!("unix://{}/none.sock", folder.path().display());
        let host = Host::in_folder(folder.path());
        let look = async |joins| {
            let mut said = Vec::new();
            before_join_of(&host, &settings, joins, &Env::real(), &mut |line| said.push(line)).await;
            said.join("\n")
        };
        let anew = look(Joins::Anew).await;
        let both = [
            "FAIL    RuntimeEndpoint",
            "FAIL    MemoryCgroup",
            "WARNING ResolvConf",
            "WARNING DnsServers: 127.9.9.9",
            "joins all the same",
        ];
        for words in both.into_iter().chain(["FAIL    Leftovers: an edgecore runs (pid 7)"]) {
            assert!(anew.contains(words), "{words}: {anew}");
        }
        let moved = look(Joins::FromKubeEdge).await;
        for words in both.into_iter().chain(["not looked at while KubeEdge's edgecore runs: Leftovers"]) {
            assert!(moved.contains(words), "{words}: {moved}");
        }
        assert!(!moved.contains("FAIL    Leftovers"), "{moved}");
    }

    #[test]
    fn the_worst_that_is_known_of_the_clock_is_said_once() {
        let of = |findings: &[Finding]| {
            one_clock(findings.to_vec())
                .into_iter()
                .map(|finding| (finding.check, finding.says))
                .collect::<Vec<_>>()
        };
        let (well, bad) = (Finding::passed(clock::CLOCK, "well"), Finding::failed(clock::CLOCK, "bad"));
        let other = Finding::passed("A", "a");
        assert_eq!(
            of(&[well.clone(), other.clone(), bad, well]),
            [("Clock", "bad".to_owned()), ("A", "a".to_owned())]
        );
        assert_eq!(of(&[other]), [("A", "a".to_owned())]);
    }
}
