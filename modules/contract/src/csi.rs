//! What EdgeCsi accepts: CSI volumes that pods want mounted, and their end.

use std::collections::BTreeMap;

use beehive::{Message, Reply};

use crate::csi_call::CsiCall;
use crate::volume_stats::VolumeUsage;

/// How a volume may be used: that of a PersistentVolume which counts, its first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessMode {
    /// `ReadWriteOnce`
    #[default]
    ReadWriteOnce,
    /// `ReadWriteOncePod`
    ReadWriteOncePod,
    /// `ReadOnlyMany`
    ReadOnlyMany,
    /// `ReadWriteMany`
    ReadWriteMany,
}

/// A volume as a pod wants it. All of it is known: nothing is looked up for it any more.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct CsiVolume {
    /// The pod's uid.
    pub pod_uid: String,
    /// The PersistentVolume's name, or that of the pod's volume if it is inline. The folder is called so.
    pub name: String,
    /// The driver.
    pub driver: String,
    /// What the driver calls the volume.
    pub handle: String,
    /// The volume is made for the pod and goes with it: neither attached nor staged.
    pub is_inline: bool,
    /// The pod has it as a block device, without a file system.
    pub is_block: bool,
    /// It is mounted for reading alone.
    pub read_only: bool,
    /// The file system; empty: the driver's choice.
    pub fs_type: String,
    /// How it may be used.
    pub access_mode: AccessMode,
    /// Options of the mount.
    pub mount_options: Vec<String>,
    /// The volume's attributes.
    pub attributes: BTreeMap<String, String>,
    /// What comes to the attributes when it is published: the pod, its tokens.
    pub publish_attributes: BTreeMap<String, String>,
    /// What the attachment says.
    pub publish_context: BTreeMap<String, String>,
    /// For staging it.
    pub stage_secrets: BTreeMap<String, String>,
    /// For publishing it.
    pub publish_secrets: BTreeMap<String, String>,
    /// The group of the pod's files.
    pub fs_group: Option<u32>,
    /// The driver is asked again at each look at the pod (`requiresRepublish`).
    pub republish: bool,
}

/// Without the secrets and attributes, among which tokens are.
impl std::fmt::Debug for CsiVolume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CsiVolume")
            .field("pod_uid", &self.pod_uid)
            .field("name", &self.name)
            .field("driver", &self.driver)
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}

/// A volume that is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CsiMounted {
    /// The driver gave the files to the pod's group itself.
    pub has_group: bool,
    /// It was not mounted before, as far as is known: its files may still be nobody's.
    pub is_new: bool,
}

/// Why a volume is not mounted, or not unmounted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct CsiFault {
    /// The kubelet's name of the step: `MountVolume.MountDevice`, `MountVolume.SetUp`, ….
    pub step: &'static str,
    /// Why, in the kubelet's words.
    pub reason: String,
}

/// Why a volume is not larger (`pkg/volume/csi/expander.go`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpandFault {
    /// Its driver does not do that on nodes.
    NotSupported,
    /// It never will be: `InvalidArgument`, `OutOfRange`, `NotFound`.
    Infeasible(String),
    /// Not while it is in use: `FailedPrecondition`.
    InUse(String),
    /// Not this time.
    Failed(String),
    /// Nobody knows: it is asked again.
    Uncertain(String),
}

/// Messages to EdgeCsi.
pub enum CsiMsg {
    /// Mount it, if it is not. Safe to repeat at any time.
    Mount {
        /// Which.
        volume: Box<CsiVolume>,
        /// Done, or why not.
        reply: Reply<Result<CsiMounted, CsiFault>>,
    },
    /// Unmount the pod's volumes, all that are found on the disk. Nothing that is needed for it has to be known.
    Unmount {
        /// The pod's uid.
        pod_uid: String,
        /// Done, or why not.
        reply: Reply<Result<(), CsiFault>>,
    },
    /// Make what is on a volume as large as the volume is. It is mounted. Safe to repeat: a size that was reached is not asked for
    /// again.
    Expand {
        /// Which.
        volume: Box<CsiVolume>,
        /// How large it is to be, in bytes.
        size: i64,
        /// For the driver.
        secrets: BTreeMap<String, String>,
        /// Whether it was asked for now; or why it is not larger.
        reply: Reply<Result<bool, ExpandFault>>,
    },
    /// Say what a pod's volume holds.
    Stats {
        /// The pod's uid.
        pod_uid: String,
        /// The PersistentVolume's name, or that of the pod's volume if it is inline.
        name: String,
        /// What it holds; nothing where its driver doesn't say.
        reply: Reply<Result<Option<VolumeUsage>, CsiFault>>,
    },
    /// Call a driver's controller service, for whoever asks from the cloud. Safe to repeat: CSI has it so of each of these calls.
    Call {
        /// Which driver, and how.
        call: CsiCall,
        /// CSI's message, as gRPC-Web has it.
        body: Vec<u8>,
        /// The answer and the status, as gRPC-Web has them.
        reply: Reply<Vec<u8>>,
    },
    /// Tell Edged again which drivers there are.
    TellDrivers,
    /// Time to look for sockets of registrars.
    Look,
    /// What a look found: the sockets and the numbers by which another one in a place is known.
    Found(BTreeMap<String, (u64, u64)>),
}

/// Without what they carry: secrets are among it.
impl std::fmt::Debug for CsiMsg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Message for CsiMsg {
    fn name(&self) -> &'static str {
        match self {
            CsiMsg::Mount { .. } => "Mount",
            CsiMsg::Unmount { .. } => "Unmount",
            CsiMsg::Expand { .. } => "Expand",
            CsiMsg::Stats { .. } => "Stats",
            CsiMsg::Call { .. } => "Call",
            CsiMsg::TellDrivers => "TellDrivers",
            CsiMsg::Look => "Look",
            CsiMsg::Found(_) => "Found",
        }
    }
}
