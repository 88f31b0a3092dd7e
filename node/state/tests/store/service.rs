//! Services: names, versions, what an update changes and what it leaves alone.

use covey_state::{
    command::{Command, Refusal},
    service::{Mode, REPLICAS_MAX, Service, ServiceSpec, UpdateState, UpdateStatus},
    task::DesiredState,
    time::Stamp,
};

use crate::scene::*;

fn service(scene: &Scene) -> &Service {
    scene.store.service(id(1)).unwrap()
}

fn scene() -> Scene {
    let mut scene = Scene::new();
    scene.ok(create_service(1, "web"));
    scene
}

fn with_image(image: &str) -> ServiceSpec {
    let mut spec = service_spec("web");
    spec.task.container.image = image.into();
    spec
}

fn scaled(replicas: u64) -> ServiceSpec {
    ServiceSpec { mode: Mode::Replicated { replicas }, ..service_spec("web") }
}

fn completed() -> UpdateStatus {
    UpdateStatus {
        state: UpdateState::Completed,
        started_at: Stamp(1),
        completed_at: Some(Stamp(2)),
        message: "update completed".into(),
    }
}

/// SVC-04
#[test]
fn two_services_cannot_have_one_name() {
    let mut scene = scene();
    let refusal = scene.refused(create_service(2, "web"));
    assert_eq!(refusal.to_string(), "name conflicts with an existing object: service web already exists");
    scene.ok(Command::RemoveService { id: id(1) });
    scene.ok(create_service(2, "web"));
}

/// SVC-05
#[test]
fn a_service_keeps_its_name() {
    let refusal = scene().update_service(1, service_spec("other")).unwrap_err();
    assert_eq!(refusal, Refusal::Invalid("renaming services is not supported".into()));
}

/// API-08
#[test]
fn a_service_changes_for_those_who_have_read_it() {
    let mut scene = scene();
    let version = scene.service_version(1);
    scene.update_service(1, scaled(2)).unwrap();
    let late = Command::UpdateService { id: id(1), version, spec: scaled(3) };
    assert_eq!(scene.refused(late), Refusal::OutOfSequence);
    assert_eq!(service(&scene).spec, scaled(2));
}

/// API-08
#[test]
fn nobody_can_have_read_what_the_same_entry_wrote() {
    let mut scene = Scene::new();
    let version = scene.index + 1;
    let update = Command::UpdateService { id: id(1), version, spec: with_image("nginx:2") };
    let commands = vec![create_service(1, "web"), create_task(2, 1, 1), update];
    assert_eq!(scene.all(commands), Err(Refusal::OutOfSequence));
}

/// SVC-39, SVC-20
#[test]
fn scaling_even_to_nothing_touches_neither_tasks_nor_spec_version() {
    let mut scene = scene();
    scene.ok(create_task(2, 1, 1));
    let (spec_version, task) = (service(&scene).spec_version, scene.store.task(id(2)).unwrap().clone());
    for replicas in [5, 0, 1] {
        scene.update_service(1, scaled(replicas)).unwrap();
        assert_eq!(service(&scene).spec_version, spec_version);
        assert_eq!(scene.store.task(id(2)), Some(&task));
    }
    assert_eq!(scene.store.services().count(), 1);
}

/// UPD-13
#[test]
fn a_change_of_the_update_policy_starts_no_update() {
    let mut scene = scene();
    let spec_version = service(&scene).spec_version;
    let mut spec = service_spec("web");
    spec.update.parallelism = 9;
    scene.update_service(1, spec.clone()).unwrap();
    assert_eq!((service(&scene).spec_version, &service(&scene).spec), (spec_version, &spec));
}

/// UPD-14
#[test]
fn a_change_of_what_tasks_run_and_force_alone_make_a_new_spec_version() {
    let mut scene = scene();
    scene.update_service(1, with_image("nginx:2")).unwrap();
    assert_eq!(service(&scene).spec_version, scene.index);
    let mut forced = with_image("nginx:2");
    forced.task.force_update += 1;
    scene.update_service(1, forced).unwrap();
    assert_eq!(service(&scene).spec_version, scene.index);
}

/// SVC-35
#[test]
fn the_previous_spec_is_the_whole_spec_before_the_last_change() {
    let mut scene = scene();
    assert_eq!(service(&scene).previous_spec, None);
    scene.update_service(1, with_image("nginx:2")).unwrap();
    assert_eq!(service(&scene).previous_spec.as_deref(), Some(&service_spec("web")));
    scene.update_service(1, with_image("nginx:3")).unwrap();
    assert_eq!(service(&scene).previous_spec.as_deref(), Some(&with_image("nginx:2")));
}

/// C-58
#[test]
fn an_update_that_changes_nothing_keeps_the_way_back() {
    let mut scene = scene();
    scene.update_service(1, with_image("bad")).unwrap();
    let paused = UpdateStatus { state: UpdateState::Paused, ..completed() };
    scene.ok(Command::SetUpdateStatus { id: id(1), status: Some(paused) });
    let spec_version = service(&scene).spec_version;
    scene.update_service(1, with_image("bad")).unwrap();
    assert_eq!(service(&scene).previous_spec.as_deref(), Some(&service_spec("web")));
    assert_eq!(service(&scene).spec_version, spec_version);
    // That resumes the update (UPD-09): nothing says any longer that it is paused.
    assert_eq!(service(&scene).update_status, None);
}

#[test]
fn a_fresh_update_does_not_look_completed() {
    let mut scene = scene();
    scene.ok(Command::SetUpdateStatus { id: id(1), status: Some(completed()) });
    assert_eq!(service(&scene).update_status, Some(completed()));
    assert_eq!(scene.ok(Command::SetUpdateStatus { id: id(1), status: Some(completed()) }), []);
    scene.update_service(1, with_image("nginx:2")).unwrap();
    assert_eq!(service(&scene).update_status, None);
}

/// C-21
#[test]
fn a_reservation_above_its_limit_is_refused_at_create_and_at_update() {
    let mut spec = service_spec("web");
    spec.task.resources.limits.nano_cpus = 500_000_000;
    spec.task.resources.reservations.nano_cpus = 750_000_000;
    let refusal =
        Refusal::Invalid("the cpu reservation (750000000) must not exceed the cpu limit (500000000)".into());
    assert_eq!(scene().update_service(1, spec.clone()), Err(refusal.clone()));
    let create = Command::CreateService { id: id(1), spec: spec.clone() };
    assert_eq!(Scene::new().refused(create), refusal);
    spec.task.resources.limits.nano_cpus = 750_000_000;
    scene().update_service(1, spec).unwrap();
}

#[test]
fn a_spec_that_no_service_may_have_is_refused() {
    for spec in [service_spec(""), service_spec("a b"), with_image(""), scaled(REPLICAS_MAX + 1)] {
        let create = Command::CreateService { id: id(1), spec };
        assert!(matches!(Scene::new().refused(create), Refusal::Invalid(_)));
    }
}

/// SVC-20
#[test]
fn a_removed_service_is_gone_at_once_and_its_tasks_are_to_be_removed() {
    let mut scene = Scene::with_task_on_node(1, 2, 3);
    scene.ok(create_task(4, 1, 2));
    scene.ok(Command::RemoveService { id: id(1) });
    assert_eq!(scene.store.services().count(), 0);
    assert!(scene.store.service_by_name("web").is_none());
    let tasks: Vec<_> = scene.store.tasks_of_service(id(1)).map(|task| task.desired).collect();
    assert_eq!(tasks, [DesiredState::Remove; 2]);
    assert_eq!(
        scene.refused(Command::RemoveService { id: id(1) }).to_string(),
        format!("service {} not found", id(1))
    );
}

#[test]
fn a_new_service_does_not_inherit_the_tasks_of_a_removed_one() {
    let mut scene = Scene::with_task_on_node(1, 2, 3);
    scene.ok(Command::RemoveService { id: id(1) });
    assert!(matches!(scene.refused(create_service(1, "web")), Refusal::Invalid(_)));
}
