//! A program as small as one can be that says its version, for images.

fn main() {
    let mut arguments = std::env::args();
    let path = arguments.next().unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    match arguments.next().as_deref() {
        Some("--version") => println!("{name} {}", env!("SAID")),
        _ => println!(
            "{name} started as {:?}",
            std::fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own)).ok()
        ),
    }
}
