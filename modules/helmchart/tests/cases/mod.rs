//! Values that the chart is tried with.
#![allow(dead_code)]

use serde_json::Value;

/// Name, values, and the version of Kubernetes.
pub(crate) const CASES: &[(&str, &str, &str)] = &[
    ("plain", r#"{"cloudCore": {"modules": {"cloudHub": {"advertiseAddress": ["192.0.2.10"]}}}}"#, "1.36.2"),
    (
        "older",
        r#"{"cloudCore": {"modules": {"cloudHub": {"advertiseAddress": ["192.0.2.10", "2001:db8::1"]}}}}"#,
        "1.33.4",
    ),
    (
        "host network",
        r#"{"cloudCore": {"hostNetWork": true, "replicaCount": 3, "modules": {"cloudHub": {"advertiseAddress": ["192.0.2.10"]}}}}"#,
        "1.36.2",
    ),
    (
        "host ports",
        r#"{"cloudCore": {"hostPorts": true, "replicaCount": 1, "labels": {"a": "b"}, "annotations": {"c/d": "1"},
            "modules": {"cloudHub": {"advertiseAddress": ["192.0.2.10"]}}}}"#,
        "1.36.2",
    ),
    (
        "load balancer",
        r#"{"cloudCore": {"service": {"type": "LoadBalancer", "separateQuic": true, "annotations": {"x": "y: {z}"}, "loadBalancerClass": "a/b",
            "loadBalancerSourceRanges": ["192.0.2.0/24"], "externalTrafficPolicy": "Local", "cloudhubNodePort": 0},
            "modules": {"cloudHub": {"advertiseAddress": ["192.0.2.10"]}}}}"#,
        "1.36.2",
    ),
    (
        "cluster address",
        r#"{"cloudCore": {"service": {"type": "ClusterIP"}, "modules": {"cloudHub": {"advertiseAddress": ["192.0.2.10"]}}},
            "networkPolicy": {"enable": false}, "podDisruptionBudget": {"enable": false}}"#,
        "1.36.2",
    ),
    (
        "ports",
        r#"{"cloudCore": {"modules": {"cloudHub": {"advertiseAddress": ["192.0.2.10"], "nodeLimit": 500, "quic": {"port": 11001},
            "websocket": {"port": 11000}, "https": {"port": 11002}}, "cloudStream": {"kubeletEndpoint": {"firstPort": 20000}}}}}"#,
        "1.36.2",
    ),
    (
        "rules and metrics",
        r#"{"cloudCore": {"log": "info,kube=warn", "modules": {"cloudHub": {"advertiseAddress": ["192.0.2.10"], "dnsNames": ["*.example.com", "1e3"]},
            "router": {"enable": true, "tokenFile": "/etc/tokens/t", "allowedTargets": ["127.0.0.0/8"], "restTimeout": 30}},
            "extraVolumes": [{"name": "tokens", "secret": {"secretName": "tokens"}}],
            "extraVolumeMounts": [{"name": "tokens", "mountPath": "/etc/tokens", "readOnly": true}], "service": {"routerNodePort": 30443}},
            "metrics": {"enable": true, "serviceMonitor": {"enable": true, "labels": {"release": "prometheus"}}},
            "networkPolicy": {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}], "apiServerPorts": [16443]}}"#,
        "1.36.2",
    ),
    (
        "no websocket, no streams, no policies",
        r#"{"cloudCore": {"modules": {"cloudHub": {"advertiseAddress": ["192.0.2.10"], "websocket": {"enable": false}}, "cloudStream": {"enable": false}}},
            "policies": {"enable": false}, "rbac": {"secrets": false}}"#,
        "1.36.2",
    ),
    (
        "outside",
        r#"{"cloudCore": {"replicaCount": 0, "service": {"separateQuic": true}, "modules": {"cloudHub": {"advertiseAddress": ["192.0.2.10"]}}}}"#,
        "1.36.2",
    ),
    (
        "every right",
        r#"{"cloudCore": {"modules": {"cloudHub": {"advertiseAddress": ["192.0.2.10"]},
            "cloudStream": {"kubeletEndpoint": {"certificate": {"signerName": "kubernetes.io/kubelet-serving"}}}}},
            "rbac": {"endpointCheckNodes": ["edge-1", "edge-2"], "secrets": true, "mirrors": true,
            "csidriver": {"nodes": ["edge-3"], "account": "csi", "namespace": "storage"}}, "policies": {"enable": true, "keepPods": true}}"#,
        "1.32.0",
    ),
    (
        "placed by hand",
        r#"{"cloudCore": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms":
            [{"matchExpressions": [{"key": "a", "operator": "In", "values": ["yes", "1", "<&>"]}]}]}}},
            "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}],
            "nodeSelector": {"kubernetes.io/os": "linux", "numeric": "1"}, "priorityClassName": "system-cluster-critical",
            "resources": {"requests": {"cpu": "2", "memory": "1Gi"}}, "image": {"repository": "registry.example:5000/k/cloudcore", "tag": "v9",
            "pullPolicy": "Always", "pullSecrets": [{"name": "registry"}]}, "kubeAPIConfig": {"master": "https://192.0.2.1:6443"},
            "commonConfig": {"monitorServer": {"healthzBindAddress": "[::]:9099", "bindAddress": "127.0.0.1:9090"}},
            "modules": {"cloudHub": {"advertiseAddress": ["192.0.2.10"]}, "edgeController": {"nodeUpdateFrequency": 5, "podAddresses": "ofNode"}}}}"#,
        "1.36.2",
    ),
];

/// The objects of a case.
pub(crate) fn rendered(name: &str) -> Vec<Value> {
    rendered_in(name, helmchart::NAMESPACE)
}

/// The objects of a case in this namespace.
pub(crate) fn rendered_in(name: &str, namespace: &str) -> Vec<Value> {
    let (_, given, version) = CASES.iter().find(|(case, ..)| *case == name).unwrap();
    render_in(&serde_json::from_str(given).unwrap(), version, namespace)
}

/// The objects of these values, for a cluster of this version that nobody asked.
pub(crate) fn render(given: &Value, version: &str) -> Vec<Value> {
    render_in(given, version, helmchart::NAMESPACE)
}

fn render_in(given: &Value, version: &str, namespace: &str) -> Vec<Value> {
    let values = helmchart::with_defaults(given).unwrap();
    let capabilities = helmchart::Capabilities {
        version: format!("v{}", version.trim_start_matches('v')),
        kinds: Vec::new(),
    };
    helmchart::render(&values, &capabilities, namespace).unwrap_or_else(|error| panic!("{error}: {given}"))
}
