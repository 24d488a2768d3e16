//! Rule 12: no read of the node's store on the hive's thread.
//!
//! A read waits for the disk, and every actor of EdgeCore would wait with it. So reads stand in functions that are not
//! asynchronous, in the files of the list below, and what calls those hands them to `blocking(…)`. The rule sees calls by
//! their names; it does not follow a function of a file on the list to whoever calls it, but for those that are named.

use crate::masked;
use crate::restricted_calls::is_test;
use crate::{File, Finding};

/// What reads the store: of the store itself, and of the files below.
const READS: &[&str] = &[
    ".get_object(",
    ".list_objects(",
    ".look_up(",
    ".object_keys(",
    ".object_versions()",
    ".outbox_head(",
    ".queue_head(",
    ".queue_head_without(",
    ".queue_turn(",
    ".newest_seq(",
    ".get_row(",
    ".list_rows(",
    "store.view(",
    "store.token(",
    "store.config_map(",
    "store.secret(",
    "object_reader::read",
    "store::load(",
];

/// Where functions that are not asynchronous may read, each with a reason.
const READERS: &[(&str, &str)] = &[
    ("modules/edge-edged/src/store.rs", "what Edged reads: called beside the thread"),
    ("modules/edge-edged/src/dependencies.rs", "the objects that a pod refers to: called beside the thread"),
    ("modules/edge-edged/src/pod/reported.rs", "a part of the view of the store"),
    ("modules/edge-edged/src/runs/record.rs", "the record of the run: handed to the thread beside"),
    ("modules/edge-metamanager/src/store.rs", "what MetaManager reads: handed to the thread beside"),
    ("modules/edge-devicerules/src/store.rs", "which rules have triggered: called beside the thread"),
    ("modules/edge-devicetwin/src/store.rs", "what DeviceTwin keeps: called beside the thread"),
    ("modules/edge-devicetwin/src/object_reader.rs", "what DeviceTwin reads: called beside the thread"),
    ("modules/edge-containermanager/src/store.rs", "what pods have: called beside the thread"),
    ("modules/edge-page/src/outbox.rs", "the head of the outbox: handed to the thread beside"),
    ("modules/edge-stream/src/pods.rs", "the pods that calls name: handed to a thread that may wait"),
    ("modules/edge-eventbus/src/kept_time.rs", "where the kept time stood: handed to the thread beside"),
    ("modules/edge-eventbus/src/rule_topics.rs", "the topics of rules: handed to the thread beside"),
    (
        "modules/edge-taskmanager/src/store.rs",
        "jobs and how far their parts are: handed to the thread beside",
    ),
    ("modules/edge-hub/src/certificates/servers.rs", "where the cloud is: read before the actors start"),
    ("modules/edge-servicebus/src/target_urls.rs", "the URLs of rules: handed to the thread beside"),
    ("edge/src/known_time.rs", "before the actors start, and beside the thread"),
];

/// The calls that run what they are given beside the thread.
const BESIDE: &[&str] = &["blocking(", "self.read("];

/// Reads of the store that a thread of actors waits for.
pub fn on_the_thread(files: &[File]) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| is_edge(&file.path)) {
        let code = masked::code(&file.text);
        let tests = masked::test_ranges(&code);
        let is_reader = READERS.iter().any(|(path, _)| *path == file.path);
        for at in reads(&code).filter(|at| !tests.iter().any(|range| range.contains(at))) {
            let waits = if is_reader { is_asynchronous(&code, at) } else { true };
            if waits && !is_beside(&code, at) {
                let what = "the node's store is read on the hive's thread (rule 12): hand the read to \
                            `cx.env().blocking(move || …).await`";
                found.push(Finding::new(&file.path, masked::line_of(&code, at), what));
            }
        }
    }
    found
}

/// Files on the list that read nothing.
pub fn unused(files: &[File]) -> Vec<Finding> {
    let reads_in = |path: &str| {
        files.iter().any(|file| file.path == path && reads(&masked::code(&file.text)).next().is_some())
    };
    READERS
        .iter()
        .filter(|(path, reason)| reason.is_empty() || !reads_in(path))
        .map(|(path, _)| {
            Finding::new(path, 1, "listed as a reader of the store and reads nothing: take it off")
        })
        .collect()
}

fn is_edge(path: &str) -> bool {
    let within = ["modules/edge-", "edge/src/"].iter().any(|root| path.starts_with(root));
    within && path.ends_with(".rs") && !path.starts_with("modules/edge-store/") && !is_test(path)
}

fn reads(code: &str) -> impl Iterator<Item = usize> {
    READS.iter().flat_map(move |read| code.match_indices(read).map(|(at, _)| at))
}

/// Whether the offset is within an asynchronous function, block or closure, as the innermost function sees it.
fn is_asynchronous(code: &str, at: usize) -> bool {
    let within = |start: usize| body(code, start, '{', '}').is_some_and(|body| body.contains(&at));
    let functions = code[..at].rmatch_indices("fn ").map(|(start, _)| start);
    let Some(function) = functions.into_iter().find(|start| within(*start)) else { return true };
    let is_async = code[..function].trim_end().ends_with("async");
    let blocks = code[function..at].match_indices("async").map(|(start, _)| function + start);
    is_async || blocks.into_iter().any(within)
}

/// Whether the offset is in what is given to one of [`BESIDE`].
fn is_beside(code: &str, at: usize) -> bool {
    let calls = BESIDE.iter().flat_map(|call| code[..at].match_indices(call).map(|(start, _)| start));
    calls.into_iter().any(|start| body(code, start, '(', ')').is_some_and(|body| body.contains(&at)))
}

/// From the first `open` after `start` to the `close` that belongs to it. Of a declaration without a body: nothing.
fn body(code: &str, start: usize, open: char, close: char) -> Option<std::ops::Range<usize>> {
    let first = start + code[start..].find([open, ';'])?;
    if !code[first..].starts_with(open) {
        return None;
    }
    let mut depth = 0_usize;
    for (at, found) in code[first..].char_indices() {
        if found == open {
            depth += 1;
        } else if found == close {
            depth -= 1;
            if depth == 0 {
                return Some(first..first + at);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTOR: &str = "modules/edge-x/src/actor.rs";

    fn found(path: &str, text: &str) -> usize {
        on_the_thread(&[File::new(path, text)]).len()
    }

    #[test]
    fn a_read_in_an_actor_is_found_and_one_beside_it_is_not() {
        for read in READS {
            let call = if read.ends_with(['(', ')']) { format!("{read}a)") } else { format!("{read}(a)") };
            let call = if read.starts_with('.') { format!("store{call}") } else { call };
            let bad = format!("impl Actor for X {{ async fn started(&mut self) {{ let a = {call}?; }} }}");
            assert_eq!(found(ACTOR, &bad), 1, "{read}");
            let hidden = format!("fn look(store: &Store) {{ {call} }}");
            assert_eq!(found(ACTOR, &hidden), 1, "not in a file on the list: {read}");
            let good = format!("async fn started() {{ cx.env().blocking(move || f({call})).await?; }}");
            assert_eq!(found(ACTOR, &good), 0, "{read}");
            assert_eq!(found("modules/edge-store/src/store.rs", &bad), 0);
            assert_eq!(found("modules/edge-x/tests/actor.rs", &bad), 0);
            assert_eq!(found(ACTOR, &format!("#[cfg(test)]\nmod tests {{ {bad} }}")), 0);
        }
    }

    #[test]
    fn a_reader_on_the_list_is_not_asynchronous() {
        for (path, _) in READERS {
            let text = |function: &str| format!("{function} {{ store.get_row(a, b, c) }}");
            assert_eq!(found(path, &text("fn kept(store: &Store) -> u8")), 0, "{path}");
            assert_eq!(found(path, &text("async fn kept(store: &Store) -> u8")), 1, "{path}");
            assert_eq!(found(path, "fn f() { let x = async move { store.get_row(a) }; }"), 1, "{path}");
            assert_eq!(found(path, "async fn a() {} fn f() { store.get_row(a) }"), 0, "{path}");
            assert_eq!(
                found(path, "async fn f() { self.read(|store| store.get_row(a)).await }"),
                0,
                "{path}"
            );
        }
    }

    #[test]
    fn a_read_after_what_runs_beside_is_found() {
        let text = "async fn f() { env.blocking(move || work()).await; store.get_row(a); }";
        assert_eq!(found(ACTOR, text), 1);
    }
}
