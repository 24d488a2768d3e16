//! The rules, held to the real tree.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::LazyLock;

use tidy::{
    Finding, Repository, code_map, dependencies, events, foreign_words, members, names, path_access,
    restricted_calls, single_homes, store_reads,
};

static REPOSITORY: LazyLock<Repository> = LazyLock::new(|| {
    let repository = Repository::read().expect("the repository can be read");
    // A rule over nothing holds always.
    assert!(repository.files.iter().any(|file| file.path == "beehive/src/lib.rs"), "no files were read");
    assert!(repository.packages.iter().any(|package| package.name == "tidy"), "no crates were read");
    repository
});

#[track_caller]
fn holds(found: &[Finding]) {
    let shown: Vec<String> = found.iter().map(|finding| format!("  {finding}")).collect();
    assert!(found.is_empty(), "{} place(s):\n{}", found.len(), shown.join("\n"));
}

#[test]
fn beehive_has_never_heard_of_what_runs_on_it() {
    holds(&foreign_words::foreign_to_beehive(&REPOSITORY.files));
}

#[test]
fn no_actor_depends_on_another_actor() {
    holds(&dependencies::between_modules(&REPOSITORY.packages));
}

#[test]
fn what_every_module_may_use_holds_no_actor() {
    holds(&dependencies::actors_in_shared(&REPOSITORY.files));
}

#[test]
fn imports_go_one_way() {
    holds(&dependencies::one_way(&REPOSITORY.packages));
}

#[test]
fn the_edge_has_no_kubernetes_client_and_the_cloud_no_broker_or_runtime() {
    holds(&dependencies::sides(&REPOSITORY.packages));
}

#[test]
fn what_is_open_to_measurements_stays_in_one_program() {
    holds(&dependencies::confined(&REPOSITORY.packages));
}

#[test]
fn only_contract_encodes_for_the_wire() {
    holds(&dependencies::wire_codec(&REPOSITORY.packages, &REPOSITORY.files));
}

#[test]
fn threads_clocks_randomness_queues_and_exits_stay_in_their_files() {
    holds(&restricted_calls::outside(&REPOSITORY.files));
}

#[test]
fn every_file_with_a_restricted_call_makes_it() {
    holds(&restricted_calls::unused(&REPOSITORY.files));
}

#[test]
fn nothing_that_a_container_reaches_is_touched_by_its_path() {
    holds(&path_access::by_path(&REPOSITORY.files));
}

#[test]
fn every_path_on_the_list_is_used() {
    holds(&path_access::unused(&REPOSITORY.files));
}

#[test]
fn names_are_in_the_words_of_the_field() {
    holds(&names::private_language(&REPOSITORY.files));
}

#[test]
fn every_name_on_the_list_of_those_that_are_left_is_there() {
    holds(&names::left_and_gone(&REPOSITORY.files));
}

#[test]
fn what_every_part_shares_has_one_home() {
    holds(&single_homes::second_homes(&REPOSITORY.files));
}

#[test]
fn every_listed_home_is_used() {
    holds(&single_homes::empty_homes(&REPOSITORY.files));
}

#[test]
fn files_do_not_import_each_other_in_circles() {
    holds(&single_homes::import_circles(&REPOSITORY.files));
}

#[test]
fn no_actor_waits_for_a_read_of_the_store() {
    holds(&store_reads::on_the_thread(&REPOSITORY.files));
}

#[test]
fn every_listed_reader_reads() {
    holds(&store_reads::unused(&REPOSITORY.files));
}

#[test]
fn nothing_starts_a_shell() {
    holds(&restricted_calls::shells(&REPOSITORY.files));
}

#[test]
fn every_name_says_something() {
    holds(&names::say_nothing(&REPOSITORY.files));
}

#[test]
fn the_root_holds_only_what_the_owner_listed() {
    holds(&names::at_the_root(&REPOSITORY.files));
}

#[test]
fn a_folder_has_its_crates_name() {
    holds(&members::folder_names(&REPOSITORY.packages));
}

#[test]
fn every_crate_takes_the_workspaces_lints() {
    holds(&members::lints(&REPOSITORY.packages));
}

#[test]
fn no_crate_is_a_stub() {
    holds(&members::stubs(&REPOSITORY));
}

#[test]
fn events_have_names_of_one_form_and_of_their_module() {
    holds(&events::misnamed(&REPOSITORY.files));
}

#[test]
fn the_code_map_names_what_is_there() {
    holds(&code_map::not_there(&REPOSITORY.files));
}
