//! `keadm init`: CloudCore into a cluster.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use beehive::Env;
use clap::Args;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use nodechecks::Grade;
use serde_json::Value;

use super::applier::{Applier, named};
use super::capabilities::Cluster;
use super::chart_args::{self, ChartArgs};
use super::preflight::{self, Checked, Landing};
use super::{definitions, found, manifest, rollout};

/// `keadm init`.
#[derive(Debug, Args)]
pub struct Init {
    /// What is installed.
    #[command(flatten)]
    pub chart: ChartArgs,
    /// Path of the cluster's kubeconfig; else those of $KUBECONFIG, else /root/.kube/config
    #[arg(long)]
    pub kube_config: Option<PathBuf>,
    /// Look at the cluster, print what would be installed, and change nothing
    #[arg(short = 'd', long)]
    pub dry_run: bool,
    /// Install over a CloudCore that is there, and do not wait until its pods are ready
    #[arg(long)]
    pub force: bool,
    /// Install whatever the checks would say
    #[arg(long)]
    pub skip_preflight_checks: bool,
    /// Keep the daemon sets off edge nodes that would land there (kube-proxy, network plugins), by a patch of their affinity
    #[arg(long)]
    pub keep_daemonsets_off: bool,
    /// How long to wait until the pods are ready, in seconds
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
}

/// Installs, and says what it does, a line each.
///
/// # Errors
/// A sentence with the cure. What a check finds stops it before anything is written.
pub async fn init(order: &Init, env: &Env, say: &mut dyn FnMut(String)) -> Result<()> {
    let values = order.chart.values()?;
    let client = crate::client(order.kube_config.as_deref()).await?;
    let cluster = Cluster::ask(&client).await?;
    let namespace = order.chart.namespace.as_str();
    let objects = chart_args::rendered(&values, &cluster.capabilities(), namespace)?;
    check_settings(&objects)?;
    let found = found::find(&client, namespace).await?;
    let outside = found::outside(&client, &found).await?;
    // With --dry-run standard output is the YAML's, so that it may be a file.
    let mut aside = |line: String| say(if order.dry_run { comment(&line) } else { line });
    let landing = if order.skip_preflight_checks {
        // That one is no matter of taste: objects of the same names would be KubeEdge's no more.
        let is_theirs = found.iter().any(|one| !one.is_ours && one.namespace == namespace);
        let outside =
            outside.as_ref().filter(|outside| outside.has_nodes() && namespace == helmchart::NAMESPACE);
        if is_theirs || outside.is_some() {
            let secrets = outside.map_or(&[][..], |outside| outside.secrets.as_slice());
            let installed = preflight::installed(&found, (secrets, outside), namespace, order.force);
            bail!("nothing was installed.\n{}: {}", installed.check, installed.says);
        }
        aside("no check was made (--skip-preflight-checks)".to_owned());
        Vec::new()
    } else {
        let wanted = preflight::Order {
            values: &values,
            objects: &objects,
            namespace,
            is_forced: order.force,
            found: &found,
            outside: outside.as_ref(),
        };
        let checked = preflight::check(&client, &cluster, &wanted).await?;
        judge(&checked, &mut aside)?;
        checked.landing
    };
    if order.dry_run {
        say(manifest::yaml(&values, objects, namespace, false)?);
        return Ok(());
    }
    let is_beside = found::is_beside(&found, outside.as_ref());
    let wanted = Wanted { values: &values, objects, namespace, is_beside };
    install(&client, &cluster, wanted, env, say).await?;
    if order.keep_daemonsets_off {
        keep_off(&client, &landing, say).await?;
    }
    if preflight::replicas(&values) == 0 {
        for line in no_pods(namespace) {
            say(line);
        }
    } else if order.force {
        say(format!(
            "not waiting until the pods are ready (--force): `kubectl -n {namespace} rollout status deployment cloudcore` does"
        ));
    } else {
        rollout::wait(&client, namespace, Duration::from_secs(order.timeout), env, say).await?;
        say("CloudCore is ready".to_owned());
    }
    if is_beside {
        say(
            "KubeEdge's CloudCore runs beside it, and goes on with the nodes that have not moved: edge/keadm/FROM-KUBEEDGE.md"
                .to_owned(),
        );
    }
    say(next(&first_address(&values), &values));
    Ok(())
}

/// What is still to be done for a CloudCore that runs outside of the cluster.
fn no_pods(namespace: &str) -> [String; 2] {
    let named = match namespace {
        helmchart::NAMESPACE => String::new(),
        other => format!(", commonConfig.namespace is {other},"),
    };
    [
        "no pod is asked for (cloudCore.replicaCount=0), and so no Service with NodePorts: what is in the cluster now is for a CloudCore outside of it"
            .to_owned(),
        format!(
            "on its machine: modules.cloudHub.advertiseAddress of {} names the addresses at which nodes reach that machine{named} and \
             `cloudcore --kubeconfig FILE` has a kubeconfig of the account {namespace}/cloudcore (the README says how it is made)",
            config::cloud::DEFAULT_PATH
        ),
    ]
}

fn comment(text: &str) -> String {
    format!("# {}", text.replace('\n', "\n# "))
}

/// CloudCore reads its settings at its start, and whoever wrote them is not there then.
fn check_settings(objects: &[Value]) -> Result<()> {
    let map = objects.iter().find(|object| object["kind"] == "ConfigMap");
    let text = map.and_then(|map| map["data"]["cloudcore.yaml"].as_str()).unwrap_or_default();
    config::cloud::CloudCore::parse(text).context("cloudCore.modules and cloudCore.commonConfig")?;
    Ok(())
}

fn judge(checked: &Checked, say: &mut dyn FnMut(String)) -> Result<()> {
    let mut failed = Vec::new();
    for finding in &checked.findings {
        say(finding.line());
        if finding.grade == Grade::Failed {
            failed.push(format!("{}: {}", finding.check, finding.says));
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("nothing was installed.\n{}\n--skip-preflight-checks installs all the same", failed.join("\n"))
}

/// What is to be installed.
struct Wanted<'a> {
    values: &'a Value,
    objects: Vec<Value>,
    namespace: &'a str,
    /// KubeEdge's CloudCore is there, too.
    is_beside: bool,
}

async fn install(
    client: &Client,
    cluster: &Cluster,
    Wanted { values, objects, namespace, is_beside }: Wanted<'_>,
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let applier = Applier::new(client.clone(), cluster);
    let made = helmchart::namespace(values, namespace);
    // Whoever labelled one that is there had a reason.
    match applier.read(&made).await? {
        Some(_) => say(format!("the namespace {namespace} is there")),
        None => {
            applier.apply(&made).await?;
            say(format!("the namespace {namespace} is made"));
        }
    }
    let applied = definitions::apply(client, is_beside, env).await?;
    say(format!("{} definitions of custom resources are served", applied.served));
    if applied.kept > 0 {
        say(format!(
            "{} of them are KubeEdge's, and stay as they are while its CloudCore runs: `keadm init --force` exchanges them afterwards",
            applied.kept
        ));
    }
    let total = objects.len();
    let mut of_kind: Option<(String, usize)> = None;
    for mut object in objects {
        helmchart::owned(&mut object, namespace);
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        if let Some((last, count)) = of_kind.take_if(|(last, _)| *last != kind) {
            say(said(&last, count));
        }
        applier.apply(&object).await.with_context(|| format!("{} is not installed", named(&object)))?;
        of_kind = Some((kind, of_kind.map_or(1, |(_, count)| count + 1)));
    }
    if let Some((last, count)) = of_kind {
        say(said(&last, count));
    }
    say(format!("{total} objects of the release cloudcore are in the cluster"));
    Ok(())
}

fn said(kind: &str, count: usize) -> String {
    format!("applied {count} {kind}")
}

async fn keep_off(client: &Client, landing: &[Landing], say: &mut dyn FnMut(String)) -> Result<()> {
    for set in landing {
        let api: Api<DaemonSet> = Api::namespaced(client.clone(), &set.namespace);
        let patched = api.patch(&set.name, &PatchParams::default(), &Patch::Merge(&set.patch)).await;
        patched.with_context(|| format!("cannot patch the DaemonSet {}/{}", set.namespace, set.name))?;
        say(format!("DaemonSet {}/{} stays off edge nodes", set.namespace, set.name));
    }
    Ok(())
}

/// The first address that nodes are told.
fn first_address(values: &Value) -> String {
    let first = values.pointer("/cloudCore/modules/cloudHub/advertiseAddress/0").and_then(Value::as_str);
    match first {
        Some(address) if address.contains(':') => format!("[{address}]"),
        Some(address) => address.to_owned(),
        None => "ADDRESS".to_owned(),
    }
}

/// What an administrator does next, with the ports that nodes use. NodePorts lead to pods, and to no CloudCore outside.
fn next(address: &str, values: &Value) -> String {
    let number = |pointer: &str| values.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let is_set = |pointer: &str| values.pointer(pointer).and_then(Value::as_bool) == Some(true);
    let (hub, service) = ("/cloudCore/modules/cloudHub", "/cloudCore/service");
    let on_host = is_set("/cloudCore/hostNetWork") || is_set("/cloudCore/hostPorts");
    let by_node_port = !on_host
        && preflight::replicas(values) > 0
        && values.pointer(&format!("{service}/type")).and_then(Value::as_str) == Some("NodePort");
    let (link, certificates) = if by_node_port {
        (number(&format!("{service}/cloudhubNodePort")), number(&format!("{service}/cloudhubHttpsNodePort")))
    } else {
        (number(&format!("{hub}/websocket/port")), number(&format!("{hub}/https/port")))
    };
    let certport = if certificates == 10_002 { String::new() } else { format!(" --certport={certificates}") };
    format!(
        "next: `keadm gettoken > token`, and on an edge machine `keadm join --cloudcore-ipport={address}:{link}{certport} --token-file=token`"
    )
}

#[cfg(test)]
mod tests {
    use nodechecks::Finding;

    use super::*;
    use serde_json::json;

    #[test]
    fn what_fails_stops_it_with_every_cure_and_a_warning_does_not() {
        let checked = |findings: Vec<Finding>| Checked { findings, landing: Vec::new() };
        let mut said = Vec::new();
        let warned = checked(vec![Finding::passed("A", "fine"), Finding::warned("B", "hm")]);
        judge(&warned, &mut |line| said.push(line)).unwrap();
        assert_eq!(said, ["ok      A: fine", "WARNING B: hm"]);
        let failed = checked(vec![Finding::failed("C", "cure one"), Finding::failed("D", "cure two")]);
        let told = judge(&failed, &mut |_| {}).unwrap_err().to_string();
        assert!(
            told.contains("C: cure one")
                && told.contains("D: cure two")
                && told.contains("nothing was installed"),
            "{told}"
        );
    }

    #[test]
    fn the_next_step_names_the_ports_that_nodes_reach() {
        let with = |given: Value| {
            let values = helmchart::with_defaults(&given).unwrap();
            next(&first_address(&values), &values)
        };
        let hub = json!({"advertiseAddress": ["192.0.2.10"]});
        let said = with(json!({"cloudCore": {"modules": {"cloudHub": hub}}}));
        assert!(said.contains("--cloudcore-ipport=192.0.2.10:30000 --certport=30002"), "{said}");
        for choice in [
            json!({"service": {"type": "LoadBalancer"}}),
            json!({"hostNetWork": true}),
            json!({"hostPorts": true}),
            json!({"replicaCount": 0}),
        ] {
            let said = with(json!({"cloudCore": choice}));
            assert!(said.contains("ADDRESS:10000 --token-file"), "{said}");
        }
        let said =
            with(json!({"cloudCore": {"modules": {"cloudHub": {"advertiseAddress": ["2001:db8::1"]}}}}));
        assert!(said.contains("[2001:db8::1]:30000"), "{said}");
    }

    #[test]
    fn settings_that_cloudcore_would_refuse_are_refused_before_anything_is_written() {
        let told = |set: &str| {
            let args = ChartArgs {
                advertise_address: vec!["192.0.2.10".parse().unwrap()],
                set: vec![set.to_owned()],
                ..ChartArgs::default()
            };
            let capabilities = helmchart::Capabilities { version: "v1.36.0".to_owned(), kinds: Vec::new() };
            let objects = helmchart::render(&args.values().unwrap(), &capabilities, "kubeedge").unwrap();
            check_settings(&objects).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(told("cloudCore.modules.cloudHub.nodeLimit=500"), Ok(()));
        let refused = told("cloudCore.modules.cloudStream.kubeletEndpoint.firstPort=40000").unwrap_err();
        assert!(refused.contains("firstPort"), "{refused}");
        let refused = told("cloudCore.modules.cloudHub.dnsNames={https://x}").unwrap_err();
        assert!(refused.contains("dnsNames"), "{refused}");
    }
}
