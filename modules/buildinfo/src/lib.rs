//! Which version and commit of the sources a program is of.
//!
//! `cargo dist` tells the commit to the build (`KUBEHIVE_COMMIT`: 40 or 64 hexadecimal digits, with `-dirty` behind them where the
//! sources are not those of a commit), and looks for [`TEXT`] in programs that it is given ready. A build that nobody tells says
//! `unknown`.

/// The version, as `0.1.0`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit in full, or `unknown`.
pub const COMMIT: &str = env!("KUBEHIVE_COMMIT_SHOWN");

/// Both in the form of semver.org, as `0.1.0+00f9c82cd0ab`; of an unknown commit the version alone.
pub const SEMANTIC: &str = env!("KUBEHIVE_SEMANTIC");

/// What `--version` prints behind a program's name: `0.1.0 (commit 00f9c82cd0ab...)`.
pub const TEXT: &str = env!("KUBEHIVE_TEXT");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_says_the_same() {
        assert_eq!(TEXT, format!("{VERSION} (commit {COMMIT})"));
        let build = SEMANTIC.strip_prefix(VERSION).map(|build| build.trim_start_matches('+'));
        let short = build.map(|build| build.trim_end_matches(".dirty"));
        assert!(short.is_some_and(|short| COMMIT.starts_with(short)), "{SEMANTIC}");
    }
}
