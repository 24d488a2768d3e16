//! What a program says of itself in its head: whose machine's it is, and whether it needs a loader. Fields as elf(5) has them;
//! every offset comes from outside and is looked up within the file.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

/// What is wrong with a file that should be a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// Its first bytes are not those of an ELF file of 32 or 64 bits in little-endian order, or it ends within its head.
    NotElf,
    /// It is an object, a core or the like.
    NotProgram,
    /// It is for another kind of machine: `e_machine`.
    Machine(u16),
    /// It is started by a loader, which an image of one file does not have.
    Loader(String),
}

/// `e_machine` of programs for the machine that this one is for, and whether they are of 64 bits.
pub const HERE: (u16, bool) = if cfg!(target_arch = "x86_64") {
    (62, true)
} else if cfg!(target_arch = "aarch64") {
    (183, true)
} else if cfg!(target_arch = "arm") {
    (40, false)
} else if cfg!(target_arch = "riscv64") {
    (243, true)
} else {
    // Of no machine: every program is refused by it.
    (0, true)
};

/// What programs of `machine` (`e_machine`) are called by Go's and Kubernetes' words, as far as they are known.
pub fn architecture(machine: u16) -> Option<&'static str> {
    Some(match machine {
        3 => "386",
        40 => "arm",
        62 => "amd64",
        183 => "arm64",
        243 => "riscv64",
        _ => return None,
    })
}

/// `EM_*` and `ET_*` of elf.h.
const EXECUTABLE: u16 = 2;
const POSITION_INDEPENDENT: u16 = 3;
const INTERPRETER: u32 = 3;
/// A path is no longer (`PATH_MAX`).
const PATH_MAX: usize = 4096;

/// Whether `bytes` are a program for machines of `machine` (`e_machine`) that needs no loader.
///
/// # Errors
/// See [`Unfit`].
pub fn check(bytes: &[u8], machine: u16, is_64_bit: bool) -> Result<(), Unfit> {
    if !bytes.starts_with(b"\x7fELF") || bytes.get(5) != Some(&1) || bytes.get(6) != Some(&1) {
        return Err(Unfit::NotElf);
    }
    let wide = match bytes.get(4) {
        Some(1) => false,
        Some(2) => true,
        _ => return Err(Unfit::NotElf),
    };
    let file = Fields { bytes, wide };
    let head = || {
        let (table, size, count) = if wide { (32, 54, 56) } else { (28, 42, 44) };
        Some((file.short(16)?, file.short(18)?, file.address(table)?, file.short(size)?, file.short(count)?))
    };
    let (kind, found, table, size, count) = head().ok_or(Unfit::NotElf)?;
    if found != machine || wide != is_64_bit {
        return Err(Unfit::Machine(found));
    }
    if !matches!(kind, EXECUTABLE | POSITION_INDEPENDENT) || count == 0 {
        return Err(Unfit::NotProgram);
    }
    for number in 0..usize::from(count) {
        let at = usize::from(size).checked_mul(number).and_then(|offset| table.checked_add(offset));
        let at = at.ok_or(Unfit::NotElf)?;
        if file.word(at).ok_or(Unfit::NotElf)? == INTERPRETER {
            let (offset, length) = if wide { (8, 32) } else { (4, 16) };
            let path = at
                .checked_add(offset)
                .zip(at.checked_add(length))
                .and_then(|(offset, length)| Some((file.address(offset)?, file.address(length)?)))
                .and_then(|(from, length)| bytes.get(from..from.checked_add(length.min(PATH_MAX))?));
            let path = path.ok_or(Unfit::NotElf)?;
            return Err(Unfit::Loader(
                String::from_utf8_lossy(path).trim_end_matches('\0').escape_debug().to_string(),
            ));
        }
    }
    Ok(())
}

struct Fields<'a> {
    bytes: &'a [u8],
    wide: bool,
}

impl Fields<'_> {
    fn of<const LENGTH: usize>(&self, at: usize) -> Option<[u8; LENGTH]> {
        self.bytes.get(at..at.checked_add(LENGTH)?)?.try_into().ok()
    }

    fn short(&self, at: usize) -> Option<u16> {
        self.of(at).map(u16::from_le_bytes)
    }

    fn word(&self, at: usize) -> Option<u32> {
        self.of(at).map(u32::from_le_bytes)
    }

    fn address(&self, at: usize) -> Option<usize> {
        if self.wide {
            usize::try_from(u64::from_le_bytes(self.of(at)?)).ok()
        } else {
            usize::try_from(self.word(at)?).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X86: u16 = 62;

    /// The head of a program with one entry in its table, of the kind `INTERPRETER` where there is one.
    fn program(kind: u16, interpreter: Option<&[u8]>) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        bytes[16..18].copy_from_slice(&kind.to_le_bytes());
        bytes[18..20].copy_from_slice(&X86.to_le_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_le_bytes());
        bytes[64..68].copy_from_slice(&interpreter.map_or(1, |_| INTERPRETER).to_le_bytes());
        if let Some(path) = interpreter {
            bytes[72..80].copy_from_slice(&120_u64.to_le_bytes());
            bytes[96..104].copy_from_slice(&(path.len() as u64).to_le_bytes());
            bytes.extend(path);
        }
        bytes
    }

    #[test]
    fn a_program_without_a_loader_is_taken() {
        assert_eq!(check(&program(3, None), X86, true), Ok(()));
        assert_eq!(check(&program(2, None), X86, true), Ok(()));
    }

    #[test]
    fn each_unfit_file_is_told_apart() {
        assert_eq!(check(b"#!/bin/true\n", X86, true), Err(Unfit::NotElf));
        assert_eq!(check(&program(1, None), X86, true), Err(Unfit::NotProgram));
        assert_eq!(check(&program(3, None), 183, true), Err(Unfit::Machine(X86)));
        assert_eq!(check(&program(3, None), X86, false), Err(Unfit::Machine(X86)));
        let loader = Unfit::Loader("/lib64/ld-linux-x86-64.so.2".to_owned());
        assert_eq!(check(&program(3, Some(b"/lib64/ld-linux-x86-64.so.2\0")), X86, true), Err(loader));
    }

    #[test]
    fn no_file_that_ends_early_or_points_elsewhere_does_harm() {
        let whole = program(3, Some(b"/lib/ld\0"));
        for length in 0..whole.len() {
            assert!(check(&whole[..length], X86, true).is_err(), "{length}");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] = 0xff;
            drop(check(&bytes, X86, true));
            drop(check(&bytes, X86, false));
        }
    }
}
