//! Huge pages: which sizes the machine has, and what a container may have of them.

use std::collections::BTreeMap;
use std::path::Path;

use apimachinery::Quantity;
use cri::v1::HugepageLimit;
use k8s_openapi::api::core::v1::ResourceRequirements;

use crate::runtime::resources::quantity;

/// How the resources of Kubernetes begin that are huge pages: `hugepages-2Mi`.
pub(crate) const PREFIX: &str = "hugepages-";

/// How many bytes there are of each size of page, by the size in bytes. Blocks. `folder`: `/sys/kernel/mm/hugepages`.
pub(crate) fn of_machine(folder: &Path) -> BTreeMap<u64, u64> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let of_size = |entry: std::fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let kilobytes: u64 = name.strip_prefix(PREFIX)?.strip_suffix("kB")?.parse().ok()?;
        let size = kilobytes.checked_mul(1024)?;
        let pages: u64 =
            std::fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
        Some((size, pages.saturating_mul(size)))
    };
    entries.filter_map(of_size).collect()
}

/// The resource of pages of a size: `hugepages-2Mi`.
pub(crate) fn resource(size: u64) -> String {
    format!("{PREFIX}{}", Quantity::binary_text(size))
}

/// The size as the kernel's files name it: `2MB`.
pub(crate) fn kernel_name(size: u64) -> String {
    let text = Quantity::binary_text(size);
    format!("{}B", text.strip_suffix('i').unwrap_or(&text))
}

/// The size of a resource's pages, in bytes; `None`: it is none of huge pages.
pub(crate) fn size_of(resource: &str) -> Option<u64> {
    let size: Quantity = resource.strip_prefix(PREFIX)?.parse().ok()?;
    u64::try_from(size.units()).ok().filter(|size| *size > 0)
}

/// What a container may have of each size that the machine has: what it has a limit for, and nothing of the others (the kubelet's
/// `GetHugepageLimitsFromResources`). `whole`: what is said for its pod as a whole, which holds where the container says nothing.
pub(crate) fn limits(
    whole: Option<&ResourceRequirements>,
    resources: Option<&ResourceRequirements>,
    sizes: &[u64],
) -> Vec<HugepageLimit> {
    let of = |of: Option<&ResourceRequirements>| of.and_then(|own| own.limits.clone()).unwrap_or_default();
    let limits: BTreeMap<u64, u64> = of(whole)
        .iter()
        .chain(&of(resources))
        .filter_map(|(name, amount)| {
            Some((size_of(name)?, u64::try_from(quantity(amount)?.units()).unwrap_or(0)))
        })
        .collect();
    let of_size = |size: &u64| HugepageLimit {
        page_size: kernel_name(*size),
        limit: limits.get(size).copied().unwrap_or(0),
    };
    sizes.iter().map(of_size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes_have_a_name_in_kubernetes_and_one_in_the_kernel() {
        for (size, resource_name, file_name) in [
            (2 << 20, "hugepages-2Mi", "2MB"),
            (1 << 30, "hugepages-1Gi", "1GB"),
            (64 << 10, "hugepages-64Ki", "64KB"),
            (16 << 30, "hugepages-16Gi", "16GB"),
        ] {
            assert_eq!((resource(size).as_str(), kernel_name(size).as_str()), (resource_name, file_name));
            assert_eq!(size_of(resource_name), Some(size));
        }
        assert_eq!([size_of("cpu"), size_of("hugepages-"), size_of("hugepages-0")], [None; 3]);
    }

    #[test]
    fn the_machine_says_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        for (name, pages) in [("hugepages-2048kB", "3\n"), ("hugepages-1048576kB", "0\n"), ("other", "1")] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("nr_hugepages"), pages).unwrap();
        }
        assert_eq!(of_machine(dir.path()), BTreeMap::from([(2 << 20, 6 << 20), (1 << 30, 0)]));
        assert!(of_machine(Path::new("/nowhere")).is_empty());
    }

    #[test]
    fn a_container_has_what_it_has_a_limit_for_and_nothing_else() {
        let own: ResourceRequirements =
            serde_json::from_value(json!({"limits": {"hugepages-2Mi": "4Mi", "cpu": "1"}})).unwrap();
        let whole: ResourceRequirements =
            serde_json::from_value(json!({"limits": {"hugepages-2Mi": "8Mi", "hugepages-1Gi": "1Gi"}}))
                .unwrap();
        let of = |whole: Option<&ResourceRequirements>, own: Option<&ResourceRequirements>| {
            let limits = limits(whole, own, &[2 << 20, 1 << 30]);
            limits.into_iter().map(|own| (own.page_size, own.limit)).collect::<Vec<_>>()
        };
        let of_sizes = |small, large| [("2MB".to_owned(), small), ("1GB".to_owned(), large)];
        assert_eq!(of(None, Some(&own)), of_sizes(4 << 20, 0));
        assert_eq!(of(Some(&whole), Some(&own)), of_sizes(4 << 20, 1 << 30));
    }
}
