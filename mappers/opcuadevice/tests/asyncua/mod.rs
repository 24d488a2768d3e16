//! An OPC UA server that we did not write: asyncua, from PyPI.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::time::{Duration, Instant};

use dmi::Scalar;

use crate::python::Script;

const PACKAGES: [&str; 12] = [
    "asyncua==2.1.0",
    "aiosqlite==0.22.1",
    "anyio==4.16.0",
    "cffi==2.1.1",
    "cryptography==50.0.2",
    "idna==3.20",
    "pycparser==3.12",
    "python-dateutil==4.0.0",
    "pytz==2026.6",
    "sortedcontainers==2.4.0",
    "typing_extensions==4.16.0",
    "wait_for2==0.4.1",
];
/// The namespace of its nodes.
pub(crate) const NAMESPACE: &str = "urn:kubehive:plant";

/// The server, its port, and the folder of its certificates.
pub(crate) struct Asyncua {
    pub(crate) script: Script,
    pub(crate) port: u16,
    pub(crate) folder: tempfile::TempDir,
}

impl Asyncua {
    /// One that wants nothing of anybody.
    pub(crate) fn open() -> Self {
        Asyncua::start("none", &[])
    }

    /// One with certificates and users, and without an endpoint that is not secured.
    pub(crate) fn secure() -> Self {
        Asyncua::start("secure", &[])
    }

    /// An open one of which some nodes are filled from the start, each as NAME=COUNT.
    pub(crate) fn filled(nodes: &[&str]) -> Self {
        Asyncua::start("none", nodes)
    }

    fn start(security: &str, filled: &[&str]) -> Self {
        let [port] = testhost::free_ports().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/asyncua/server.py");
        let port_text = port.to_string();
        let arguments = [&[port_text.as_str(), folder.path().to_str().unwrap(), security], filled].concat();
        let script = Script::start(&PACKAGES, &server, &arguments);
        assert_eq!(script.first, "ready");
        Asyncua { script, port, folder }
    }

    /// Waits until it answers this.
    #[track_caller]
    pub(crate) fn until(&mut self, command: &str, answer: &str) -> impl Future<Output = ()> {
        let at = std::panic::Location::caller();
        async move {
            let within = Instant::now() + Duration::from_secs(20);
            while self.script.ask(command) != answer {
                assert!(Instant::now() < within, "{at}: {command} is never {answer}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    pub(crate) fn certificate(&self) -> String {
        self.folder.path().join("server.der").display().to_string()
    }

    /// `protocol.configData`: where it is, and more.
    pub(crate) fn place(&self, more: &[(&'static str, &str)]) -> Vec<(&'static str, Scalar)> {
        let url = format!("opc.tcp://127.0.0.1:{}/plant", self.port);
        let more = more.iter().map(|(key, value)| (*key, text(value)));
        [("url", text(&url)), ("timeout", Scalar::Int(5))].into_iter().chain(more).collect()
    }
}

pub(crate) fn text(text: &str) -> Scalar {
    Scalar::Text(text.to_owned())
}

/// `visitors.configData` of a node of its.
pub(crate) fn node(name: &str) -> Vec<(&'static str, Scalar)> {
    vec![("nodeID", text(&format!("nsu={NAMESPACE};s={name}")))]
}
