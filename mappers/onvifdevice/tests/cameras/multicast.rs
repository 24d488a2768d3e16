//! A search by multicast, on a network of two namespaces. Needs root, as whatever makes namespaces.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;

use framework::host::Targets;
use framework::{Fault, Protocol as _, Scalar, Settings};
use onvifdevice::Onvif;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::python::{Script, python};

const PACKAGES: [&str; 2] = ["WSDiscovery==2.1.2", "ifaddr==0.2.0"];

/// Two namespaces and a cable between them; the first has another cable, too, at which nobody is.
struct Cable {
    here: String,
    there: String,
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments} (this needs root and Debian's iproute2): {said}");
}

impl Cable {
    fn lay() -> Self {
        let unique = std::process::id();
        let cable = Cable { here: format!("kh-onvif-a{unique}"), there: format!("kh-onvif-b{unique}") };
        let Cable { here, there } = &cable;
        ip(&format!("netns add {here}"));
        ip(&format!("netns add {there}"));
        ip(&format!("-n {here} link add cam0 type veth peer name cam0 netns {there}"));
        ip(&format!("-n {here} link add other0 type veth peer name other1"));
        ip(&format!("-n {here} address add 198.51.100.1/30 dev cam0"));
        ip(&format!("-n {there} address add 198.51.100.2/30 dev cam0"));
        ip(&format!("-n {here} address add 203.0.113.1/30 dev other0"));
        for link in ["other0", "other1", "cam0"] {
            ip(&format!("-n {here} link set {link} up"));
        }
        ip(&format!("-n {there} link set cam0 up"));
        // The publisher says hello, too, which has to lead somewhere.
        ip(&format!("-n {there} route add default dev cam0"));
        cable
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in [&self.here, &self.there] {
            drop(Command::new("ip").args(["netns", "delete", name]).output());
        }
    }
}

/// In a namespace, on a thread that ends with it.
fn within<T: Send + 'static>(namespace: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = File::open(format!("/run/netns/{namespace}")).unwrap();
    let moved = std::thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    });
    moved.join().unwrap()
}

#[test]
fn a_camera_is_called_on_each_interface_and_by_nobodys_route() {
    // Made where PyPI is.
    python(&PACKAGES);
    let cable = Cable::lay();
    let publisher = within(&cable.there, || {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wsdiscovery/publisher.py");
        Script::start(&PACKAGES, &script, &["http://198.51.100.2:8000/onvif/device_service"])
    });
    let reference = publisher.first.strip_prefix("ready ").unwrap().to_owned();
    let search = move |interface: Option<&'static str>| {
        let reference = reference.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let protocol = Onvif::beside(Path::new("/nowhere/m.sock"), Targets::default());
                let pairs = [("endpointReference", Some(reference.as_str())), ("interface", interface)];
                let pairs =
                    pairs.into_iter().filter_map(|(key, value)| Some((key, Scalar::Text(value?.to_owned()))));
                let address = protocol.address(&Settings::from_pairs(pairs)).unwrap();
                match protocol.connect(&address).await {
                    Err(Fault::NotSent(reason)) => reason,
                    other => panic!("{other:?}"),
                }
            })
        }
    };
    for interface in [None, Some("cam0")] {
        // It is found, and nobody has ONVIF there.
        let reason = within(&cable.here, search(interface));
        assert!(reason.contains("no connection to 198.51.100.2:8000"), "{interface:?}: {reason}");
    }
    let reason = within(&cable.here, search(Some("other0")));
    assert!(reason.contains("has answered within 4 s on other0"), "{reason}");
    let reason = within(&cable.here, search(Some("none0")));
    assert!(reason.contains("none0: No such device"), "{reason}");
}
