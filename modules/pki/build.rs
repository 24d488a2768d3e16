//! Notes when this was made, the earliest moment that any machine which runs it can live in.

use std::time::SystemTime;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    // A build that others can repeat says the moment; else the files' own time is one that has passed.
    let seconds = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.parse::<u64>()?,
        Err(_) => {
            let modified = std::fs::metadata("Cargo.toml")?.modified()?;
            modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
        }
    };
    println!("cargo::rustc-env=KUBEHIVE_MADE_AT={seconds}");
    Ok(())
}
