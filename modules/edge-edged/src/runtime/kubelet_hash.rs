//! The hash by which a kubelet (since 1.31, and so KubeEdge's edged since 1.22) tells whether a container is still what its pod says.
//!
//! It is FNV-1a, 32 bits, over what Go's printer makes of the bytes of a JSON object with the container's image and name. Both
//! sides of a move write and read it: a container that KubeEdge made goes on under Edged, and one of Edged's under KubeEdge.

use k8s_openapi::api::core::v1::Container;

/// The kubelet's hash of a container's definition.
pub(crate) fn of(container: &Container) -> u64 {
    let image = container.image.as_deref().unwrap_or_default();
    // Go's encoder sorts the keys of a map.
    let json = format!("{{\"image\":{},\"name\":{}}}", text(image), text(&container.name));
    let mut hash = Fnv32::default();
    hash.add(b"([]uint8)[");
    for (at, byte) in json.bytes().enumerate() {
        if at > 0 {
            hash.add(b" ");
        }
        hash.add(byte.to_string().as_bytes());
    }
    hash.add(b"]");
    u64::from(hash.0)
}

/// A text as Go's encoder writes it: fit for HTML, too. No image and no name that an API server takes has any of these letters.
fn text(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

struct Fnv32(u32);

impl Default for Fnv32 {
    fn default() -> Self {
        Fnv32(0x811c_9dc5)
    }
}

impl Fnv32 {
    fn add(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_kubelets() {
        let container = |name: &str, image: &str| Container {
            name: name.to_owned(),
            image: Some(image.to_owned()),
            ..Container::default()
        };
        // Of the kubelet's own test (TestHashContainer).
        assert_eq!(of(&container("test_container", "foo/image:v1")), 0x8e45_cbd0);
        assert_ne!(of(&container("test_container", "foo/image:v2")), 0x8e45_cbd0);
        let ports = k8s_openapi::api::core::v1::ContainerPort { container_port: 1, ..Default::default() };
        let more = Container { ports: Some(vec![ports]), ..container("test_container", "foo/image:v1") };
        assert_eq!(of(&more), 0x8e45_cbd0, "name and image alone");
    }
}
