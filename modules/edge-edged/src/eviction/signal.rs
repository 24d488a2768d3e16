//! What is watched of what the node has left, in a kubelet's names. Pure.

use apimachinery::Quantity;

/// What is watched. The order is that in which it is acted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Signal {
    Memory,
    /// Of what pods together may have: all but what is reserved.
    AllocatableMemory,
    ImagefsAvailable,
    ImagefsInodesFree,
    NodefsAvailable,
    NodefsInodesFree,
    PidAvailable,
}

/// The conditions that the signals set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Memory,
    Disk,
    Pid,
}

impl Signal {
    /// Which of them it sets.
    pub(crate) fn condition(self) -> Condition {
        match self {
            Signal::Memory | Signal::AllocatableMemory => Condition::Memory,
            Signal::PidAvailable => Condition::Pid,
            Signal::ImagefsAvailable
            | Signal::ImagefsInodesFree
            | Signal::NodefsAvailable
            | Signal::NodefsInodesFree => Condition::Disk,
        }
    }

    /// As the configuration names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Signal::Memory => "memory.available",
            Signal::AllocatableMemory => "allocatableMemory.available",
            Signal::ImagefsAvailable => "imagefs.available",
            Signal::ImagefsInodesFree => "imagefs.inodesFree",
            Signal::NodefsAvailable => "nodefs.available",
            Signal::NodefsInodesFree => "nodefs.inodesFree",
            Signal::PidAvailable => "pid.available",
        }
    }

    /// What there is too little of, in the kubelet's words.
    pub(crate) fn resource(self) -> &'static str {
        match self {
            Signal::Memory | Signal::AllocatableMemory => "memory",
            Signal::ImagefsAvailable | Signal::NodefsAvailable => "ephemeral-storage",
            Signal::ImagefsInodesFree | Signal::NodefsInodesFree => "inodes",
            Signal::PidAvailable => "pids",
        }
    }

    /// Whether it is the disk that is full.
    pub(crate) fn is_of_disk(self) -> bool {
        self.condition() == Condition::Disk
    }

    /// Whether dead containers and images that nothing uses take up what there is too little of. `own_imagefs`: those have a
    /// file system of their own.
    pub(crate) fn is_reclaimed_from_images(self, own_imagefs: bool) -> bool {
        match self {
            Signal::ImagefsAvailable | Signal::ImagefsInodesFree => true,
            Signal::NodefsAvailable | Signal::NodefsInodesFree => !own_imagefs,
            Signal::Memory | Signal::AllocatableMemory | Signal::PidAvailable => false,
        }
    }

    /// An amount of it, exactly, as Kubernetes writes it.
    pub(crate) fn exact(self, amount: u64) -> String {
        match self {
            Signal::Memory
            | Signal::AllocatableMemory
            | Signal::ImagefsAvailable
            | Signal::NodefsAvailable => Quantity::binary_text(amount),
            Signal::ImagefsInodesFree | Signal::NodefsInodesFree | Signal::PidAvailable => {
                Quantity::decimal_text(amount)
            }
        }
    }

    /// The same for people.
    pub(crate) fn about(self, amount: u64) -> String {
        match self {
            Signal::Memory
            | Signal::AllocatableMemory
            | Signal::ImagefsAvailable
            | Signal::NodefsAvailable => Quantity::about(amount),
            Signal::ImagefsInodesFree | Signal::NodefsInodesFree | Signal::PidAvailable => amount.to_string(),
        }
    }
}

/// How much there is of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) signal: Signal,
    pub(crate) available: u64,
    pub(crate) capacity: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_inodes_are_written_each_in_their_way() {
        assert_eq!(Signal::NodefsAvailable.about(5 << 29), "2.5Gi");
        assert_eq!(Signal::NodefsInodesFree.about(1 << 20), "1048576");
    }
}
