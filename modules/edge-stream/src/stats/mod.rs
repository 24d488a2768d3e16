//! What the node, its pods and their containers use: from the runtime, the kernel's cgroups and /proc.

pub(crate) mod cadvisor;
pub(crate) mod cgroup;
pub(crate) mod collect;
pub(crate) mod exposition;
pub(crate) mod image_names;
pub(crate) mod kubelet;
pub(crate) mod probes;
pub(crate) mod proc;
pub(crate) mod process;
pub(crate) mod processes;
pub(crate) mod rates;
pub(crate) mod resource;
pub(crate) mod sample;
pub(crate) mod series;
pub(crate) mod summary;
pub(crate) mod system;
#[cfg(test)]
pub(crate) mod testing;
