//! The statement where a release comes from, in in-toto's form with SLSA's predicate (`slsa.dev/provenance/v1`). It names no moment of
//! the build, so that whoever builds again can compare it byte by byte.

use anyhow::Result;
use serde_json::{Value, json};

use crate::compile::Toolchain;
use crate::json;
use crate::source::Source;

/// What was built, by what, from what.
#[derive(Debug)]
pub struct Provenance<'a> {
    /// Each file with its SHA-256 in hexadecimal.
    pub subjects: &'a [(String, String)],
    /// Which sources.
    pub source: &'a Source,
    /// Where they are, if the releaser says it.
    pub repository: Option<&'a str>,
    /// SHA-256 of the lock file.
    pub lock: &'a str,
    /// The releaser's choices.
    pub parameters: Value,
    /// Who built, as a URI.
    pub builder: &'a str,
    /// With which compiler; `None`: programs were given ready, and nothing was compiled.
    pub toolchain: Option<&'a Toolchain>,
    /// The programs that were given ready, with their SHA-256.
    pub given: &'a [(String, String)],
}

/// What `cargo dist` does with programs: builds them, or packs ready ones. Two types, since only one says anything of the sources.
const BUILT: &str = "https://kubehive.io/dist/build/v1";
const PACKED: &str = "https://kubehive.io/dist/pack/v1";

impl Provenance<'_> {
    /// The statement.
    ///
    /// # Errors
    /// None that a value can have.
    pub fn statement(&self) -> Result<Vec<u8>> {
        let named = |(name, sum): &(String, String)| json!({ "name": name, "digest": { "sha256": sum } });
        let mut dependencies: Vec<Value> = self.given.iter().map(named).collect();
        if let (Some(commit), Some(_)) = (&self.source.commit, self.toolchain) {
            let mut sources = json!({ "name": "sources", "digest": { "gitCommit": commit } });
            if let Some(repository) = self.repository {
                sources["uri"] = json!(format!("git+{repository}"));
            }
            dependencies.push(sources);
            dependencies.push(named(&("Cargo.lock".to_owned(), self.lock.to_owned())));
        }
        let internal = match self.toolchain {
            Some(toolchain) => json!({
                "rustc": toolchain.rustc, "rustcCommit": toolchain.commit, "host": toolchain.host,
                "sourceDateEpoch": self.source.time,
            }),
            None => json!({ "sourceDateEpoch": self.source.time }),
        };
        json::pretty(&json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": self.subjects.iter().map(named).collect::<Vec<Value>>(),
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {
                "buildDefinition": {
                    "buildType": if self.toolchain.is_some() { BUILT } else { PACKED },
                    "externalParameters": self.parameters,
                    "internalParameters": internal,
                    "resolvedDependencies": dependencies,
                },
                "runDetails": { "builder": { "id": self.builder } },
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_built_speaks_of_sources() {
        let source = Source { commit: Some("a".repeat(40)), time: 7 };
        let toolchain = Toolchain::find().unwrap();
        let subjects = [("bin/a".to_owned(), "12".to_owned())];
        let mut provenance = Provenance {
            subjects: &subjects,
            source: &source,
            repository: Some("https://example.com/kubehive"),
            lock: "34",
            parameters: json!({}),
            builder: "https://example.com/builder",
            toolchain: Some(&toolchain),
            given: &[],
        };
        let read = |provenance: &Provenance<'_>| -> Value {
            serde_json::from_slice(&provenance.statement().unwrap()).unwrap()
        };
        let built = read(&provenance);
        let definition = &built["predicate"]["buildDefinition"];
        assert_eq!(definition["resolvedDependencies"][0]["uri"], "git+https://example.com/kubehive");
        assert_eq!(definition["resolvedDependencies"][0]["digest"]["gitCommit"], "a".repeat(40));
        assert_eq!(definition["internalParameters"]["rustc"], toolchain.rustc);
        assert_eq!(built["subject"][0], json!({ "name": "bin/a", "digest": { "sha256": "12" } }));
        (provenance.toolchain, provenance.given) = (None, &subjects);
        let packed = read(&provenance);
        assert!(!packed.to_string().contains("gitCommit") && packed.to_string().contains(PACKED), "{packed}");
    }
}
