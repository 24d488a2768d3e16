//! What a pod refers to.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{ObjectKey, resource};

/// The names of the objects that a pod refers to, however it does: by volumes, projected volumes, variables, pull secrets,
/// claims, drivers of volumes; with its init and ephemeral containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodReferences {
    /// Config maps.
    pub config_maps: BTreeSet<String>,
    /// Secrets.
    pub secrets: BTreeSet<String>,
    /// Persistent volume claims, those of generic ephemeral volumes too.
    pub claims: BTreeSet<String>,
    /// Drivers of inline CSI volumes; they lie in no namespace.
    pub csi_drivers: BTreeSet<String>,
    /// The runtime class; it lies in no namespace either.
    pub runtime_classes: BTreeSet<String>,
}

/// Where a volume names a Secret: the pointer to the name.
const SECRETS_OF_VOLUMES: &[&str] = &[
    "/secret/secretName",
    "/azureFile/secretName",
    "/cephfs/secretRef/name",
    "/cinder/secretRef/name",
    "/csi/nodePublishSecretRef/name",
    "/flexVolume/secretRef/name",
    "/iscsi/secretRef/name",
    "/rbd/secretRef/name",
    "/scaleIO/secretRef/name",
    "/storageos/secretRef/name",
];

impl PodReferences {
    /// The references of a pod of this name with this `PodSpec`.
    pub fn of_pod(name: &str, spec: &Value) -> Self {
        let mut found = PodReferences::default();
        found.runtime_classes.extend(text(spec.get("runtimeClassName")));
        for volume in list(spec, "volumes") {
            found.claims.extend(text(volume.pointer("/persistentVolumeClaim/claimName")));
            if volume.get("ephemeral").is_some_and(Value::is_object) {
                found.claims.extend(text(volume.get("name")).map(|volume| ephemeral_claim(name, &volume)));
            }
            found.csi_drivers.extend(text(volume.pointer("/csi/driver")));
            found.config_map(volume.pointer("/configMap/name"));
            for pointer in SECRETS_OF_VOLUMES {
                found.secret(volume.pointer(pointer));
            }
            for source in volume.get("projected").into_iter().flat_map(|volume| list(volume, "sources")) {
                found.config_map(source.pointer("/configMap/name"));
                found.secret(source.pointer("/secret/name"));
            }
        }
        for secret in list(spec, "imagePullSecrets") {
            found.secret(secret.get("name"));
        }
        for kind in ["initContainers", "containers", "ephemeralContainers"] {
            for container in list(spec, kind) {
                found.container(container);
            }
        }
        found
    }

    fn container(&mut self, container: &Value) {
        for from in list(container, "envFrom") {
            self.config_map(from.pointer("/configMapRef/name"));
            self.secret(from.pointer("/secretRef/name"));
        }
        for variable in list(container, "env") {
            self.config_map(variable.pointer("/valueFrom/configMapKeyRef/name"));
            self.secret(variable.pointer("/valueFrom/secretKeyRef/name"));
        }
    }

    fn config_map(&mut self, name: Option<&Value>) {
        self.config_maps.extend(text(name));
    }

    fn secret(&mut self, name: Option<&Value>) {
        self.secrets.extend(text(name));
    }

    /// Whether `key` is one of them, for a pod in `namespace`. What stands behind a claim (its volume, that one's driver and
    /// attachment) is not in the pod: any of it counts for a pod that has a claim.
    pub fn contains(&self, namespace: &str, key: &ObjectKey) -> bool {
        match key.resource.as_str() {
            resource::PERSISTENT_VOLUMES | resource::VOLUME_ATTACHMENTS => !self.claims.is_empty(),
            resource::CSI_DRIVERS => !self.claims.is_empty() || self.csi_drivers.contains(&key.name),
            resource::RUNTIME_CLASSES => self.runtime_classes.contains(&key.name),
            _ if key.namespace != namespace => false,
            resource::CONFIG_MAPS => self.config_maps.contains(&key.name),
            resource::SECRETS => self.secrets.contains(&key.name),
            resource::PERSISTENT_VOLUME_CLAIMS => self.claims.contains(&key.name),
            _ => false,
        }
    }

    /// The keys of all of them, for a pod in `namespace`: config maps first, each in the order of names.
    pub fn keys<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = ObjectKey> + 'a {
        let within = |resource: &'static str, names: &'a BTreeSet<String>, namespace: &'a str| {
            names.iter().map(move |name| ObjectKey::new(resource, namespace, name))
        };
        within(resource::CONFIG_MAPS, &self.config_maps, namespace)
            .chain(within(resource::SECRETS, &self.secrets, namespace))
            .chain(within(resource::PERSISTENT_VOLUME_CLAIMS, &self.claims, namespace))
            .chain(within(resource::CSI_DRIVERS, &self.csi_drivers, ""))
            .chain(within(resource::RUNTIME_CLASSES, &self.runtime_classes, ""))
    }
}

/// The claim that Kubernetes makes for a generic ephemeral volume of a pod.
pub fn ephemeral_claim(pod: &str, volume: &str) -> String {
    format!("{pod}-{volume}")
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn text(name: Option<&Value>) -> Option<String> {
    name.and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_way_to_name_an_object_is_found() {
        let spec = json!({
            "runtimeClassName": "kata",
            "volumes": [
                {"configMap": {"name": "m-volume"}}, {"secret": {"secretName": "s-volume"}},
                {"projected": {"sources": [{"configMap": {"name": "m-projected"}}, {"secret": {"name": "s-projected"}}]}},
                {"csi": {"nodePublishSecretRef": {"name": "s-csi"}}}, {"azureFile": {"secretName": "s-azure"}},
                {"iscsi": {"secretRef": {"name": "s-iscsi"}}}, {"emptyDir": {}},
                {"persistentVolumeClaim": {"claimName": "c-data"}}, {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}},
                {"csi": {"driver": "d.example.com"}},
            ],
            "imagePullSecrets": [{"name": "s-pull"}, {"name": ""}, {}],
            "initContainers": [{"envFrom": [{"configMapRef": {"name": "m-init"}}]}],
            "containers": [{
                "envFrom": [{"secretRef": {"name": "s-from"}}],
                "env": [
                    {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s-key", "key": "k"}}},
                    {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "m-key", "key": "k"}}},
                ],
            }],
            "ephemeralContainers": [{"envFrom": [{"configMapRef": {"name": "m-debug"}}]}],
        });
        let found = PodReferences::of_pod("web", &spec);
        let names = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(names(&found.config_maps), "m-debug m-init m-key m-projected m-volume");
        assert_eq!(names(&found.secrets), "s-azure s-csi s-from s-iscsi s-key s-projected s-pull s-volume");
        let pull = ObjectKey::new(resource::SECRETS, "shop", "s-pull");
        assert!(found.contains("shop", &pull) && !found.contains("other", &pull));
        assert!(found.keys("shop").any(|key| key == pull));
        assert_eq!(
            (names(&found.claims), names(&found.csi_drivers)),
            ("c-data web-scratch".into(), "d.example.com".into())
        );
        assert!(
            found.keys("shop").any(|key| key == ObjectKey::new(resource::CSI_DRIVERS, "", "d.example.com"))
        );
        let class = ObjectKey::new(resource::RUNTIME_CLASSES, "", "kata");
        assert!(found.contains("shop", &class) && found.keys("shop").any(|key| key == class));
        assert_eq!(found.keys("shop").count(), 17);
        for (resource, namespace, name, counts) in [
            (resource::PERSISTENT_VOLUME_CLAIMS, "shop", "web-scratch", true),
            (resource::PERSISTENT_VOLUME_CLAIMS, "other", "web-scratch", false),
            (resource::PERSISTENT_VOLUMES, "", "any", true),
            (resource::VOLUME_ATTACHMENTS, "", "any", true),
        ] {
            assert_eq!(
                found.contains("shop", &ObjectKey::new(resource, namespace, name)),
                counts,
                "{resource}"
            );
            assert!(!PodReferences::default().contains("shop", &ObjectKey::new(resource, namespace, name)));
        }
    }

    #[test]
    fn nonsense_refers_to_nothing() {
        for spec in
            [json!(null), json!([]), json!({"volumes": {"configMap": {"name": "x"}}, "containers": [1]})]
        {
            assert_eq!(PodReferences::of_pod("p", &spec), PodReferences::default(), "{spec}");
        }
    }
}
