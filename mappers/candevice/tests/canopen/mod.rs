//! A CANopen node that we did not write: canopen's, from PyPI, on the bus of a stand-in.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Mutex;

use dmi::Scalar;

use crate::hub::Hub;
use crate::python::Script;

const PACKAGES: [&str; 5] =
    ["canopen==2.4.1", "python-can==4.6.1", "packaging==26.4", "typing_extensions==4.16.0", "wrapt==1.17.3"];
pub(crate) const NODE: i64 = 5;

/// The node; switched off it has forgotten everything.
pub(crate) struct CanOpenNode {
    pub(crate) hub: Hub,
    script: Mutex<Option<Script>>,
}

impl CanOpenNode {
    pub(crate) async fn start() -> Self {
        let node = CanOpenNode { hub: Hub::start().await, script: Mutex::default() };
        node.switch(true).await;
        node
    }

    pub(crate) async fn switch(&self, on: bool) {
        drop(self.script.lock().unwrap().take());
        if on {
            let port = self.hub.port.to_string();
            // It waits for the stand-in, which is on this runtime.
            let started = tokio::task::spawn_blocking(move || {
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/canopen/node.py");
                Script::start(&PACKAGES, &script, &[&port, &NODE.to_string()])
            });
            let started = started.await.unwrap();
            assert_eq!(started.first, "ready");
            *self.script.lock().unwrap() = Some(started);
        }
    }

    /// The bus, without the device.
    pub(crate) fn bus(&self) -> Vec<(&'static str, Scalar)> {
        let gateway = format!("127.0.0.1:{}", self.hub.port);
        vec![("interface", Scalar::Text("can0".to_owned())), ("gateway", Scalar::Text(gateway))]
    }

    pub(crate) fn place(&self) -> Vec<(&'static str, Scalar)> {
        [self.bus(), vec![("nodeID", Scalar::Int(NODE))]].concat()
    }

    pub(crate) fn ask(&self, command: &str) -> String {
        self.script.lock().unwrap().as_mut().unwrap().ask(command)
    }
}
