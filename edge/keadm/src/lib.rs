//! Installs CloudCore into a cluster, joins nodes to it, and undoes both.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod absent;
mod admin;
mod batch;
mod cloud;
mod config_location;
mod config_update;
mod ctl;
mod debug;
mod device_method;
mod endpoints;
mod files;
mod https;
mod join;
mod kube_client;
mod kubeedge;
mod kubeedge_flags;
mod label_selector;
mod local;
mod logind;
mod machine;
mod node_page;
mod node_socket;
mod release;
mod reset;
mod store;
mod sync;
mod token;
mod upgrade;
mod version;

pub use absent::{absent, absent_of_ctl};
pub use admin::{adopt, bar, free, revoke, undo_adoption};
pub use batch::{BatchCommand, answer_ssh, batch};
pub use cloud::{
    ChartArgs, ImagesCommand, Init, Manifest, Teardown, init, manifest, namespace, namespace_of, show_images,
    teardown,
};
pub use config_location::ConfigLocation;
pub use config_update::{ConfigUpdate, config_update};
pub use ctl::CtlCommand;
pub use debug::{
    CheckArgs, CheckWith, CollectArgs, DebugCommand, DiagnoseCommand, DiagnoseNode, DiagnosePod, GetArgs,
    GetFormat, Kind, Topic, debug,
};
pub use device_method::{Callable, MethodArgs, call_method};
pub use endpoints::{CloudPorts, HubProtocol};
pub use files::read_token;
pub use join::{Join, join};
pub use kube_client::client;
pub use kubeedge::{Machine, back_to_kubeedge, came_from_kubeedge, join_from_kubeedge, kubeedge_node};
pub use kubeedge_flags::{NoKubeEdgeFlags, OfInit, OfJoin, OfReset, OfUpgrade, OfUpgradeAlone, Verb};
pub use local::{
    CommandEnded, DescribeCommand, DescribeDevices, DescribePods, EditCommand, EditDevice, Exec, GetCommand,
    GetDevices, GetPods, Logs, RestartCommand, RestartPods, describe, edit, exec, get, logs, restart,
};
pub use node_page::{PageArgs, page};
pub use node_socket::OfNode;
pub use release::{Confirm, Unhold, confirm, unhold};
pub use reset::{host_name, reset};
pub use store::{StoreCommand, show_store};
pub use sync::{Sync, show_sync};
pub use token::{TOKEN_LIFE, get_token, get_token_in, list_tokens, token_life, ttl, withdraw_token};
pub use upgrade::{BackupCommand, RollbackCommand, Upgrade, backup, rollback, upgrade};
pub use version::{VersionFormat, version};
