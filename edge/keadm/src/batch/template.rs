//! `keadmCmd` as KubeEdge has it: a Go template over `keadm.cmdTplArgs`, of which `{{.name}}` is all that is needed. Pure.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// Puts the arguments in.
///
/// # Errors
/// When it names an argument that is not there, or does anything else with a template.
pub(crate) fn filled(template: &str, arguments: &BTreeMap<String, String>) -> Result<String> {
    let (mut filled, mut rest) = (String::new(), template);
    while let Some((before, action)) = rest.split_once("{{") {
        filled.push_str(before);
        let Some((action, after)) = action.split_once("}}") else { bail!("`{{{{` has no `}}}}`") };
        let name = action.trim().strip_prefix('.').unwrap_or_default();
        let fits = |letter: char| letter.is_alphanumeric() || letter == '_';
        if name.is_empty() || !name.chars().all(fits) {
            bail!(
                "`{{{{{}}}}}` is not done here: of Go's templates only {{{{.NAME}}}} is",
                action.escape_debug()
            );
        }
        match arguments.get(name) {
            Some(value) => filled.push_str(value),
            None => bail!("keadm.cmdTplArgs has no `{name}`"),
        }
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_put_in_and_nothing_else_is_done() {
        let arguments = BTreeMap::from(
            [("cmd", "join -e h:1"), ("token", "{{.cmd}}")]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let filled = |template: &str| filled(template, &arguments).map_err(|error| error.to_string());
        assert_eq!(filled("{{.cmd}} -i a {{ .token }}").unwrap(), "join -e h:1 -i a {{.cmd}}", "once");
        assert_eq!(filled("reset edge").unwrap(), "reset edge");
        assert_eq!(filled("{{.other}}").unwrap_err(), "keadm.cmdTplArgs has no `other`");
        assert!(filled("{{if .cmd}}x{{end}}").unwrap_err().contains("only {{.NAME}} is"));
        assert_eq!(filled("{{.cmd").unwrap_err(), "`{{` has no `}}`");
    }
}
