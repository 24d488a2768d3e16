//! The machines that programs are built for, in the words of those who name them.

/// A kind of machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Rust's name.
    pub triple: &'static str,
    /// The name in images and of Nodes (`GOARCH`).
    pub architecture: &'static str,
    /// The name's second half in images.
    pub variant: Option<&'static str>,
    /// Debian's name.
    pub debian: &'static str,
    /// `e_machine` of its programs.
    pub machine: u16,
    /// Its programs are of 64 bits.
    pub is_64_bit: bool,
    /// What the names of Debian's compilers for it begin with.
    pub compiler: &'static str,
    /// The Debian package of the C library's headers and archives for it, on another machine.
    pub libc_package: &'static str,
}

/// Those that are known here.
pub const TARGETS: [Target; 4] = [
    Target {
        triple: "x86_64-unknown-linux-gnu",
        architecture: "amd64",
        variant: None,
        debian: "amd64",
        machine: 62,
        is_64_bit: true,
        compiler: "x86_64-linux-gnu",
        libc_package: "libc6-dev-amd64-cross",
    },
    Target {
        triple: "aarch64-unknown-linux-gnu",
        architecture: "arm64",
        variant: None,
        debian: "arm64",
        machine: 183,
        is_64_bit: true,
        compiler: "aarch64-linux-gnu",
        libc_package: "libc6-dev-arm64-cross",
    },
    Target {
        triple: "armv7-unknown-linux-gnueabihf",
        architecture: "arm",
        variant: Some("v7"),
        debian: "armhf",
        machine: 40,
        is_64_bit: false,
        compiler: "arm-linux-gnueabihf",
        libc_package: "libc6-dev-armhf-cross",
    },
    Target {
        triple: "riscv64gc-unknown-linux-gnu",
        architecture: "riscv64",
        variant: None,
        debian: "riscv64",
        machine: 243,
        is_64_bit: true,
        compiler: "riscv64-linux-gnu",
        libc_package: "libc6-dev-riscv64-cross",
    },
];

impl Target {
    /// By Rust's name.
    ///
    /// # Errors
    /// Names those that are known.
    pub fn of_triple(triple: &str) -> Result<Target, String> {
        TARGETS.into_iter().find(|target| target.triple == triple).ok_or_else(|| {
            let known: Vec<&str> = TARGETS.iter().map(|target| target.triple).collect();
            format!("--target: `{triple}` is none of {}", known.join(", "))
        })
    }

    /// As in names of files: `linux-amd64`, `linux-arm-v7`.
    pub fn platform(&self) -> String {
        let variant = self.variant.map(|variant| format!("-{variant}")).unwrap_or_default();
        format!("linux-{}{variant}", self.architecture)
    }

    /// Whose program this is, by `e_machine`.
    pub(crate) fn name_of_machine(machine: u16) -> String {
        let known = TARGETS.iter().find(|target| target.machine == machine);
        known.map_or_else(|| format!("machine {machine}"), |target| target.architecture.to_owned())
    }

    /// As variables have it: `x86_64_unknown_linux_gnu`.
    pub(crate) fn in_variables(&self) -> String {
        self.triple.replace('-', "_")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_known_by_name() {
        let arm = Target::of_triple("armv7-unknown-linux-gnueabihf").unwrap();
        assert_eq!((arm.platform(), arm.debian), ("linux-arm-v7".to_owned(), "armhf"));
        let error = Target::of_triple("x86_64-pc-windows-msvc").unwrap_err();
        assert!(
            error.contains("windows-msvc") && TARGETS.iter().all(|target| error.contains(target.triple)),
            "{error}"
        );
        assert_eq!(
            (Target::name_of_machine(183), Target::name_of_machine(7)),
            ("arm64".to_owned(), "machine 7".to_owned())
        );
    }
}
