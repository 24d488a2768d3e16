//! What LLVM's linker says of a program that it has linked (`-Map`): where each section of code went, and whence it came.

use std::fmt;

/// More sections are of no program of ours: edgecore has 33,000.
const SECTIONS: usize = 1_000_000;
/// Names of monomorphic functions have hundreds of bytes; a linker's script has none of more.
const NAME_MAX: usize = 2_000;
/// 256 MiB: what a program's code may span.
const EXTENT_MAX: u64 = 256 << 20;

/// How a linker's script names a section.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// By its own name after `.text.`, which is its function's, as Rust and `-ffunction-sections` have it. The hash of Rust's names, which
    /// tells the same function for several types apart and changes with every compiler, stands by itself.
    Function { name: String, hash: String },
    /// By the archive and the member whose only code it is, as those of libc and of what is written in assembly: `libc.a:malloc.o`.
    Member(String),
}

impl Place {
    /// The function's name and hash, which may be empty.
    pub(crate) fn function(&self) -> Option<(&str, &str)> {
        if let Place::Function { name, hash } = self { Some((name, hash)) } else { None }
    }

    /// The archive's and the member's name, and no hash.
    pub(crate) fn member(&self) -> Option<(&str, &str)> {
        if let Place::Member(name) = self { Some((name, "")) } else { None }
    }
}

/// A section of code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    /// Where it begins, counted as the program's file does.
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) size: u64,
    /// Nothing, if no script can name it.
    pub(crate) place: Option<Place>,
    /// The same function for a processor that the machine which ran it may not have: it is used where that one is.
    pub(crate) variant: bool,
}

/// A program's code, by where it stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LinkMap {
    /// Where the kernel starts it.
    pub(crate) entry: u64,
    /// In the order of where they begin.
    pub(crate) sections: Vec<Section>,
}

/// Why a map is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// No row says where `_start` is.
    NoEntry,
    /// It has no section of code.
    NoCode,
    /// It has a million sections, or code of 256 MiB.
    TooMuch,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unreadable::NoEntry => {
                "the linker's map has no symbol _start: is it LLVM's linker's, of a program?"
            }
            Unreadable::NoCode => {
                "the linker's map has no section of code: is it LLVM's linker's, of a program?"
            }
            Unreadable::TooMuch => {
                "the linker's map tells of more than a million sections, or of more than 256 MiB of code"
            }
        })
    }
}

impl LinkMap {
    /// Reads rows: two addresses, size and alignment in columns, then an output section, below it `FILE:(SECTION)`, below that symbols.
    pub(crate) fn read(text: &str) -> Result<LinkMap, Unreadable> {
        let (mut entry, mut sections, mut in_code) = (None, Vec::new(), false);
        for line in text.lines() {
            let Some((start, size, rest)) = row(line) else { continue };
            let name = rest.trim_start();
            match rest.len() - name.len() {
                1 => in_code = name == ".text" || name.starts_with(".text."),
                9 if in_code && size > 0 => {
                    if sections.len() == SECTIONS
                        || start.checked_add(size).is_none_or(|end| end > EXTENT_MAX)
                    {
                        return Err(Unreadable::TooMuch);
                    }
                    let (file, section) =
                        name.strip_suffix(')').and_then(|name| name.rsplit_once(":(")).unwrap_or_default();
                    let place = place(file, section);
                    let variant = matches!(section, ".text.avx" | ".text.evex" | ".text.evex512");
                    sections.push(Section { start, size, place, variant });
                }
                17 if in_code && name == "_start" => entry = Some(start),
                _ => {}
            }
        }
        if sections.is_empty() {
            return Err(Unreadable::NoCode);
        }
        sections.sort_by_key(|section| section.start);
        Ok(LinkMap { entry: entry.ok_or(Unreadable::NoEntry)?, sections })
    }

    /// Where the last section ends.
    pub(crate) fn end(&self) -> u64 {
        self.sections.iter().map(|section| section.start + section.size).max().unwrap_or_default()
    }
}

/// The first address, the size, and all after the four columns, with the blanks that say what it is.
fn row(line: &str) -> Option<(u64, u64, &str)> {
    let mut rest = line;
    let mut columns = [""; 4];
    for column in &mut columns {
        rest = rest.trim_start();
        (*column, rest) = rest.split_at(rest.find(' ')?);
    }
    Some((u64::from_str_radix(columns[0], 16).ok()?, u64::from_str_radix(columns[2], 16).ok()?, rest))
}

fn place(file: &str, section: &str) -> Option<Place> {
    let member = file.strip_suffix(')').and_then(|file| file.rsplit_once('('));
    let function = section.strip_prefix(".text.").filter(|name| !name.is_empty());
    match (member, function) {
        // Rust's archives have a section for each function, but for what is written in assembly. Those of C's library have names
        // of processors there.
        (Some((archive, member)), function) if function.is_none() || !archive.ends_with(".rlib") => {
            let archive = archive.rsplit_once('/').map_or(archive, |(_, name)| name);
            let (stem, kind) = archive.rsplit_once('.')?;
            // Versions and hashes stand behind the first dash, and before a member's.
            let stem = stem.split_once('-').map_or(stem.to_owned(), |(stem, _)| format!("{stem}-*"));
            let is_hash = |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let member = match member.split_once('-') {
                Some((hash, name)) if is_hash(hash) => format!("*-{name}"),
                _ => member.to_owned(),
            };
            fits(&format!("{stem}.{kind}:{member}")).then(|| Place::Member(format!("{stem}.{kind}:{member}")))
        }
        (_, Some(function)) => {
            let (name, hash) = without_hashes(function);
            fits(&name).then(|| Place::Function { name, hash: hash.to_owned() })
        }
        _ => None,
    }
}

/// A name that a linker's script can hold without quotation marks.
fn fits(name: &str) -> bool {
    name.len() <= NAME_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.$-*:+".contains(&byte))
}

/// Rust's names end in a hash (`17h…E`), or name each crate with one (`Cs…_`).
fn without_hashes(name: &str) -> (String, &str) {
    let hash = name.rmatch_indices("17h").find_map(|(at, _)| {
        let (hash, rest) = name.get(at + 3..)?.split_at_checked(16)?;
        let is_hash = rest.starts_with('E') && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then(|| (format!("{}17h*", &name[..at]), hash))
    });
    if let Some(found) = hash {
        return found;
    }
    let (mut out, mut rest) = (String::new(), name);
    let is_new = name.starts_with("_R") || name.starts_with("unlikely._R");
    while let Some((before, after)) = rest.split_once("Cs").filter(|_| is_new) {
        let end = after.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(after.len());
        let is_hash = after[end..].starts_with('_') && (8..=14).contains(&end);
        out.push_str(before);
        out.push_str(if is_hash { "Cs*" } else { "Cs" });
        rest = if is_hash { &after[end..] } else { after };
    }
    (out + rest, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "\
             VMA              LMA     Size Align Out     In      Symbol
            2380             2380   127d54   128 .rodata
            2380             2380      120     4         /x/edgecore.o:(.rodata._RNvMs5_NtCsjrHSEGnQ3l9_3std2io)
          402540           402540   dadc58    64 .text.steady
          402540           402540       22    16         /usr/lib/rcrt1.o:(.text)
          402540           402540       22     1                 _start
          402629           402629       3a     1         /x/edgecore.o:(.text._RNvMNtCsgEmfK2I1SDS_4core4timeNtB2_8Duration3new)
          402629           402629       3a     1                 <core::time::Duration>::new
          402700           402700       10     1         /x/edgecore.o:(.text.unlikely._ZN3app4fail17h0123456789abcdefE.llvm.123)
          402710           402710        0     1         /x/edgecore.o:(.text.empty)
          402720           402720       10     1 .text
          402720           402720       10     1         /x/edgecore.o:(.text._ZN3app3run17h0123456789abcdefE)
          402730           402730       10     1         /x/libsqlite3_sys-81a30bd0f6683314.rlib(cafe-sqlite3.o):(.text.sqlite3Step)
          402740           402740       20    16         /x/libaws_lc_sys-81a30bd0f6683314.rlib(6cca901d1d9807b8-x86_64-mont.o):(.text)
          402760           402760       20    16         /x/libm-2.36.a(s_trunc.o):(.text)
          402780           402780       20    16         /x/libc.a(strlen-evex.o):(.text.evex)
          4027a0           4027a0       20    16         /x/edgecore.o:(.text.a b; } /DISCARD/ : { *(*)})
";

    #[test]
    fn each_section_of_code_is_named_as_a_script_can() {
        let map = LinkMap::read(MAP).unwrap();
        assert_eq!((map.entry, map.end()), (0x0040_2540, 0x0040_27c0));
        let places: Vec<(u64, u64, Option<Place>, bool)> =
            map.sections.into_iter().map(|one| (one.start, one.size, one.place, one.variant)).collect();
        let function = |name: &str| Some(Place::Function { name: name.to_owned(), hash: String::new() });
        let hashed =
            |name: &str| Some(Place::Function { name: name.to_owned(), hash: "0123456789abcdef".to_owned() });
        let member = |name: &str| Some(Place::Member(name.to_owned()));
        assert_eq!(
            places,
            [
                (0x0040_2540, 0x22, None, false),
                (0x0040_2629, 0x3a, function("_RNvMNtCs*_4core4timeNtB2_8Duration3new"), false),
                (0x0040_2700, 0x10, hashed("unlikely._ZN3app4fail17h*"), false),
                (0x0040_2720, 0x10, hashed("_ZN3app3run17h*"), false),
                (0x0040_2730, 0x10, function("sqlite3Step"), false),
                (0x0040_2740, 0x20, member("libaws_lc_sys-*.rlib:*-x86_64-mont.o"), false),
                (0x0040_2760, 0x20, member("libm-*.a:s_trunc.o"), false),
                (0x0040_2780, 0x20, member("libc.a:strlen-evex.o"), true),
                (0x0040_27a0, 0x20, None, false),
            ]
        );
    }

    #[test]
    fn what_is_no_map_is_refused() {
        assert_eq!(LinkMap::read(""), Err(Unreadable::NoCode));
        assert_eq!(LinkMap::read("0 0\nVMA LMA\n1 1 1 1\n"), Err(Unreadable::NoCode));
        assert_eq!(LinkMap::read(&MAP.replace("_start", "begin")), Err(Unreadable::NoEntry));
        for huge in ["ffffffffffffffff", "10000001"] {
            assert_eq!(
                LinkMap::read(&MAP.replacen("  402540", &format!("  {huge}"), 3)),
                Err(Unreadable::TooMuch)
            );
        }
    }
}
