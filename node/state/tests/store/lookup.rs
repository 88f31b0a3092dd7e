//! Finding what a user means.

use covey_state::{Id, lookup::LookupError, node::Role};

use crate::scene::*;

fn scene() -> Scene {
    let mut scene = Scene::new();
    for (node, host) in [("aaa1", "alpha"), ("aaa2", "beta"), ("bbb1", "beta")] {
        scene.ok(create_node_named(typed(node).bits(), Role::Worker, host));
    }
    scene.ok(create_service(typed("ccc1").bits(), "web"));
    scene.ok(create_service(typed("ccc2").bits(), "aaa"));
    scene.ok(create_task(typed("ddd1").bits(), typed("ccc1").bits(), 1));
    scene
}

/// The id that begins so.
fn typed(beginning: &str) -> Id {
    format!("{beginning:0<25}").parse().unwrap()
}

/// SVC-34
#[test]
fn a_service_is_found_by_name_full_id_or_the_beginning_of_its_id() {
    let scene = scene();
    let web = typed("ccc1");
    for text in ["web", &web.to_string(), "ccc1", "ccc10"] {
        assert_eq!(scene.store.find_service(text).unwrap().id, web, "{text}");
    }
    assert_eq!(scene.store.service_by_name("web").unwrap().id, web);
    let error = scene.store.find_service("ccc").unwrap_err();
    assert_eq!(error.to_string(), "service ccc is ambiguous (2 matches found)");
}

/// SVC-34
#[test]
fn an_exact_name_comes_before_the_beginning_of_an_id() {
    let mut scene = scene();
    scene.ok(create_service(typed("ddd").bits(), "ccc2"));
    assert_eq!(scene.store.find_service("ccc2").unwrap().id, typed("ddd"));
}

/// NOD-06, NOD-22
#[test]
fn a_host_name_that_several_nodes_have_is_ambiguous() {
    let scene = scene();
    let error = scene.store.find_node("beta").unwrap_err();
    assert_eq!(error.to_string(), "node beta is ambiguous (2 matches found)");
    assert_eq!(scene.store.find_node("alpha").unwrap().id, typed("aaa1"));
    assert_eq!(scene.store.find_node("bbb").unwrap().id, typed("bbb1"));
    assert!(matches!(scene.store.find_node("aaa"), Err(LookupError::Ambiguous { matches: 2, .. })));
}

#[test]
fn a_task_is_found_by_id_or_by_the_name_of_its_container() {
    let scene = scene();
    let task = typed("ddd1");
    for text in ["ddd", &task.to_string(), &format!("web.1.{task}")] {
        assert_eq!(scene.store.find_task(text).unwrap().id, task, "{text}");
    }
    for text in ["web.1", &format!("web.2.{task}"), &format!("x.{task}")] {
        assert!(matches!(scene.store.find_task(text), Err(LookupError::NotFound { .. })), "{text}");
    }
}

#[test]
fn what_names_nothing_is_not_found() {
    let scene = scene();
    let too_long = "a".repeat(26);
    for text in ["", "nothing", "AAA", "a a", "ää", "zzzzzzzzzzzzzzzzzzzzzzzzz", &too_long] {
        let error = scene.store.find_node(text).unwrap_err();
        assert_eq!(error.to_string(), format!("node {text} not found"));
    }
}

#[test]
fn the_beginning_of_the_largest_ids_finds_them() {
    let mut scene = Scene::new();
    scene.ok(create_node(u128::MAX, Role::Worker));
    let text = Id::new(u128::MAX).to_string();
    for length in 1..=text.len() {
        assert_eq!(scene.store.find_node(&text[..length]).unwrap().id, Id::new(u128::MAX));
    }
}
