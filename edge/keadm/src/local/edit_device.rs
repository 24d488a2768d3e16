//! `keadm ctl edit device`: what the properties of a device should be, set on the node as an application there sets it.
//!
//! KubeEdge's opens the whole Device. Here the object is the cloud's, and what a node can change of it without the cloud is what is
//! desired of a property: it counts until the cloud's value changes (`edge-devicetwin`'s guide).

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use super::devices::view;
use super::pod_list::{list, text};
use super::shape::plain;
use crate::node_socket::{self, OfNode};

/// 256 KiB of what an editor leaves.
const FILE_MAX: u64 = 256 << 10;

/// Which device, and what is desired.
#[derive(Args)]
pub struct EditDevice {
    /// The device
    name: String,
    /// Its namespace
    #[arg(short = 'n', long, default_value = "default")]
    namespace: String,
    /// PROPERTY=VALUE, without an editor; an empty value takes it back. Again for each property
    #[arg(long)]
    set: Vec<String>,
    #[command(flatten)]
    node: OfNode,
}

pub(crate) async fn edit(order: &EditDevice, say: &mut dyn FnMut(String)) -> Result<()> {
    let EditDevice { name, namespace, .. } = order;
    let device = view(&order.node, namespace, name).await?;
    let before = desired(&device);
    let after = match order.set.is_empty() {
        true => by_editor(&device, &before)?,
        false => by_flags(&order.set)?,
    };
    let changed = changes(&before, &after)?;
    if changed.is_empty() {
        say("Edit cancelled, no changes made.".to_owned());
        return Ok(());
    }
    let mut refused = Vec::new();
    for (property, value) in changed {
        let body = json!({ "property": property, "value": value }).to_string();
        let (status, said) =
            node_socket::post(&order.node, &format!("/devicedesired/{namespace}/{name}"), body).await?;
        match (status, value.is_empty()) {
            (200, false) => say(format!(
                "device/{name}: `{property}` should be `{}` until the cloud's value changes",
                plain(&value)
            )),
            (200, true) => say(format!("device/{name}: `{property}` should be what the cloud says")),
            _ => refused.push(format!("`{property}` is not set: {said}")),
        }
    }
    if refused.is_empty() {
        return Ok(());
    }
    bail!("{}", refused.join("\n"))
}

/// What is desired of each property; empty: nothing.
fn desired(device: &Value) -> BTreeMap<String, String> {
    let properties = list(device, "/properties").iter();
    properties.map(|own| (text(own, "/name"), text(own, "/desired"))).collect()
}

fn by_flags(set: &[String]) -> Result<BTreeMap<String, String>> {
    let mut after = BTreeMap::new();
    for text in set {
        let (property, value) = text
            .split_once('=')
            .with_context(|| format!("`{}` is not PROPERTY=VALUE", text.escape_debug()))?;
        if after.insert(property.to_owned(), value.to_owned()).is_some() {
            bail!("`{property}` is there twice");
        }
    }
    Ok(after)
}

/// What is other than before.
fn changes(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Result<Vec<(String, String)>> {
    let unknown: Vec<&str> =
        after.keys().filter(|name| !before.contains_key(*name)).map(String::as_str).collect();
    if !unknown.is_empty() {
        let known = before.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        bail!(
            "the device has no property {}; it has {known}. On the node only what is desired of a property can be set: anything else of the \
             Device is changed in the cloud (`kubectl edit device`)",
            unknown.join(", ").escape_debug()
        );
    }
    let changed = after.iter().filter(|(name, value)| before.get(*name) != Some(value));
    Ok(changed.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// The file that is edited.
fn page(device: &Value, before: &BTreeMap<String, String>) -> Result<String> {
    let head = format!(
        "# What the properties of device {}/{} should be, on this node. A value counts until the cloud's changes;\n\
         # an empty one (\"\") takes it back. Anything else of a Device is changed in the cloud: kubectl edit device.\n",
        text(device, "/namespace"),
        text(device, "/name")
    );
    Ok(format!("{head}{}", serde_saphyr::to_string(&json!({ "desired": before }))?))
}

/// Reads what was left of it. What stands there no more is as before.
fn read_page(text: &str) -> Result<BTreeMap<String, String>> {
    let read: Value = serde_saphyr::from_str(text).context("what was edited is no YAML")?;
    let Some(fields) = read.as_object() else { bail!("what was edited has no `desired`") };
    if let Some(other) = fields.keys().find(|key| *key != "desired") {
        bail!("`{}` is nothing that can be edited on the node: only `desired` is", other.escape_debug());
    }
    let none = serde_json::Map::new();
    let after = read["desired"].as_object().unwrap_or(&none).iter().map(|(name, value)| {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            Value::Array(_) | Value::Object(_) => bail!("`{}` is no single value", name.escape_debug()),
        };
        Ok((name.clone(), value))
    });
    after.collect()
}

fn by_editor(device: &Value, before: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let mut file = tempfile::Builder::new().prefix("keadm-edit-").suffix(".yaml").tempfile()?;
    file.write_all(page(device, before)?.as_bytes())?;
    file.flush()?;
    run_editor(file.path())?;
    // Editors put another file in its place: it is read by its name.
    let length = std::fs::metadata(file.path())?.len();
    if length > FILE_MAX {
        bail!("what was edited has {length} bytes, and 262144 at the most");
    }
    read_page(&std::fs::read_to_string(file.path()).context("cannot read what was edited")?)
}

/// $KUBE_EDITOR, else $EDITOR, else vi; its words are arguments, and there is no shell.
fn run_editor(file: &Path) -> Result<()> {
    let named = ["KUBE_EDITOR", "EDITOR"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|own| !own.is_empty()));
    let named = named.unwrap_or_else(|| "vi".to_owned());
    let mut words = named.split_whitespace();
    let program = words.next().context("$EDITOR names no program")?;
    let ended = Command::new(program).args(words).arg(file).status();
    let ended =
        ended.with_context(|| format!("cannot run `{program}`: set EDITOR, or use --set PROPERTY=VALUE"))?;
    if !ended.success() {
        bail!("`{program}` ends with {ended}: nothing is changed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before() -> BTreeMap<String, String> {
        [("level", "42"), ("mode", ""), ("on", "true")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn what_is_read_is_what_was_written_and_changes_are_found() {
        let device = json!({"namespace": "plant", "name": "tank"});
        let page = page(&device, &before()).unwrap();
        assert_eq!(read_page(&page).unwrap(), before(), "{page}");
        let edited = page.replace("42", "43");
        let after = read_page(&edited).unwrap();
        assert_eq!(changes(&before(), &after).unwrap(), [("level".to_owned(), "43".to_owned())]);
        let bare = read_page("desired:\n  level: 7\n  mode: auto\n").unwrap();
        let changed = changes(&before(), &bare).unwrap();
        assert_eq!(changed, [("level".to_owned(), "7".to_owned()), ("mode".to_owned(), "auto".to_owned())]);
    }

    #[test]
    fn what_the_node_cannot_change_is_said() {
        let said = |text: &str| read_page(text).unwrap_err().to_string();
        assert!(said("spec: {}").contains("only `desired` is"));
        assert!(said("desired:\n  level: [1]\n").contains("no single value"));
        assert!(said("x").contains("no `desired`"));
        let unknown = by_flags(&["speed=1".to_owned()]).unwrap();
        let said = changes(&before(), &unknown).unwrap_err().to_string();
        assert!(
            said.contains("no property speed; it has level, mode, on")
                && said.contains("kubectl edit device"),
            "{said}"
        );
        assert!(by_flags(&["speed".to_owned()]).is_err());
    }
}
