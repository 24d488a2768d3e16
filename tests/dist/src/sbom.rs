//! The bill of materials of a program, as CycloneDX 1.5: the crates that are linked into it, C libraries that two of them bring, and what
//! the program says of its compilers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::crates::{About, Graph, Id};
use crate::json;
use crate::programs::Binary;

/// A C library that lies in a crate, and where its version stands there.
struct Bundled {
    within: &'static str,
    name: &'static str,
    /// `None`: that of the crate.
    license: Option<&'static str>,
    file: &'static str,
    before_version: &'static str,
}

const BUNDLED: [Bundled; 2] = [
    Bundled {
        within: "libsqlite3-sys",
        name: "sqlite",
        license: Some("blessing"),
        file: "sqlite3/sqlite3.h",
        before_version: "#define SQLITE_VERSION ",
    },
    Bundled {
        within: "aws-lc-sys",
        name: "aws-lc",
        license: None,
        file: "aws-lc/include/openssl/base.h",
        before_version: "#define AWSLC_VERSION_NUMBER_STRING ",
    },
];

/// The bill of `binary`. `time`: seconds since 1970, when its sources were committed.
///
/// # Errors
/// When a crate is unknown, or a bundled library's version is not where it was.
pub fn bill(
    binary: &Binary,
    graph: &Graph,
    about: &BTreeMap<Id, About>,
    version: &str,
    time: u64,
) -> Result<Vec<u8>> {
    let name = binary.program.name;
    let linked = graph.linked(binary.program.package);
    let mut components = Vec::new();
    let mut depends: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut of_program = BTreeSet::new();
    for id in &linked {
        let known = about.get(id).with_context(|| format!("cargo metadata does not know {}", id.name))?;
        components.push(component(id, known));
        let mut below: BTreeSet<String> = graph
            .edges
            .get(id)
            .into_iter()
            .flatten()
            .filter(|other| linked.contains(other))
            .map(purl)
            .collect();
        if let Some(bundled) = BUNDLED.iter().find(|bundled| bundled.within == id.name) {
            let version = version_in(&known.folder, bundled)?;
            let purl = format!("pkg:generic/{}@{version}", bundled.name);
            components.push(json!({
                "type": "library", "bom-ref": purl, "name": bundled.name, "version": version, "purl": purl,
                "licenses": [{ "expression": bundled.license.or(known.license.as_deref()) }],
            }));
            below.insert(purl);
        }
        if id.name == binary.program.package {
            of_program.insert(purl(id));
        }
        depends.insert(purl(id), below);
    }
    for (found, license) in runtimes(&binary.bytes) {
        let (name, version) = found;
        let purl = format!("pkg:generic/{name}@{version}");
        components.push(json!({
            "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
            "licenses": [{ "expression": license }],
        }));
        of_program.insert(purl);
    }
    depends.insert(name.to_owned(), of_program);
    json::pretty(&json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": json::time(time)?,
            "tools": { "components": [{ "type": "application", "name": "cargo dist", "version": version }] },
            "component": {
                "type": "application", "bom-ref": name, "name": name, "version": version,
                "hashes": [{ "alg": "SHA-256", "content": binary.sha256() }],
                "properties": words(&binary.bytes)
                    .into_iter()
                    .map(|said| json!({ "name": "kubehive:madeBy", "value": said }))
                    .collect::<Vec<Value>>(),
            },
        },
        "components": components,
        "dependencies": depends
            .iter()
            .map(|(of, on)| json!({ "ref": of, "dependsOn": on }))
            .collect::<Vec<Value>>(),
    }))
}

fn component(id: &Id, about: &About) -> Value {
    let purl = purl(id);
    let mut component = json!({
        "type": "library", "bom-ref": purl, "name": id.name, "version": id.version, "purl": purl,
    });
    if let Some(license) = &about.license {
        component["licenses"] = json!([{ "expression": license }]);
    }
    if let Some(sum) = &about.sha256 {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
    }
    component
}

fn purl(id: &Id) -> String {
    // `+` begins a build's name, and is an escape of its own in URLs.
    format!("pkg:cargo/{}@{}", id.name, id.version.replace('+', "%2B"))
}

fn version_in(folder: &Path, bundled: &Bundled) -> Result<String> {
    let path = folder.join(bundled.file);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let found = text.lines().find_map(|line| line.strip_prefix(bundled.before_version));
    let found = found.and_then(|rest| rest.trim().strip_prefix('"')?.strip_suffix('"'));
    Ok(found.with_context(|| format!("{} does not say its version", path.display()))?.to_owned())
}

/// What compilers, the linker and a C library that is linked in leave in a program: their names and versions.
fn words(bytes: &[u8]) -> BTreeSet<String> {
    const BEGIN: [&str; 4] = ["rustc version ", "GCC: (", "Linker: LLD ", GLIBC];
    let mut found = BTreeSet::new();
    for begin in BEGIN {
        // Behind a zero byte, so that a program's own words are none of them.
        let begin: Vec<u8> = [b"\0", begin.as_bytes()].concat();
        let places = bytes.windows(begin.len()).enumerate().filter(|(_, window)| *window == begin);
        for at in places.map(|(at, _)| at + 1) {
            let end = bytes[at..].iter().take(200).position(|byte| matches!(byte, 0 | b'\n'));
            if let Some(text) = end.and_then(|end| std::str::from_utf8(&bytes[at..at + end]).ok()) {
                found.insert(text.to_owned());
            }
        }
    }
    found
}

const GLIBC: &str = "GNU C Library (";

/// The libraries that languages bring: names and versions, with their licences.
fn runtimes(bytes: &[u8]) -> Vec<((&'static str, String), &'static str)> {
    let mut found = Vec::new();
    for said in words(bytes) {
        if let Some(rest) = said.strip_prefix("rustc version ") {
            let version = rest.split(' ').next().unwrap_or(rest);
            found.push((("rust-std", version.to_owned()), "MIT OR Apache-2.0"));
        }
        if said.starts_with(GLIBC) {
            let version = said.rsplit(' ').next().unwrap_or_default().trim_end_matches('.');
            found.push((("glibc", version.to_owned()), "LGPL-2.1-or-later"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_names_its_compilers() {
        let bytes = b"x\0rustc version 1.95.0 (59807616e 2026-04-14)\0GCC: (Debian 12.2.0-14) 12.2.0\0 rustc version of words\0\
            GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\nCopyright\0";
        let glibc = "GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.";
        let found: Vec<String> = words(bytes).into_iter().collect();
        assert_eq!(
            found,
            ["GCC: (Debian 12.2.0-14) 12.2.0", glibc, "rustc version 1.95.0 (59807616e 2026-04-14)"]
        );
        let versions: Vec<String> =
            runtimes(bytes).iter().map(|((name, version), _)| format!("{name} {version}")).collect();
        assert_eq!(versions, ["glibc 2.36", "rust-std 1.95.0"]);
    }

    #[test]
    fn versions_with_a_build_are_written_as_urls_are() {
        let id = Id { name: "a".to_owned(), version: "1.0.0+curl-8".to_owned() };
        assert_eq!(purl(&id), "pkg:cargo/a@1.0.0%2Bcurl-8");
    }
}
