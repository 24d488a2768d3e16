//! The linker's script: what runs while a node is idle first, what runs only at its start next, all else after.

use std::collections::BTreeMap;

use super::link_map::{LinkMap, Place, Section};
use super::patterns::{Patterns, Price, Weight, patterns};
use super::trace::Trace;

/// What stands in its head.
const HEAD: &str = "\
/* Where edgecore's code stands in its file, for LLVM's linker: what runs while a node is idle, then what runs only at its start, then all
   else. The kernel maps 64 kB around each page of code that is used: a node's memory is how far what it uses is spread.

   Made by `cargo soak -- code-order`, which ran edgecore under an emulator. Names are those of sections, without hashes; many functions
   stand under a beginning that few others share. Nothing breaks when this is out of date: a pattern that matches nothing costs nothing,
   and a function without a pattern stands with all else. Make it anew when edgecore's resident memory has grown. */
";
/// What runs in fewer parts of the time than this, of all but the first, is what a link needs that comes up again, or the like.
const SELDOM: u32 = 5;
/// A letter of what runs always is worth this many bytes of what is taken in with it, of what runs once more of them: its pages are
/// given back.
const STEADY_LETTER: u64 = 8;
const START_LETTER: u64 = 100;

/// What was found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Sections of code that ran.
    pub(crate) sections: usize,
    /// Bytes of those that ran again and again.
    pub(crate) steady: u64,
    /// Bytes of the others.
    pub(crate) start: u64,
}

/// When a section is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ran {
    Never,
    Start,
    Steady,
}

/// The script for a program that ran so: in the first part of the time it started, in all others it was idle.
pub(crate) fn script(map: &LinkMap, trace: &Trace) -> (String, Figures) {
    let mut ran: Vec<Ran> = map
        .sections
        .iter()
        .map(|section| match trace.ran(section.start, section.size) {
            0 => Ran::Never,
            parts if (parts & !1).count_ones() < SELDOM => Ran::Start,
            _ => Ran::Steady,
        })
        .collect();
    let mut figures = Figures::default();
    for (section, ran) in map.sections.iter().zip(&ran) {
        match ran {
            Ran::Never => continue,
            Ran::Start => figures.start += section.size,
            Ran::Steady => figures.steady += section.size,
        }
        figures.sections += 1;
    }
    with_variants(map, &mut ran);
    // In one section: what came to the same machine code is linked once, but not over two of them.
    let mut text = format!("{HEAD}SECTIONS\n{{\n.text : {{\n");
    let mut kin = Vec::new();
    for (wanted, name, letter) in
        [(Ran::Steady, "always", STEADY_LETTER), (Ran::Start, "at the start, and seldom", START_LETTER)]
    {
        let functions = list(map, &ran, wanted, Place::function, Price { letter, around: ".text.\n".len() });
        let members =
            list(map, &ran, wanted, Place::member, Price { letter, around: "*(.text .text.*)\n".len() });
        write(&mut text, name, &functions.wanted, &members.wanted);
        kin.extend(functions.kin);
    }
    write(&mut text, "the same functions for other types, and for these with another compiler", &kin, &[]);
    text.push_str("}\n}\nINSERT BEFORE .init;\n");
    (text, figures)
}

/// Patterns for the sections that ran so, of those that have the name which is asked for.
fn list(
    map: &LinkMap,
    ran: &[Ran],
    wanted: Ran,
    name: fn(&Place) -> Option<(&str, &str)>,
    price: Price,
) -> Patterns {
    let mut names: BTreeMap<&str, Weight<'_>> = BTreeMap::new();
    for (section, ran) in map.sections.iter().zip(ran) {
        let Some((name, hash)) = section.place.as_ref().and_then(name) else { continue };
        let weight = names.entry(name).or_default();
        match ran {
            ran if *ran == wanted => {
                weight.wanted += section.size;
                if !hash.is_empty() {
                    weight.hashes.push(hash);
                }
            }
            // It would stand in the other list anyway, which is the first.
            Ran::Steady => {}
            Ran::Start | Ran::Never => weight.unwanted += section.size,
        }
    }
    patterns(&names, price)
}

fn write(text: &mut String, what: &str, functions: &[String], members: &[String]) {
    text.push_str(&format!("/* {what} */\n"));
    if !functions.is_empty() {
        text.push_str("*(\n");
        for pattern in functions {
            text.push_str(&format!(".text.{pattern}\n"));
        }
        text.push_str(")\n");
    }
    for pattern in members {
        text.push_str(&format!("*{pattern}(.text .text.*)\n"));
    }
}

/// C's library has some functions once for each kind of processor, and the emulator's is not that of a node: where one has run, any may.
fn with_variants(map: &LinkMap, ran: &mut [Ran]) {
    let stem = |section: &Section| {
        let (member, _) = section.place.as_ref().and_then(Place::member)?;
        Some(member.split_once('-')?.0.to_owned())
    };
    let mut by_stem: BTreeMap<String, Ran> = BTreeMap::new();
    for (section, ran) in map.sections.iter().zip(ran.iter()) {
        if let Some(stem) = stem(section) {
            let most = by_stem.entry(stem).or_insert(Ran::Never);
            *most = (*most).max(*ran);
        }
    }
    for (section, ran) in map.sections.iter().zip(ran) {
        if section.variant {
            *ran = stem(section).and_then(|stem| by_stem.get(&stem).copied()).unwrap_or(*ran);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sections of 16 bytes one after the other, and the parts of the time in which each ran.
    fn made(sections: &[(&str, u32)]) -> (String, Figures) {
        let mut map = "1000 1000 10 1 .text\n1000 1000 10 1         rcrt1.o:(.text)\n1000 1000 10 1                 _start\n".to_owned();
        let mut log = vec![(0x1000, 1)];
        for (at, (section, ran)) in (0x1010_u64..).step_by(16).zip(sections) {
            map.push_str(&format!("{at:x} {at:x} 10 1         {section}\n"));
            log.push((at + 4, *ran));
        }
        let map = LinkMap::read(&map).unwrap();
        let mut trace = Trace::of(&map);
        for (address, parts) in log {
            for part in (0..32).filter(|part| parts >> part & 1 == 1) {
                trace.read(format!("Trace 0: 0x1 [0/{address:x}/0/0] f\n").as_bytes(), part).unwrap();
            }
        }
        let (script, figures) = script(&map, &trace);
        (script.strip_prefix(HEAD).unwrap().to_owned(), figures)
    }

    #[test]
    fn what_runs_always_stands_first_then_what_ran_once() {
        let (script, figures) = made(&[
            ("e.o:(.text._ZN3app4idle17h0123456789abcdefE)", 0x1f_0000),
            ("e.o:(.text._ZN3app4join17h0123456789abcdefE)", 0x0f_0001),
            ("e.o:(.text._ZN3app5never17h0123456789abcdefE)", 0),
            ("e.o:(.text._ZN3log3say17h0123456789abcdefE)", 0x3e),
            ("libc.a(malloc.o):(.text)", u32::MAX),
            ("libc.a(getenv.o):(.text)", 0x1f),
            ("libc.a(qsort.o):(.text)", 0),
        ]);
        // So little is cheaper than patterns that leave it out.
        assert_eq!(
            script,
            "SECTIONS\n{\n.text : {\n/* always */\n*(\n.text.*\n)\n**(.text .text.*)\n\
             /* at the start, and seldom */\n*(\n.text.*\n)\n**(.text .text.*)\n\
             /* the same functions for other types, and for these with another compiler */\n\
             }\n}\nINSERT BEFORE .init;\n"
        );
        assert_eq!(figures, Figures { sections: 6, steady: 48, start: 48 });
    }

    #[test]
    fn what_another_processor_would_run_stands_with_what_ran() {
        let (map, mut ran) = (
            LinkMap::read(
                "1 1 1 1 .text\n1 1 1 1                 _start\n1 1 1 1         libc.a(strlen-avx2.o):(.text.avx)\n\
                 2 2 1 1         libc.a(strlen-evex.o):(.text.evex)\n3 3 1 1         libc.a(strlen-sse2.o):(.text)\n",
            )
            .unwrap(),
            vec![Ran::Steady, Ran::Never, Ran::Never],
        );
        with_variants(&map, &mut ran);
        assert_eq!(ran, [Ran::Steady, Ran::Steady, Ran::Never]);
    }

    #[test]
    fn the_script_that_edgecore_is_linked_with_is_one_of_these() {
        let committed = include_str!("../../../../edge/code_order.ld");
        let (lists, end) = committed.strip_prefix(HEAD).unwrap().rsplit_once("}\n}\n").unwrap();
        assert_eq!(end, "INSERT BEFORE .init;\n");
        assert!(committed.len() < 128 << 10, "{} bytes", committed.len());
        let patterns = lists.lines().filter(|line| line.starts_with(".text.")).count();
        assert!(patterns > 1_000, "{patterns}");
    }
}
