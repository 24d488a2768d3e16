//! CustomResourceDefinitions: the kinds that they serve.

use std::sync::Arc;

use apimachinery::Kind;
use serde_json::{Value, json};

use crate::kind::{self, CustomKind, PrinterColumn, ServedKind, Source, StatusSubresource};
use crate::unstructured::{list, text};

/// The kinds that a definition serves, one a version. None for one of what is built in, which an earlier release took or which was
/// written past the rules: nothing that becomes of it, its removal neither, touches objects that are not its own.
pub(crate) fn kinds(definition: &Value) -> Vec<ServedKind> {
    let spec = &definition["spec"];
    let names = &spec["names"];
    if kind::is_built_in(text(spec, "/group"), text(names, "/plural")) {
        return Vec::new();
    }
    let arcs = |pointer: &str| -> Vec<Arc<str>> {
        list(names, pointer).iter().filter_map(Value::as_str).map(Arc::from).collect()
    };
    let kind = text(names, "/kind");
    let or = |text: &str, otherwise: String| if text.is_empty() { otherwise } else { text.to_owned() };
    list(spec, "/versions")
        .iter()
        .filter(|version| version["served"] == json!(true))
        .map(|version| {
            let status = version.pointer("/subresources/status").is_some();
            let scale = version.pointer("/subresources/scale").map(|scale| {
                let path = |name: &str| scale[name].as_str().unwrap_or_default().to_owned();
                (path("specReplicasPath"), path("statusReplicasPath"), path("labelSelectorPath"))
            });
            let columns = list(version, "/additionalPrinterColumns").iter().map(|column| PrinterColumn {
                name: text(column, "/name").to_owned(),
                kind: text(column, "/type").to_owned(),
                path: text(column, "/jsonPath").to_owned(),
                priority: column["priority"].as_i64().unwrap_or_default(),
                description: text(column, "/description").to_owned(),
            });
            let of = Kind {
                group: text(spec, "/group").to_owned().into(),
                version: text(version, "/name").to_owned().into(),
                kind: kind.to_owned().into(),
                plural: text(names, "/plural").to_owned().into(),
                namespaced: text(spec, "/scope") == "Namespaced",
            };
            let has_scale = scale.is_some();
            let custom = CustomKind {
                schema: version.pointer("/schema/openAPIV3Schema").cloned().unwrap_or(json!({})),
                columns: columns.collect(),
                scale,
            };
            ServedKind {
                list_kind: or(text(names, "/listKind"), format!("{kind}List")).into(),
                singular: or(text(names, "/singular"), kind.to_ascii_lowercase()).into(),
                short_names: arcs("/shortNames"),
                categories: arcs("/categories"),
                status: if status { StatusSubresource::Separate } else { StatusSubresource::None },
                scale: has_scale,
                generation: true,
                allows_unconditional_update: false,
                ..ServedKind::new(of, Source::Custom(Arc::new(custom)))
            }
        })
        .collect()
}
