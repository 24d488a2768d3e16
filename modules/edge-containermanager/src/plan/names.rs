//! Which names a plugin may register. Pure.

use apimachinery::names::is_extended_resource;

/// The one version of the interface that is spoken.
pub(crate) const VERSION: &str = "v1beta1";
/// 107 bytes of a socket's path, besides its end (Linux).
const PATH_MAX: usize = 107;

/// Why a registration is not taken, in the kubelet's words where it has some.
pub(crate) fn refusal(
    version: &str,
    resource: &str,
    endpoint: &str,
    folder: &std::path::Path,
) -> Option<String> {
    if version != VERSION {
        return Some(format!(
            "requested API version {version:?} is not supported by kubelet. Supported version is [\"{VERSION}\"]"
        ));
    }
    if !is_extended_resource(resource) {
        return Some(format!("the ResourceName {resource:?} is invalid"));
    }
    // A kubelet joins whatever it is told; here a plugin listens in the plugins' folder.
    if endpoint.is_empty() || endpoint.contains(['/', '\0']) || endpoint == "." || endpoint == ".." {
        return Some(format!(
            "the endpoint {endpoint:?} is not the name of a socket in {}",
            folder.display()
        ));
    }
    if folder.as_os_str().len() + 1 + endpoint.len() > PATH_MAX {
        return Some(format!("the endpoint {endpoint:?} is longer than the path of a socket may be"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_plugin_has_an_extended_resource_and_a_socket_in_the_folder() {
        let folder = Path::new("/var/lib/kubelet/device-plugins");
        let refusal = |version, resource, endpoint| refusal(version, resource, endpoint, folder);
        assert_eq!(refusal("v1beta1", "nvidia.com/gpu", "nvidia-gpu.sock"), None);
        assert_eq!(refusal("v1beta1", "example.com/Foo_1.x", "a"), None);
        assert_eq!(
            refusal("v1alpha1", "nvidia.com/gpu", "a").unwrap(),
            "requested API version \"v1alpha1\" is not supported by kubelet. Supported version is [\"v1beta1\"]"
        );
        let long = format!("{}/x", "a".repeat(245));
        for name in
            ["cpu", "memory", "pods", "", "/x", "x/", "requests.example.com/x", "kubernetes.io/x", &long]
                .into_iter()
                .chain(["a.kubernetes.io/x", "ex ample.com/x", "example.com/-x", "example.com/x/y"])
        {
            assert_eq!(
                refusal("v1beta1", name, "a").unwrap(),
                format!("the ResourceName {name:?} is invalid")
            );
        }
        for endpoint in ["", "..", "../x.sock", "/run/containerd/containerd.sock", "a/b"] {
            assert!(
                refusal("v1beta1", "example.com/x", endpoint).unwrap().contains("not the name of a socket")
            );
        }
        assert!(refusal("v1beta1", "example.com/x", &"a".repeat(80)).unwrap().contains("longer"));
    }
}
