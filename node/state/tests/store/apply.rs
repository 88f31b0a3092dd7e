//! What holds for every proposal, and the cluster's own commands.

use covey_state::{
    Store,
    cluster::{ClusterSpec, EdgePool, RaftSpec},
    command::{Command, Proposal, Refusal},
    event::{Change, Event},
    node::Role,
    task::{DesiredState, TaskState},
    time::Stamp,
};

use crate::scene::*;

#[test]
fn a_proposal_is_applied_whole_or_not_at_all() {
    let mut scene = Scene::new();
    let commands = vec![create_service(1, "a"), create_service(2, "b"), create_service(3, "a")];
    assert!(matches!(scene.all(commands), Err(Refusal::NameInUse { .. })));
    assert_eq!(scene.store.services().count(), 0);
}

/// API-08
#[test]
fn each_change_raises_the_version_of_what_it_changes_to_the_index_of_its_entry() {
    let mut scene = Scene::new();
    scene.ok(create_service(1, "a"));
    let created = scene.service_version(1);
    assert_eq!(created, scene.index);
    scene.ok(create_service(2, "b"));
    assert_eq!(scene.service_version(1), created);
    scene.update_service(1, service_spec("a")).unwrap();
    assert_eq!(scene.service_version(1), scene.index);
    assert_eq!(scene.store.last_changed(), scene.index);
}

#[test]
fn a_plan_is_refused_once_something_that_it_is_about_has_changed() {
    let mut scene = Scene::new();
    scene.ok(create_service(1, "a"));
    scene.ok(create_node(9, Role::Worker));
    let planned_at = Some(scene.store.last_changed());
    let plan = |commands| Proposal { planned_at, commands };
    scene.update_service(1, service_spec_of_image("a", "other:1")).unwrap();
    assert_eq!(scene.apply(&plan(vec![create_task(5, 1, 1)])), Err(Refusal::Stale));
    scene.update_node(9, node_spec(Role::Manager)).unwrap();
    let role = Command::SetNodeRole { id: id(9), role: Role::Worker };
    assert_eq!(scene.apply(&plan(vec![role])), Err(Refusal::Stale));
}

/// TSK-12: an attempt that a caller gave up may be applied after all, and the plan that follows it does not see it.
#[test]
fn a_plan_that_fills_a_slot_is_out_of_date_once_another_has_filled_it() {
    let mut scene = Scene::new();
    scene.ok(create_service(1, "a"));
    let plan = |planned_at, task, slot| {
        let commands = vec![create_task(task, 1, slot)];
        Proposal { planned_at: Some(planned_at), commands }
    };
    let planned_at = scene.store.last_changed();
    scene.apply(&plan(planned_at, 5, 1)).unwrap();
    assert_eq!(scene.apply(&plan(planned_at, 6, 1)), Err(Refusal::Stale));
    // One that ended since leaves its slot to plans that know of it.
    scene.all(vec![want(5, DesiredState::Shutdown), finish(5, TaskState::Shutdown)]).unwrap();
    assert_eq!(scene.apply(&plan(planned_at, 6, 1)), Err(Refusal::Stale));
    scene.apply(&plan(planned_at, 7, 2)).unwrap();
}

#[test]
fn a_plan_that_builds_on_what_is_gone_is_out_of_date_rather_than_wrong() {
    let mut scene = Scene::new();
    scene.ok(create_service(1, "a"));
    let planned_at = Some(scene.store.last_changed());
    scene.ok(Command::RemoveService { id: id(1) });
    let plan = Proposal { planned_at, commands: vec![create_task(5, 1, 1)] };
    assert_eq!(scene.apply(&plan), Err(Refusal::Stale));
}

/// Users who write all the time must not keep the leader from planning.
#[test]
fn a_plan_is_not_held_up_by_changes_elsewhere() {
    let mut scene = Scene::new();
    scene.ok(create_service(1, "a"));
    let planned_at = Some(scene.store.last_changed());
    scene.ok(create_service(2, "b"));
    let allocate = Command::AllocateTask { id: id(5) };
    let plan = Proposal { planned_at, commands: vec![create_task(5, 1, 1), allocate] };
    assert!(scene.apply(&plan).is_ok());
}

#[test]
fn an_entry_that_changes_nothing_makes_no_plan_stale() {
    let mut scene = Scene::new();
    scene.ok(create_node(1, Role::Worker));
    let planned_at = scene.store.last_changed();
    assert_eq!(scene.ok(Command::SetNodeLeft { id: id(1), left: false }), []);
    assert_eq!(scene.store.last_changed(), planned_at);
}

#[test]
fn time_never_goes_back() {
    let mut scene = Scene::new();
    let before = scene.store.last_at();
    let proposal = Proposal { planned_at: None, commands: vec![create_service(1, "a")] };
    scene.store.apply(99, Stamp(before.0 - 1_000), &proposal).unwrap();
    assert_eq!(scene.store.last_at(), Stamp(before.0 + 1));
    assert_eq!(scene.store.service(id(1)).unwrap().created_at, Stamp(before.0 + 1));
}

#[test]
fn events_say_what_was_touched_in_order() {
    let mut scene = Scene::new();
    scene.ok(create_node(1, Role::Worker));
    scene.ok(create_service(2, "a"));
    let task = |node, change| Event::Task { id: id(3), service: id(2), node, change };
    assert_eq!(
        scene.all(place_task(3, 2, 1, 1)).unwrap(),
        [task(None, Change::Created), task(None, Change::Updated), task(Some(id(1)), Change::Updated)]
    );
    assert_eq!(
        scene.ok(Command::RemoveService { id: id(2) }),
        [task(Some(id(1)), Change::Updated), Event::Service(id(2), Change::Removed)]
    );
}

/// QRM-01
#[test]
fn a_store_that_is_written_and_read_is_the_same_and_goes_on_the_same() {
    let mut scene = Scene::with_task_on_node(1, 2, 3);
    scene.update_service(1, service_spec("web")).unwrap();
    scene.all(place_task(4, 1, 2, 2)).unwrap();
    let bytes = encode(&scene.store);
    let read = decode(&bytes);
    read.check().unwrap();
    assert_eq!(read, scene.store);
    assert_eq!(encode(&read), bytes);

    let mut other = Scene { store: read, index: scene.index };
    for scene in [&mut scene, &mut other] {
        scene.ok(want(3, DesiredState::Shutdown));
        scene.all(place_task(5, 1, 1, 2)).unwrap();
    }
    assert_eq!(scene.store, other.store);
}

/// QRM-01
#[test]
fn a_snapshot_holds_each_task_spec_once() {
    let mut scene = Scene::new();
    scene.ok(create_node(1, Role::Worker));
    let mut spec = service_spec("web");
    spec.task.container.env = vec!["X".repeat(100_000)];
    scene.ok(Command::CreateService { id: id(2), spec });
    for task in 0..100 {
        scene.all(place_task(1_000 + task, 2, 1 + task as u64, 1)).unwrap();
    }
    let bytes = encode(&scene.store);
    assert!(bytes.len() < 300_000, "{} bytes", bytes.len());
    // `check` sees to it that reading makes them share again.
    decode(&bytes).check().unwrap();
}

#[test]
fn what_is_not_a_store_is_not_read() {
    let bytes = encode(&Scene::with_task_on_node(1, 2, 3).store);
    for end in 0..bytes.len() {
        assert!(covey_wire::decode::<Store, 65_536>(&bytes[..end]).is_err());
    }
}

#[test]
fn there_is_one_cluster_and_nothing_before_it() {
    let mut scene = Scene::default();
    assert!(matches!(scene.refused(create_node(1, Role::Manager)), Refusal::Invalid(_)));
    assert!(matches!(
        scene.refused(Command::SetJoinSecrets { version: 0, join: join(1) }),
        Refusal::Invalid(_)
    ));
    scene.ok(create_cluster(ClusterSpec::default()));
    assert!(matches!(scene.refused(create_cluster(ClusterSpec::default())), Refusal::Invalid(_)));
}

/// API-08
#[test]
fn settings_change_for_those_who_have_read_them_and_the_edge_pool_never() {
    let mut scene = Scene::new();
    let version = scene.store.cluster().unwrap().version;
    let spec = ClusterSpec { task_history_limit: 7, ..Default::default() };
    let update = |version, spec| Command::UpdateCluster { version, spec };
    scene.ok(update(version, spec.clone()));
    assert_eq!(scene.refused(update(version, spec.clone())), Refusal::OutOfSequence);
    let cluster = scene.store.cluster().unwrap();
    assert_eq!(cluster.spec.task_history_limit, 7);
    let version = cluster.version;
    let moved = EdgePool { v4: "10.0.0.0/8".parse().unwrap(), ..Default::default() };
    assert!(matches!(
        scene.refused(update(version, ClusterSpec { edge: moved, ..spec })),
        Refusal::Invalid(_)
    ));
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let raft = RaftSpec { election_tick: 1, ..Default::default() };
    let edge = EdgePool { v4_block: 32, ..Default::default() };
    for spec in [
        ClusterSpec { raft, ..Default::default() },
        ClusterSpec { edge, ..Default::default() },
        ClusterSpec { certificate_lifetime: std::time::Duration::ZERO, ..Default::default() },
    ] {
        assert!(matches!(Scene::default().refused(create_cluster(spec)), Refusal::Invalid(_)));
    }
}

#[test]
fn new_join_secrets_replace_the_old_for_those_who_have_read_them() {
    let mut scene = Scene::new();
    let version = scene.store.cluster().unwrap().version;
    let set = |version, number| Command::SetJoinSecrets { version, join: join(number) };
    assert_eq!(scene.ok(set(version, 1)), [Event::Cluster(Change::Updated)]);
    assert_eq!(scene.store.cluster().unwrap().join, join(1));
    assert_eq!(scene.refused(set(version, 2)), Refusal::OutOfSequence);
    scene.ok(set(scene.store.cluster().unwrap().version, 2));
}
