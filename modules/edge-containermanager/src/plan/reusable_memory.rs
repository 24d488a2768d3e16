//! Memory of init containers that the containers after them may have, too. Pure.

use std::collections::BTreeMap;

use contract::containermanager::ContainerKind;

use crate::plan::allocation::{ContainerAllocation, MemoryBlock};
use crate::plan::topology::NumaMask;

/// The NUMA nodes of a block.
pub(crate) fn mask_of(block: &MemoryBlock) -> NumaMask {
    block.nodes.iter().copied().collect()
}

/// What init containers have had, and the containers after them may have, too.
#[derive(Debug, Default)]
pub(crate) struct ReusableMemory(BTreeMap<(NumaMask, String), u64>);

impl ReusableMemory {
    /// How much of it there is on a set of nodes.
    pub(crate) fn of(&self, nodes: NumaMask, kind: &str) -> u64 {
        self.0.get(&(nodes, kind.to_owned())).copied().unwrap_or(0)
    }

    /// How much of a block was another's before.
    pub(crate) fn of_block(&self, block: &MemoryBlock) -> u64 {
        self.of(mask_of(block), &block.kind).min(block.bytes)
    }

    /// A container has got what it gets.
    pub(crate) fn passed(&mut self, kind: ContainerKind, has: &ContainerAllocation) {
        for block in &has.memory {
            let left = self.0.entry((mask_of(block), block.kind.clone())).or_default();
            *left = match kind {
                ContainerKind::Init => (*left).max(block.bytes),
                ContainerKind::Sidecar | ContainerKind::Main => left.saturating_sub(block.bytes),
            };
        }
    }
}
