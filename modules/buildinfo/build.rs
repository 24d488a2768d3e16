//! Notes of which commit this is, if whoever builds says it (`cargo dist` does). Git itself is not asked: every program would be
//! linked anew at each commit.

/// Letters of a commit in [`SHORT`], as many as tell commits of any repository apart.
const SHORT: usize = 12;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=KUBEHIVE_COMMIT");
    let version = std::env::var("CARGO_PKG_VERSION")?;
    let told = std::env::var("KUBEHIVE_COMMIT").unwrap_or_default();
    let (commit, changed) = match told.strip_suffix("-dirty") {
        Some(commit) => (commit, true),
        None => (told.as_str(), false),
    };
    let is_hex = |letter: u8| letter.is_ascii_digit() || (b'a'..=b'f').contains(&letter);
    if !told.is_empty() && (!matches!(commit.len(), 40 | 64) || !commit.bytes().all(is_hex)) {
        return Err(format!("KUBEHIVE_COMMIT is no commit: {told:?}").into());
    }
    let (shown, build) = match (commit, changed) {
        ("", _) => ("unknown", String::new()),
        (commit, false) => (told.as_str(), format!("+{}", &commit[..SHORT])),
        (commit, true) => (told.as_str(), format!("+{}.dirty", &commit[..SHORT])),
    };
    println!("cargo::rustc-env=KUBEHIVE_COMMIT_SHOWN={shown}");
    println!("cargo::rustc-env=KUBEHIVE_SEMANTIC={version}{build}");
    println!("cargo::rustc-env=KUBEHIVE_TEXT={version} (commit {shown})");
    Ok(())
}
