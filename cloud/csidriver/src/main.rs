//! `csidriver`, with KubeEdge's flags.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use beehive::{Capacity, Ended, Env, Hive, Inspector, Policy};
use clap::Parser;
use contract::NodeName;
use contract::csi_node::is_driver_name;
use csidriver::{CsiDriver, KubeEdgeEndpoint, Settings, Way, api_client, socket_path};

#[derive(Parser)]
#[command(
    name = "csidriver",
    version = buildinfo::TEXT,
    about = "Brings the calls of CSI sidecars in the cloud to the driver on an edge node"
)]
struct Cli {
    /// Where the sidecars call: unix:// and an absolute path
    #[arg(long, default_value = "unix:///csi/csi.sock", value_parser = socket_path)]
    endpoint: PathBuf,
    /// The driver's name, as it is registered on the node
    #[arg(long, default_value = "csidriver", value_parser = driver_name)]
    drivername: String,
    /// The node whose driver makes, removes, attaches and detaches the volumes
    #[arg(long, value_parser = NodeName::parse)]
    nodeid: NodeName,
    /// By whom the node is reached: unix:// and the path of CloudCore's socket (modules.cloudHub.unixsocket), or https:// and the API
    /// server, as the pod's service account, which needs `create` on `nodes/proxy` of the node
    #[arg(long, default_value = "unix:///kubeedge/kubeedge.sock")]
    kubeedge_endpoint: KubeEdgeEndpoint,
    /// How much is logged: from 4 on, what happens at each connection, too. RUST_LOG wins over it
    #[arg(long, default_value_t = 2)]
    v: u8,
}

fn driver_name(text: &str) -> Result<String, &'static str> {
    if is_driver_name(text) {
        Ok(text.to_owned())
    } else {
        Err("this is not a name that CSI allows a driver")
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    daemon::main(if cli.v >= 4 { "debug" } else { "info" }, async move || run(cli).await)
}

async fn run(cli: Cli) -> Result<()> {
    let way = match cli.kubeedge_endpoint {
        KubeEdgeEndpoint::Socket(path) => Way::Socket(path),
        KubeEdgeEndpoint::ApiServer(url) => {
            let account = kube::Config::incluster();
            let account = account.context("not in a cluster: --kubeedge-endpoint is an API server")?;
            Way::ApiServer(api_client(account, &url)?)
        }
    };
    let settings = Settings { socket: cli.endpoint, driver: cli.drivername, node: cli.nodeid, way };
    let mut hive = Hive::new("csidriver", Env::real());
    let mailbox = hive.mailbox("csidriver", Capacity::new(1, "its socket ends once"));
    hive.supervise(mailbox, Policy::default(), move || CsiDriver::new(settings.clone()));
    hive.open()?;
    daemon::serve(Daemon(hive)).await
}

struct Daemon(Hive);

impl daemon::Running for Daemon {
    async fn gave_up(&mut self) -> String {
        self.0.gave_up().await
    }

    fn inspector(&self) -> Inspector {
        self.0.inspector()
    }

    async fn stop(self, deadline: Duration) -> Ended {
        self.0.shutdown(deadline).await
    }
}
