//! What is right for the part of the kubelet's configuration that is honoured.

use crate::KubeletDuration;
use crate::edge::{Edged, ImageVerification, TailoredKubeletConfig};
use crate::error::{Defect, kubelet_key as key};
use crate::{registration, reserved};

/// Of each container 16 instances are looked at: one that runs, one that begins, and these.
const DEAD_MAX: i32 = 14;
/// What changes between two looks is told by the kernel.
const CHECK_MIN: KubeletDuration = KubeletDuration::from_secs(1);
/// As the kubelet's.
const SHUTDOWN_MIN: KubeletDuration = KubeletDuration::from_secs(1);
/// As the kubelet's: its numbers have 32 bits with a sign.
const INT_MAX: u32 = i32::MAX as u32;
/// 1 KiB: below it each look would rotate each log.
const LOG_SIZE_MIN: u64 = 1 << 10;
/// 1 s between two measurings of volumes: each reads all files of a pod.
const VOLUME_STATS_MIN: KubeletDuration = KubeletDuration::from_secs(1);
/// As the kubelet's.
const LOG_INTERVAL_MIN: KubeletDuration = KubeletDuration::from_secs(3);

/// What is wrong there.
pub(crate) fn defects(edged: &Edged) -> Vec<Defect> {
    let mut defects = Vec::new();
    let kubelet = &edged.tailored_kubelet_config;
    without_effect(edged, &mut defects);
    if edged.max_per_pod_container_count > DEAD_MAX {
        let what = format!("is {}; it must be at most {DEAD_MAX}", edged.max_per_pod_container_count);
        defects.push(Defect::new("modules.edged.maxPerPodContainerCount", what));
    }
    kubelet.tracing.check("modules.edged.tailoredKubeletConfig.tracing", &mut defects);
    static_pods(kubelet, &mut defects);
    shutdown(kubelet, &mut defects);
    address(kubelet, &mut defects);
    sysctls(kubelet, &mut defects);
    images(kubelet, &mut defects);
    logs(kubelet, &mut defects);
    amounts(kubelet, &mut defects);
    collection(kubelet, &mut defects);
    eviction(kubelet, &mut defects);
    reserved::defects(edged, &mut defects);
    registration::defects(edged, &mut defects);
    defects
}

/// Keys of KubeEdge's that do nothing here: their default says so, and anything else would be a promise.
fn without_effect(edged: &Edged, defects: &mut Vec<Defect>) {
    let default = Edged::default();
    if edged.pod_sandbox_image != default.pod_sandbox_image {
        let image = &edged.pod_sandbox_image;
        defects.push(Defect::new(
            "modules.edged.podSandboxImage",
            format!("is `{image}` and has no effect: name the image in the runtime's own config (containerd: sandbox_image)"),
        ));
    }
}

fn static_pods(kubelet: &TailoredKubeletConfig, defects: &mut Vec<Defect>) {
    let path = &kubelet.static_pod_path;
    if !path.as_os_str().is_empty() && !path.is_absolute() {
        let what = format!("is `{}`; it must begin with `/`", path.display());
        defects.push(Defect::new(&key("staticPodPath"), what));
    }
    if kubelet.file_check_frequency < CHECK_MIN {
        let what = format!("is {}; it must be at least {CHECK_MIN}", kubelet.file_check_frequency);
        defects.push(Defect::new(&key("fileCheckFrequency"), what));
    }
}

/// The kubelet's rules, and that no two groups are one.
fn shutdown(kubelet: &TailoredKubeletConfig, defects: &mut Vec<Defect>) {
    let (total, critical) = (kubelet.shutdown_grace_period, kubelet.shutdown_grace_period_critical_pods);
    if total != KubeletDuration::default() && total < SHUTDOWN_MIN {
        let what = format!("is {total}; it must be 0s or at least {SHUTDOWN_MIN}");
        defects.push(Defect::new(&key("shutdownGracePeriod"), what));
    }
    if critical != KubeletDuration::default() && critical < SHUTDOWN_MIN {
        let what = format!("is {critical}; it must be 0s or at least {SHUTDOWN_MIN}");
        defects.push(Defect::new(&key("shutdownGracePeriodCriticalPods"), what));
    }
    if critical > total {
        let what = format!("is {critical}; it must be at most shutdownGracePeriod, {total}");
        defects.push(Defect::new(&key("shutdownGracePeriodCriticalPods"), what));
    }
    let groups = &kubelet.shutdown_grace_period_by_pod_priority;
    let by_priority = key("shutdownGracePeriodByPodPriority");
    if !groups.is_empty() && total != KubeletDuration::default() {
        defects.push(Defect::new(&by_priority, "has no meaning beside shutdownGracePeriod: choose one"));
    }
    let mut seen = std::collections::BTreeSet::new();
    for group in groups.iter().filter(|group| !seen.insert(group.priority)) {
        defects.push(Defect::new(&by_priority, format!("has the priority {} twice", group.priority)));
    }
}

/// A token that is shown in plain HTTP stays on the machine.
fn address(kubelet: &TailoredKubeletConfig, defects: &mut Vec<Defect>) {
    let ip = kubelet.address.parse::<std::net::IpAddr>();
    if !ip.is_ok_and(|ip| ip.is_loopback()) {
        defects.push(Defect::new(
            "modules.edged.tailoredKubeletConfig.address",
            format!(
                "is `{}`, not an address of loopback, as 127.0.0.1: others ask CloudCore",
                kubelet.address
            ),
        ));
    }
}

fn sysctls(kubelet: &TailoredKubeletConfig, defects: &mut Vec<Defect>) {
    let mut seen = std::collections::BTreeSet::new();
    for pattern in &kubelet.allowed_unsafe_sysctls {
        let name = pattern.replace('/', ".");
        // The kubelet's rule: only what belongs to a pod alone may be given to one.
        let namespaced = name == "kernel.sem"
            || ["kernel.shm", "kernel.msg", "fs.mqueue.", "net."].iter().any(|part| name.starts_with(part));
        let stem = name.strip_suffix('*').unwrap_or(&name);
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
        let key = "modules.edged.tailoredKubeletConfig.allowedUnsafeSysctls";
        if !namespaced || !stem.bytes().all(fits) || stem.contains("..") {
            let what = format!("has `{pattern}`, which is no sysctl that a pod has for itself");
            defects.push(Defect::new(key, what));
        } else if !seen.insert(name) {
            defects.push(Defect::new(key, format!("has `{pattern}` twice")));
        }
    }
}

fn images(kubelet: &TailoredKubeletConfig, defects: &mut Vec<Defect>) {
    let key = "modules.edged.tailoredKubeletConfig.preloadedImagesVerificationAllowlist";
    let list = &kubelet.preloaded_images_verification_allowlist;
    if !list.is_empty()
        && kubelet.image_pull_credentials_verification_policy
            != ImageVerification::NeverVerifyAllowlistedImages
    {
        defects.push(Defect::new(
            key,
            "has an effect with imagePullCredentialsVerificationPolicy NeverVerifyAllowlistedImages only",
        ));
    }
    for image in list {
        let stem = image.strip_suffix("/*").unwrap_or(image);
        let last = stem.rsplit('/').next().unwrap_or(stem);
        // A host may have a port.
        let bad_tag = last.contains([':', '@']) && (stem.contains('/') || stem == image);
        if stem.is_empty() || stem.contains('*') || bad_tag {
            let what = format!("has `{image}`, not a name without tag and digest, or a path and `/*`");
            defects.push(Defect::new(key, what));
        }
    }
}

fn logs(kubelet: &TailoredKubeletConfig, defects: &mut Vec<Defect>) {
    if kubelet.container_log_max_files < 2 {
        let what = format!("is {}; it must be at least 2", kubelet.container_log_max_files);
        defects.push(Defect::new(&key("containerLogMaxFiles"), what));
    }
    if kubelet.container_log_monitor_interval < LOG_INTERVAL_MIN {
        let what =
            format!("is {}; it must be at least {LOG_INTERVAL_MIN}", kubelet.container_log_monitor_interval);
        defects.push(Defect::new(&key("containerLogMonitorInterval"), what));
    }
}

fn amounts(kubelet: &TailoredKubeletConfig, defects: &mut Vec<Defect>) {
    for (name, value) in [
        ("maxPods", kubelet.max_pods),
        ("containerLogMaxFiles", kubelet.container_log_max_files),
        ("evictionMaxPodGracePeriod", kubelet.eviction_max_pod_grace_period),
    ] {
        if value > INT_MAX {
            defects.push(Defect::new(&key(name), format!("is {value}; it must be at most {INT_MAX}")));
        }
    }
    if let Some(bytes) = kubelet.container_log_max_size.0.filter(|bytes| *bytes < LOG_SIZE_MIN) {
        let what = format!("is {bytes}; it must be at least 1Ki, or -1 for no bound");
        defects.push(Defect::new(&key("containerLogMaxSize"), what));
    }
    let every = kubelet.volume_stats_agg_period;
    if every != KubeletDuration::default() && every < VOLUME_STATS_MIN {
        let what = format!("is {every}; it must be 0s (never) or at least {VOLUME_STATS_MIN}");
        defects.push(Defect::new(&key("volumeStatsAggPeriod"), what));
    }
}

fn collection(kubelet: &TailoredKubeletConfig, defects: &mut Vec<Defect>) {
    let (high, low) = (kubelet.image_gc_high_threshold_percent, kubelet.image_gc_low_threshold_percent);
    if high > 100 {
        defects.push(Defect::new(
            &key("imageGCHighThresholdPercent"),
            format!("is {high}; it must be at most 100"),
        ));
    }
    if low >= high {
        let what = format!("is {low}; it must be less than imageGCHighThresholdPercent, {high}");
        defects.push(Defect::new(&key("imageGCLowThresholdPercent"), what));
    }
    let (least, most) = (kubelet.image_minimum_gc_age, kubelet.image_maximum_gc_age);
    if most != KubeletDuration::default() && most <= least {
        let what = format!("is {most}; it must be 0s, or more than imageMinimumGCAge, {least}");
        defects.push(Defect::new(&key("imageMaximumGCAge"), what));
    }
}

/// A soft bound and its grace period come together.
fn eviction(kubelet: &TailoredKubeletConfig, defects: &mut Vec<Defect>) {
    let (soft, grace) = (&kubelet.eviction_soft, &kubelet.eviction_soft_grace_period);
    for ((signal, bound), (_, grace)) in soft.named().into_iter().zip(grace.named()) {
        match (bound, grace) {
            (Some(_), None) => defects.push(Defect::new(
                &key(&format!("evictionSoft.{signal}")),
                "needs the same key in evictionSoftGracePeriod",
            )),
            (None, Some(_)) => defects.push(Defect::new(
                &key(&format!("evictionSoftGracePeriod.{signal}")),
                "has no effect without the same key in evictionSoft",
            )),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::EdgeCore;

    #[test]
    fn only_a_pods_own_sysctls_can_be_allowed() {
        let config = |list: &[&str]| {
            let mut config = EdgeCore::default();
            config.modules.edged.tailored_kubelet_config.allowed_unsafe_sysctls =
                list.iter().map(|name| (*name).to_owned()).collect();
            config.defects().len()
        };
        assert_eq!(config(&["kernel.msg*", "net.*", "kernel/shmmax", "kernel.sem", "fs.mqueue.msg_max"]), 0);
        for bad in
            ["kernel.*", "vm.swappiness", "*", "", "net.core.so max", "net..x", "net.*.x", "kernel.semi"]
        {
            assert_eq!(config(&[bad]), 1, "{bad}");
        }
        assert_eq!(config(&["net.a", "net/a"]), 1);
    }

    #[test]
    fn a_list_of_images_without_its_policy_is_refused() {
        let mut config = EdgeCore::default();
        let kubelet = &mut config.modules.edged.tailored_kubelet_config;
        kubelet.preloaded_images_verification_allowlist =
            vec!["r.example:5000/a".to_owned(), "r.example/b/*".to_owned(), "r.example:5000/*".to_owned()];
        assert_eq!(config.defects().len(), 1);
        let kubelet = &mut config.modules.edged.tailored_kubelet_config;
        kubelet.image_pull_credentials_verification_policy = ImageVerification::NeverVerifyAllowlistedImages;
        assert_eq!(config.defects(), []);
        let kubelet = &mut config.modules.edged.tailored_kubelet_config;
        kubelet.preloaded_images_verification_allowlist =
            vec!["r.example/a:1".to_owned(), "*".to_owned(), "busybox:1".to_owned()];
        assert_eq!(config.defects().len(), 3);
    }

    #[test]
    fn agents_are_served_on_loopback_alone() {
        let mut config = EdgeCore::default();
        for (address, wrong) in [("127.0.0.1", 0), ("::1", 0), ("0.0.0.0", 1), ("192.0.2.1", 1), ("", 1)] {
            config.modules.edged.tailored_kubelet_config.address = address.to_owned();
            assert_eq!(config.defects().len(), wrong, "{address}");
        }
    }

    #[test]
    fn the_times_of_a_shutdown_fit_together() {
        let of = |total: u64, critical: u64, groups: &[i32]| {
            let mut config = EdgeCore::default();
            let kubelet = &mut config.modules.edged.tailored_kubelet_config;
            kubelet.shutdown_grace_period = KubeletDuration::from_secs(total);
            kubelet.shutdown_grace_period_critical_pods = KubeletDuration::from_secs(critical);
            kubelet.shutdown_grace_period_by_pod_priority = groups
                .iter()
                .map(|priority| crate::edge::ShutdownGracePeriod {
                    priority: *priority,
                    shutdown_grace_period_seconds: 1,
                })
                .collect();
            config.defects().len()
        };
        assert_eq!([of(0, 0, &[]), of(30, 10, &[]), of(0, 0, &[1, 2])], [0, 0, 0]);
        let mut config = EdgeCore::default();
        let kubelet = &mut config.modules.edged.tailored_kubelet_config;
        kubelet.shutdown_grace_period = KubeletDuration::from_secs(30);
        kubelet.shutdown_grace_period_critical_pods = KubeletDuration(std::time::Duration::from_millis(1));
        assert_eq!(config.defects().len(), 1, "as a kubelet: 0s, or a second");
        assert_eq!([of(30, 31, &[]), of(0, 1, &[]), of(30, 0, &[1]), of(0, 0, &[1, 1])], [1, 1, 1, 1]);
    }

    #[test]
    fn amounts_are_within_what_a_kubelet_takes() {
        let keys = |change: fn(&mut TailoredKubeletConfig)| -> Vec<String> {
            let mut config = EdgeCore::default();
            change(&mut config.modules.edged.tailored_kubelet_config);
            config.defects().into_iter().map(|defect| defect.key.replace(&key(""), "")).collect()
        };
        let nanosecond = |kubelet: &mut TailoredKubeletConfig| {
            kubelet.volume_stats_agg_period = KubeletDuration(std::time::Duration::from_nanos(1));
        };
        assert_eq!(keys(nanosecond), ["volumeStatsAggPeriod"]);
        assert_eq!(keys(|kubelet| kubelet.volume_stats_agg_period = KubeletDuration::default()), [""; 0]);
        assert_eq!(keys(|kubelet| kubelet.max_pods = u32::MAX), ["maxPods"]);
        assert_eq!(
            keys(|kubelet| kubelet.eviction_max_pod_grace_period = u32::MAX),
            ["evictionMaxPodGracePeriod"]
        );
        assert_eq!(
            keys(|kubelet| kubelet.container_log_max_size = crate::FileSize(Some(1))),
            ["containerLogMaxSize"]
        );
        assert_eq!(keys(|kubelet| kubelet.container_log_max_size = crate::FileSize(None)), [""; 0]);
        let mut config = EdgeCore::default();
        for (heartbeat, wrong) in [(0, 1), (3600, 0), (u32::MAX, 1)] {
            config.modules.edge_hub.heartbeat = heartbeat;
            assert_eq!(config.defects().len(), wrong, "{heartbeat}");
        }
    }

    #[test]
    fn a_key_without_effect_is_refused_by_its_name() {
        let mut config = EdgeCore::default();
        config.modules.edged.pod_sandbox_image = "mirror.example/pause:3.9".to_owned();
        let keys: Vec<String> = config.defects().into_iter().map(|defect| defect.key).collect();
        assert_eq!(keys, ["modules.edged.podSandboxImage"]);
    }

    #[test]
    fn bounds_of_housekeeping_must_make_sense() {
        let mut config = EdgeCore::default();
        let kubelet = &mut config.modules.edged.tailored_kubelet_config;
        kubelet.container_log_max_files = 1;
        kubelet.container_log_monitor_interval = KubeletDuration::from_secs(2);
        kubelet.image_gc_low_threshold_percent = 85;
        kubelet.eviction_soft.memory_available = Some(crate::Threshold::Amount(1));
        kubelet.eviction_soft_grace_period.pid_available = Some(KubeletDuration::from_secs(1));
        kubelet.image_maximum_gc_age = KubeletDuration::from_secs(60);
        let keys: Vec<String> = config.defects().into_iter().map(|defect| defect.key).collect();
        let last = |key: &String| key.rsplit("Config.").next().unwrap_or_default().to_owned();
        assert_eq!(
            keys.iter().map(last).collect::<Vec<_>>(),
            [
                "containerLogMaxFiles",
                "containerLogMonitorInterval",
                "imageGCLowThresholdPercent",
                "imageMaximumGCAge",
                "evictionSoft.memory.available",
                "evictionSoftGracePeriod.pid.available",
            ]
        );
    }
}
