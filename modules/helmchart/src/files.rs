//! The files of the chart, from within the program.

/// `values.yaml`.
pub(crate) const VALUES: &str = include_str!("../../../cloud/deploy/chart/values.yaml");
/// `values.schema.json`.
pub(crate) const SCHEMA: &str = include_str!("../../../cloud/deploy/chart/values.schema.json");

macro_rules! templates {
    ($($name:literal),* $(,)?) => {
        /// `templates`: name and text. A test holds that none is left out.
        pub(crate) const TEMPLATES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../cloud/deploy/chart/templates/", $name)))),*];
    };
}

templates![
    "_helpers.tpl",
    "configmap.yaml",
    "deployment.yaml",
    "eviction.yaml",
    "metrics.yaml",
    "networkpolicy.yaml",
    "poddisruptionbudget.yaml",
    "policy.yaml",
    "rbac-csidriver.yaml",
    "rbac-csr.yaml",
    "rbac-endpoint-check.yaml",
    "rbac-mirrors.yaml",
    "rbac-secrets.yaml",
    "rbac.yaml",
    "service.yaml",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_template_is_within_the_program() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cloud/deploy/chart/templates");
        let mut there: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            // What Helm says when it is done, and no object.
            .filter(|name| name != "NOTES.txt")
            .collect();
        there.sort();
        let ours: Vec<&str> = TEMPLATES.iter().map(|(name, _)| *name).collect();
        assert_eq!(ours, there);
    }

    #[test]
    fn the_chart_has_the_version_of_the_programs() {
        let chart = include_str!("../../../cloud/deploy/chart/Chart.yaml");
        for key in ["version", "appVersion"] {
            let line = format!("{key}: {}", crate::VERSION);
            assert!(chart.lines().any(|found| found == line), "Chart.yaml has no line `{line}`");
        }
    }
}
