//! The ten pods. Each has a token, a config map, a Secret, a pull secret and its own names, and something of its own.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::everything::plugin::{RESOURCE, VARIABLE};
use crate::pods;
use crate::testbed::NODE;

/// By name, as they are listed.
pub(super) const NAMES: [&str; 10] =
    ["device", "folders", "hooks", "host", "init", "mapper", "sidecar", "tcp", "web", "whole"];
/// All of them.
pub(super) const SELECTOR: &str = "story=everything";
/// The device behind the mapper.
pub(super) const DEVICE: &str = "room-1";
/// Which of its values moves by itself, ten times a second.
pub(super) const MOVES: &str = "pulses";
/// Where the mapper finds its device, within their pod.
const MODBUS: u16 = 5020;
/// The page of the pod that has the node's network.
const HOST_PORT: u16 = 18_081;
/// Where the programs lie in the mapper's pod.
const PROGRAMS: &str = "/opt/kubehive";

/// The pods and what else they need. `folder`: the node's; `binaries`: the programs under test.
pub(super) fn all(folder: &Path, binaries: &Path) -> Result<Vec<Value>> {
    let (folder, binaries) = (text(folder)?, text(binaries)?);
    let mut all = vec![mapper_settings(&folder), model(), room()];
    for name in NAMES {
        let mut spec = pods::spec();
        match name {
            "device" => device(&mut spec),
            "folders" => folders(&mut spec, &folder),
            "hooks" => hooks(&mut spec),
            "host" => host(&mut spec),
            "init" => init(&mut spec),
            "mapper" => mapper(&mut spec, &folder, &binaries),
            "sidecar" => sidecar(&mut spec),
            "tcp" => tcp(&mut spec),
            "web" => web(&mut spec),
            _ => whole(&mut spec),
        }
        all.push(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"story": "everything"}}, "spec": spec}));
    }
    Ok(all)
}

fn text(path: &Path) -> Result<String> {
    Ok(path.to_str().with_context(|| format!("{} is no text", path.display()))?.to_owned())
}

fn app(spec: &mut Value) -> &mut Value {
    &mut spec["containers"][0]
}

fn push(list: &mut Value, one: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(one);
    } else {
        *list = json!([one]);
    }
}

/// A probe each second.
fn probe(how: Value) -> Value {
    let mut probe = json!({"periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 30});
    if let (Some(probe), Some(how)) = (probe.as_object_mut(), how.as_object()) {
        probe.extend(how.clone());
    }
    probe
}

fn shell(script: &str) -> Value {
    json!({"exec": {"command": ["sh", "-c", script]}})
}

/// A page of its config map's files.
fn pages(port: u16) -> Value {
    json!(["httpd", "-f", "-p", port.to_string(), "-h", "/etc/settings"])
}

fn page(port: u16) -> Value {
    json!({"httpGet": {"path": "/round", "port": port}})
}

fn web(spec: &mut Value) {
    let app = app(spec);
    app["command"] = pages(80);
    for kind in ["startupProbe", "livenessProbe", "readinessProbe"] {
        app[kind] = probe(page(80));
    }
}

fn tcp(spec: &mut Value) {
    let app = app(spec);
    app["command"] = pages(8080);
    app["ports"] = json!([{"name": "pages", "containerPort": 8080}]);
    for kind in ["livenessProbe", "readinessProbe"] {
        app[kind] = probe(json!({"tcpSocket": {"port": "pages"}}));
    }
}

fn host(spec: &mut Value) {
    spec["hostNetwork"] = json!(true);
    let app = app(spec);
    app["command"] = pages(HOST_PORT);
    let mut page = page(HOST_PORT);
    page["httpGet"]["host"] = json!("127.0.0.1");
    app["readinessProbe"] = probe(page);
}

fn hooks(spec: &mut Value) {
    let app = app(spec);
    app["lifecycle"] = json!({"postStart": shell("echo begun > /begun"), "preStop": shell("rm /begun")});
    app["readinessProbe"] = probe(shell("test -s /begun && test -s /etc/secret/word"));
    app["livenessProbe"] = probe(shell("test -d /proc/1"));
}

fn init(spec: &mut Value) {
    let mount = json!([{"name": "made", "mountPath": "/made"}]);
    let step = |name: &str, script: &str| json!({"name": name, "image": testhost::BUSYBOX, "command": ["sh", "-c", script], "volumeMounts": mount});
    spec["initContainers"] =
        json!([step("first", "echo one > /made/file"), step("second", "echo two >> /made/file")]);
    push(&mut spec["volumes"], json!({"name": "made", "emptyDir": {}}));
    push(&mut app(spec)["volumeMounts"], mount[0].clone());
    app(spec)["readinessProbe"] = probe(shell("tail -n 1 /made/file | grep -q two"));
}

fn sidecar(spec: &mut Value) {
    spec["initContainers"] = json!([{
        "name": "side", "image": testhost::BUSYBOX, "restartPolicy": "Always", "command": pages(81),
        "volumeMounts": [{"name": "settings", "mountPath": "/etc/settings"}],
        "startupProbe": probe(page(81)), "readinessProbe": probe(page(81)),
    }]);
    app(spec)["readinessProbe"] = probe(shell("wget -qO- http://127.0.0.1:81/round"));
}

fn device(spec: &mut Value) {
    let app = app(spec);
    app["resources"] = json!({"limits": {RESOURCE: "1"}});
    app["readinessProbe"] = probe(shell(&format!("test -n \"${VARIABLE}\"")));
}

fn folders(spec: &mut Value, folder: &str) {
    let own = format!("{folder}/shared");
    push(
        &mut spec["volumes"],
        json!({"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
    );
    push(
        &mut spec["volumes"],
        json!({"name": "shared", "hostPath": {"path": own, "type": "DirectoryOrCreate"}}),
    );
    let app = app(spec);
    app["resources"] = json!({"limits": {"cpu": "100m", "memory": "32Mi"}});
    push(&mut app["volumeMounts"], json!({"name": "memory", "mountPath": "/memory"}));
    push(
        &mut app["volumeMounts"],
        json!({"name": "shared", "mountPath": "/shared", "subPathExpr": "of-$(POD_NAME)"}),
    );
    // What it keeps outlives the boots.
    app["readinessProbe"] = probe(shell("echo x > /memory/x && echo x >> /shared/kept"));
}

fn whole(spec: &mut Value) {
    spec["resources"] = json!({"limits": {"cpu": "200m", "memory": "64Mi"}});
    spec["securityContext"] = json!({"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000});
    push(&mut spec["volumes"], json!({"name": "given", "emptyDir": {}}));
    push(&mut app(spec)["volumeMounts"], json!({"name": "given", "mountPath": "/given"}));
    app(spec)["readinessProbe"] = probe(shell("test $(id -u) = 1000 && echo x > /given/x"));
}

/// A mapper as KubeEdge's users run theirs: a pod with the folder of `dmi.sock`; the device is the container beside it.
fn mapper(spec: &mut Value, folder: &str, binaries: &str) {
    let host =
        |name: &str, path: &str| json!({"name": name, "hostPath": {"path": path, "type": "Directory"}});
    push(&mut spec["volumes"], host("dmi", &format!("{folder}/dmi")));
    push(&mut spec["volumes"], host("programs", binaries));
    push(&mut spec["volumes"], json!({"name": "mapper", "configMap": {"name": "mapper"}}));
    let mut programs = json!([{"name": "programs", "mountPath": PROGRAMS, "readOnly": true}]);
    // Programs that are not linked with their C library find it here.
    for library in ["lib", "lib64"] {
        push(&mut spec["volumes"], host(library, &format!("/{library}")));
        push(&mut programs, json!({"name": library, "mountPath": format!("/{library}"), "readOnly": true}));
    }
    let app = app(spec);
    app["command"] = json!([format!("{PROGRAMS}/modbus-mapper"), "--config-file", "/etc/mapper/mapper.yaml"]);
    push(&mut app["volumeMounts"], json!({"name": "dmi", "mountPath": format!("{folder}/dmi")}));
    push(&mut app["volumeMounts"], json!({"name": "mapper", "mountPath": "/etc/mapper"}));
    for mount in programs.as_array().into_iter().flatten() {
        push(&mut app["volumeMounts"], mount.clone());
    }
    app["readinessProbe"] = probe(shell(&format!("test -S {folder}/dmi/modbus.sock")));
    push(
        &mut spec["containers"],
        json!({
            "name": "room", "image": testhost::BUSYBOX, "volumeMounts": programs,
            "command": [format!("{PROGRAMS}/modbus-simulator"), "--listen", format!("0.0.0.0:{MODBUS}")],
            "readinessProbe": probe(json!({"tcpSocket": {"port": MODBUS}})),
        }),
    );
}

fn mapper_settings(folder: &str) -> Value {
    let settings = format!(
        "grpc_server:\n  socket_path: {folder}/dmi/modbus.sock\ncommon:\n  name: modbus-mapper\n  version: v1.0.0\n  \
         api_version: v1.0.0\n  protocol: modbus\n  address: 127.0.0.1\n  edgecore_sock: {folder}/dmi/dmi.sock\n"
    );
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mapper"}, "data": {"mapper.yaml": settings}})
}

fn model() -> Value {
    json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": {"name": "room"},
        "spec": {"protocol": "modbus", "properties": [{"name": MOVES, "type": "INT", "accessMode": "ReadOnly"}]},
    })
}

fn room() -> Value {
    let visitor = json!({"register": "InputRegister", "offset": 4, "limit": 2, "scale": 1, "isSwap": false,
        "isRegisterSwap": false});
    json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": DEVICE},
        "spec": {
            "deviceModelRef": {"name": "room"}, "nodeName": NODE,
            "protocol": {"protocolName": "modbus",
                "configData": {"ip": "127.0.0.1", "port": MODBUS, "slaveID": 1}},
            "properties": [{"name": MOVES, "collectCycle": 500, "reportCycle": 500, "reportToCloud": true,
                "visitors": {"protocolName": "modbus", "configData": visitor}}],
        },
    })
}
