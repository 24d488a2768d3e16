//! `keadm manifest`: what `keadm init` would install, as YAML.

use anyhow::Result;
use clap::{Args, ValueEnum};
use helmchart::Capabilities;
use serde_json::Value;

use super::capabilities::Cluster;
use super::chart_args::ChartArgs;

/// For which Kubernetes, where nobody says it: the newest that is known here.
const VERSION: &str = "v1.36.0";

/// What `keadm manifest` says; `generate` as KubeEdge has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Word {
    /// Prints, as without it.
    Generate,
}

/// `keadm manifest`.
#[derive(Debug, Args)]
pub struct Manifest {
    /// As KubeEdge has it; it says nothing more
    #[arg(hide = true, value_enum)]
    word: Option<Word>,
    /// What is installed.
    #[command(flatten)]
    chart: ChartArgs,
    /// Leave out the definitions of the custom resources
    #[arg(long)]
    skip_crds: bool,
    /// For a cluster of this version, as 1.33; the newest if neither this nor --kube-config is given
    #[arg(long, conflicts_with = "kube_config")]
    kube_version: Option<String>,
    /// For the cluster of this kubeconfig, which is asked what it can
    #[arg(long)]
    kube_config: Option<std::path::PathBuf>,
}

/// Prints the objects, in the order in which they are to be applied.
///
/// # Errors
/// When the values are not right, or the cluster does not answer.
pub async fn manifest(order: &Manifest, say: &mut dyn FnMut(String)) -> Result<()> {
    let values = order.chart.values()?;
    let capabilities = match &order.kube_config {
        Some(path) => Cluster::ask(&crate::client(Some(path)).await?).await?.capabilities(),
        None => {
            let version = order.kube_version.clone().unwrap_or_else(|| VERSION.to_owned());
            Capabilities { version, kinds: Vec::new() }
        }
    };
    let namespace = &order.chart.namespace;
    let objects = super::chart_args::rendered(&values, &capabilities, namespace)?;
    say(yaml(&values, objects, namespace, order.skip_crds)?);
    Ok(())
}

/// The namespace, the definitions, and the objects, each with whose it is.
pub(crate) fn yaml(
    values: &Value,
    mut objects: Vec<Value>,
    namespace: &str,
    skip_crds: bool,
) -> Result<String> {
    let mut documents = vec![serde_saphyr::to_string(&helmchart::namespace(values, namespace))?];
    if !skip_crds {
        for definition in crd::manifests() {
            documents.push(crd::to_yaml(&definition)?);
        }
    }
    for object in &mut objects {
        helmchart::owned(object, namespace);
        documents.push(serde_saphyr::to_string(object)?);
    }
    let documents: Vec<&str> = documents.iter().map(|document| document.trim_end()).collect();
    Ok(documents.join("\n---\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        order: Manifest,
    }

    async fn printed(words: &[&str]) -> Result<Vec<Value>> {
        let words = ["keadm", "--advertise-address=192.0.2.10"].iter().chain(words);
        let order = Cli::try_parse_from(words)?.order;
        let mut text = String::new();
        manifest(&order, &mut |line| text.push_str(&line)).await?;
        Ok(serde_saphyr::from_multiple(&text)?)
    }

    #[actix_rt::test]
    async fn what_is_printed_reads_back_as_what_is_installed() {
        let all = printed(&["generate"]).await.unwrap();
        let mut wanted = vec![helmchart::namespace(&serde_json::json!({}), "kubeedge")];
        for definition in crd::manifests() {
            let mut definition = serde_json::to_value(definition).unwrap();
            crd::without_nulls(&mut definition);
            wanted.push(definition);
        }
        let args =
            ChartArgs { advertise_address: vec!["192.0.2.10".parse().unwrap()], ..ChartArgs::default() };
        let values = args.values().unwrap();
        let capabilities = Capabilities { version: VERSION.to_owned(), kinds: Vec::new() };
        for mut object in helmchart::render(&values, &capabilities, "kubeedge").unwrap() {
            helmchart::owned(&mut object, "kubeedge");
            wanted.push(object);
        }
        assert_eq!(all, wanted);
        assert_eq!(printed(&["--skip-crds"]).await.unwrap().len(), all.len() - crd::manifests().len());
        // An older one has not the policies that are of 1.36, and needs a right to Secrets.
        let older = printed(&["--kube-version=1.33"]).await.unwrap();
        let has =
            |objects: &[Value], name: &str| objects.iter().any(|object| object["metadata"]["name"] == name);
        assert!(has(&all, "kubehive-edge-nodes-keep-pods") && !has(&all, "cloudcore-secrets"));
        assert!(!has(&older, "kubehive-edge-nodes-keep-pods") && has(&older, "cloudcore-secrets"));
        assert!(printed(&["--kube-version=new"]).await.is_err());
        // Beside KubeEdge's, in a namespace of its own.
        let beside = printed(&["--namespace=hive"]).await.unwrap();
        assert!(has(&beside, "hive-cloudcore") && beside[0]["metadata"]["name"] == "hive");
        let deployment = beside.iter().find(|object| object["kind"] == "Deployment").unwrap();
        assert!(
            helmchart::is_of_release(deployment, "hive") && deployment["metadata"]["namespace"] == "hive"
        );
        assert!(
            printed(&["--namespace=Hive"]).await.is_err() && printed(&["--namespace=default"]).await.is_err()
        );
    }
}
