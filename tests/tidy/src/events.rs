//! Rule 12: events have names of one form, `<module>_<what>` in snake case, as `/metrics` makes series of them.

use crate::{File, Finding};

/// What stands before the literal of an event or a gauge, wherever it is counted.
const COUNTED: [&str; 5] =
    [".count(\"", "metrics.add(\"", "metrics().add(\"", ".measure(\"", "Sample::new(\""];
/// What stands before it in addition in a file whose name is `events.rs`.
const NAMED: [&str; 2] = ["=> \"", "str = \""];
/// KubeEdge's own gauge, whose name dashboards know.
const KUBEEDGES: &str = "KubeEdge_CloudCore_connected_nodes";

/// Every name of an event or gauge in shipped code that is not of that form, or, in a module's `events.rs`, of another
/// module.
pub fn misnamed(files: &[File]) -> Vec<Finding> {
    let shipped = |file: &&File| file.is_rust() && !file.path.contains("/tests/");
    files.iter().filter(shipped).flat_map(misnamed_in).collect()
}

fn misnamed_in(file: &File) -> Vec<Finding> {
    let of_events = file.path.ends_with("/src/events.rs");
    let module = if of_events { module_of(&file.path) } else { None };
    let before_tests = file.text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut found = Vec::new();
    for (at, line) in before_tests.lines().enumerate() {
        let named: &[&str] = if of_events { &NAMED } else { &[] };
        for before in COUNTED.iter().chain(named) {
            for name in line.split(before).skip(1).filter_map(|rest| rest.split('"').next()) {
                if !is_name(name) && name != KUBEEDGES {
                    let what =
                        format!("the event or gauge `{name}` is not of the form `module_what` (rule 12)");
                    found.push(Finding::new(&file.path, at + 1, what));
                } else if let Some(module) = module.as_ref().filter(|module| !is_of(name, module)) {
                    let what = format!("the event `{name}` does not begin with `{module}_` (rule 12)");
                    found.push(Finding::new(&file.path, at + 1, what));
                }
            }
        }
    }
    found
}

/// `^[a-z][a-z0-9_]*$`.
fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|each| each.is_ascii_lowercase() || each.is_ascii_digit() || each == '_')
}

fn is_of(name: &str, module: &str) -> bool {
    name.strip_prefix(module).is_some_and(|rest| rest.starts_with('_'))
}

/// The module whose events a file of `modules/` names: its crate without the side, as KubeEdge calls it. Both sides have a
/// hub.
fn module_of(path: &str) -> Option<String> {
    let member = path.strip_prefix("modules/")?.split('/').next()?;
    Some(match member.split_once('-') {
        Some((_, "hub")) => member.replace('-', ""),
        Some(("cloud" | "edge", module)) => module.to_owned(),
        _ => member.replace('-', ""),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<usize> {
        misnamed(&[File::new(path, text)]).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_name_of_another_form_is_found_wherever_it_is_counted() {
        let text = "env.count(\"cloud-hub.opened\");\nenv.count(\"cloudhub_opened\");\nmetrics.add(\"Opened\", 1);\n\
                    env.measure(\"9\", 1.0);\nSample::new(\"a-b\", 1.0);\nSample::new(\"KubeEdge_CloudCore_connected_nodes\", 1.0)\n";
        assert_eq!(found("modules/cloud-hub/src/actor.rs", text), [1, 3, 4, 5]);
        assert_eq!(found("modules/cloud-hub/tests/a.rs", text), [] as [usize; 0]);
    }

    #[test]
    fn the_events_of_a_module_begin_with_its_name() {
        let text = "Event::A => \"edgehub_a\",\nconst B: &str = \"hub_b\";\nenv.count(\"edgehubs\");\n";
        assert_eq!(found("modules/edge-hub/src/events.rs", text), [2, 3]);
        assert_eq!(
            found("modules/cloud-apiserver/src/events.rs", "env.count(\"apiserver_a\")"),
            [] as [usize; 0]
        );
        assert_eq!(found("beehive/src/link/events.rs", "const A: &str = \"link_a\";"), [] as [usize; 0]);
    }
}
