//! A PLC that we did not write: the server of python-snap7, from PyPI.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Mutex;

use dmi::Scalar;

use crate::python::Script;

const PACKAGES: [&str; 1] = ["python-snap7==3.3.0"];

/// The server; switched off it has forgotten everything.
pub(crate) struct Snap7 {
    pub(crate) port: u16,
    script: Mutex<Option<Script>>,
}

impl Snap7 {
    pub(crate) fn start() -> Self {
        let [port] = testhost::free_ports().unwrap();
        let plc = Snap7 { port, script: Mutex::default() };
        plc.switch(true);
        plc
    }

    pub(crate) fn switch(&self, on: bool) {
        let mut script = self.script.lock().unwrap();
        *script = None;
        if on {
            let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snap7/server.py");
            let started = Script::start(&PACKAGES, &server, &[&self.port.to_string()]);
            assert_eq!(started.first, "ready");
            *script = Some(started);
        }
    }

    pub(crate) fn place(&self) -> Vec<(&'static str, Scalar)> {
        vec![("ip", Scalar::Text("127.0.0.1".to_owned())), ("port", Scalar::Int(self.port.into()))]
    }

    /// So many bytes of an area.
    pub(crate) fn bytes(&self, area: &str, byte: usize, count: usize) -> Vec<u8> {
        let answer = self.script.lock().unwrap().as_mut().unwrap().ask(&format!("get {area} {byte} {count}"));
        let digits = |at: usize| u8::from_str_radix(&answer[at..at + 2], 16).unwrap();
        (0..answer.len()).step_by(2).map(digits).collect()
    }

    pub(crate) fn set(&self, area: &str, byte: usize, bytes: &[u8]) {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.script.lock().unwrap().as_mut().unwrap().tell(&format!("set {area} {byte} {digits}"));
    }
}
