//! A device that we did not write: bacpypes3, from PyPI.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Mutex;

use dmi::Scalar;

use crate::python::Script;

const PACKAGES: [&str; 1] = ["bacpypes3==0.0.110"];
/// Its instance.
pub(crate) const INSTANCE: u32 = 1234;

fn run(script: &str, arguments: &[&str]) -> Script {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bacpypes").join(script);
    let started = Script::start(&PACKAGES, &path, arguments);
    assert_eq!(started.first, "ready");
    started
}

/// A router at this port, and a device behind it.
pub(crate) fn router(port: u16) -> Script {
    run("router.py", &[&port.to_string()])
}

/// The device; switched off it has forgotten everything.
pub(crate) struct Bacpypes {
    pub(crate) port: u16,
    script: Mutex<Option<Script>>,
}

impl Bacpypes {
    pub(crate) fn start() -> Self {
        let [port] = testhost::free_ports().unwrap();
        let device = Bacpypes { port, script: Mutex::default() };
        device.switch(true);
        device
    }

    pub(crate) fn switch(&self, on: bool) {
        let mut script = self.script.lock().unwrap();
        *script = None;
        if on {
            *script = Some(run("server.py", &[&self.port.to_string(), &INSTANCE.to_string()]));
        }
    }

    /// Where it is, asked from a port of the mapper's own.
    pub(crate) fn place(&self) -> Vec<(&'static str, Scalar)> {
        vec![
            ("ip", Scalar::Text("127.0.0.1".to_owned())),
            ("port", Scalar::Int(self.port.into())),
            ("localPort", Scalar::Int(0)),
            ("timeoutMs", Scalar::Int(500)),
            ("retries", Scalar::Int(1)),
        ]
    }

    pub(crate) fn ask(&self, command: &str) -> String {
        self.script.lock().unwrap().as_mut().unwrap().ask(command)
    }

    #[track_caller]
    pub(crate) fn tell(&self, command: &str) {
        let answer = self.ask(command);
        assert_eq!(answer, "ok", "{command}");
    }
}
