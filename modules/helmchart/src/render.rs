//! From values to objects.

use std::sync::{Arc, OnceLock, Weak};

use gotmpl::Template;
use serde_json::{Value, json};

use crate::error::ChartError;
use crate::files::TEMPLATES;
use crate::functions::{self, REFUSED, fault};
use crate::ownership::RELEASE;

/// What a cluster can.
#[derive(Debug, Clone, Default)]
pub struct Capabilities {
    /// Its version, as `v1.36.2`.
    pub version: String,
    /// The kinds that it serves, as `v1/Pod` and `apps/v1/Deployment`; empty: nobody asked it, and its version tells.
    pub kinds: Vec<String>,
}

/// In which order objects are installed: namespaces and accounts first, what bounds an account before what gives it rights, and the
/// program last.
const ORDER: [&str; 15] = [
    "Namespace",
    "ServiceAccount",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "ConfigMap",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "Service",
    "Deployment",
];

/// Renders the chart with these values, which are whole (see [`crate::with_defaults`]), for CloudCore in this namespace. The objects come in the order in which they are
/// installed, as Helm's are without Helm's own labels (see [`crate::owned`]).
///
/// # Errors
/// When a template refuses the values, or is not right.
pub fn render(
    values: &Value,
    capabilities: &Capabilities,
    namespace: &str,
) -> Result<Vec<Value>, ChartError> {
    let data = functions::value(&json!({
        "Values": values,
        "Release": { "Name": RELEASE, "Namespace": namespace, "Service": "Helm" },
        "Chart": { "Name": RELEASE, "Version": crate::VERSION, "AppVersion": crate::VERSION },
        "Capabilities": {
            "KubeVersion": { "Version": capabilities.version },
            "APIVersions": capabilities.kinds,
        },
    }));
    let mut objects = Vec::new();
    for (name, text) in TEMPLATES.iter().filter(|(name, _)| name.ends_with(".yaml")) {
        let not_right = |why: String| ChartError::Template { name: (*name).to_owned(), why };
        let template = template(name, text).map_err(|error| not_right(error.to_string()))?;
        let text = match template.execute_to_string(&data) {
            Ok(text) => text,
            Err(error) => {
                let why = error.to_string();
                return Err(match why.split_once(REFUSED) {
                    Some((_, words)) => ChartError::Refused(words.to_owned()),
                    None => not_right(why),
                });
            }
        };
        let documents = serde_saphyr::from_multiple::<Value>(&text);
        let documents = documents.map_err(|error| not_right(error.to_string()))?;
        objects.extend(documents.into_iter().filter(|document| !document.is_null()));
    }
    let turn = |object: &Value| ORDER.iter().position(|kind| object["kind"] == *kind).unwrap_or(ORDER.len());
    objects.sort_by_key(turn);
    Ok(objects)
}

/// The image of CloudCore with these values.
pub fn image(values: &Value) -> String {
    let at = |name: &str| {
        values.pointer(&format!("/cloudCore/image/{name}")).and_then(Value::as_str).unwrap_or_default()
    };
    match at("tag") {
        "" => format!("{}:v{}", at("repository"), crate::VERSION),
        tag => format!("{}:{tag}", at("repository")),
    }
}

/// A template of the chart, with all that it may include.
fn template(name: &str, text: &str) -> Result<Arc<Template>, gotmpl::TemplateError> {
    // A template that calls `include` needs itself, and must not own what owns it.
    let itself: Arc<OnceLock<Weak<Template>>> = Arc::default();
    let within = Arc::clone(&itself);
    let made = Template::new(name).funcs(functions::all()).func("include", move |arguments| {
        let [gotmpl::Value::String(name), data] = arguments else {
            return Err(fault("`include` is called without a name and a value".to_owned()));
        };
        let template = within.get().and_then(Weak::upgrade);
        let template = template.ok_or_else(|| fault("`include` is called too early".to_owned()))?;
        template.execute_template_to_string(name, data).map(functions::text)
    });
    let helpers = TEMPLATES.iter().filter(|(name, _)| name.ends_with(".tpl"));
    let made = helpers.map(|(_, text)| *text).chain([text]).try_fold(made, |made, text| made.parse(text))?;
    let made = Arc::new(made);
    itself.get_or_init(|| Arc::downgrade(&made));
    Ok(made)
}
