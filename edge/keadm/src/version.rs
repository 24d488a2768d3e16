//! `keadm version`.

use anyhow::Result;
use clap::ValueEnum;
use serde_json::json;

/// How the version is printed; without one as a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VersionFormat {
    /// `v0.1.0`.
    Short,
    /// A document of YAML.
    Yaml,
    /// A document of JSON.
    Json,
}

/// The version of this program, which is that of its chart, its images and the other programs of its release.
///
/// # Errors
/// Never: what is written is known.
pub fn version(format: Option<VersionFormat>) -> Result<String> {
    let version = env!("CARGO_PKG_VERSION");
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    // The names that KubeEdge's has, as far as they mean something here.
    let document = json!({
        "major": env!("CARGO_PKG_VERSION_MAJOR"),
        "minor": env!("CARGO_PKG_VERSION_MINOR"),
        "gitVersion": format!("v{version}"),
        "gitCommit": buildinfo::COMMIT,
        "compiler": "rustc",
        "platform": format!("{}/{arch}", std::env::consts::OS),
    });
    Ok(match format {
        None => format!("keadm {}", buildinfo::TEXT),
        Some(VersionFormat::Short) => format!("v{version}"),
        Some(VersionFormat::Yaml) => serde_saphyr::to_string(&document)?.trim_end().to_owned(),
        Some(VersionFormat::Json) => serde_json::to_string_pretty(&document)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn every_format_says_the_same_version() {
        let wanted = format!("v{}", env!("CARGO_PKG_VERSION"));
        assert_eq!(version(None).unwrap(), format!("keadm {}", buildinfo::TEXT));
        assert_eq!(version(Some(VersionFormat::Short)).unwrap(), wanted);
        let json: Value = serde_json::from_str(&version(Some(VersionFormat::Json)).unwrap()).unwrap();
        let yaml: Value = serde_saphyr::from_str(&version(Some(VersionFormat::Yaml)).unwrap()).unwrap();
        assert_eq!((&json, json["gitVersion"].as_str()), (&yaml, Some(wanted.as_str())));
    }
}
