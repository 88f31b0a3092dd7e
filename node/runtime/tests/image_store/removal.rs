//! `tag` and `rmi`, with Docker's conflicts.

use covey_runtime::image::{Digest, ImageUse, Removal};
use serde_json::json;

use crate::fixture::{Fixture, Tar, docker_archive, open, silent};

fn unused(_: Digest) -> Option<ImageUse> {
    None
}

fn stopped(_: Digest) -> Option<ImageUse> {
    Some(ImageUse { container: "c0ffee".into(), running: false })
}

fn running(_: Digest) -> Option<ImageUse> {
    Some(ImageUse { container: "c0ffee".into(), running: true })
}

/// A store with one image of one layer, or of the same below and another.
async fn with_image(layers: &[&str], tags: &[&str]) -> (Fixture, Digest) {
    let fixture = Fixture::new();
    let id = add(&fixture, layers, tags).await;
    (fixture, id)
}

async fn add(fixture: &Fixture, layers: &[&str], tags: &[&str]) -> Digest {
    let layers: Vec<_> = layers.iter().map(|file| Tar::default().file(file, "").end()).collect();
    let archive = docker_archive(&layers, json!({}), tags);
    fixture.store.load(&archive[..], silent()).await.unwrap()[0].id
}

/// CTR-06
#[tokio::test]
async fn an_image_goes_with_its_last_name_and_takes_its_own_layers() {
    let (fixture, id) = with_image(&["base"], &["a:1"]).await;
    let other = add(&fixture, &["base", "top"], &["b:1"]).await;
    fixture.store.tag("a:1", &"a:2".parse().unwrap()).await.unwrap();
    let untagged = fixture.store.remove("a:1", false, unused).await.unwrap();
    assert_eq!(untagged, [Removal::Untagged("a:1".into())]);
    let gone = fixture.store.remove("b:1", false, unused).await.unwrap();
    assert_eq!(gone[..2], [Removal::Untagged("b:1".into()), Removal::Deleted(other)]);
    assert_eq!(gone.len(), 3, "the shared layer stays: {gone:?}");
    let last = fixture.store.remove("a:2", false, unused).await.unwrap();
    assert_eq!(last[..2], [Removal::Untagged("a:2".into()), Removal::Deleted(id)]);
    assert!(fixture.layer_dirs().is_empty());
    assert!(open(fixture.dir.path()).unwrap().list().await.is_empty());
    let error = fixture.store.remove("a:2", false, unused).await.unwrap_err();
    assert_eq!(error.to_string(), "No such image: a:2");
}

/// CTR-06
#[tokio::test]
async fn an_image_in_use_stays_in_dockers_words() {
    let (fixture, id) = with_image(&["x"], &["a:1"]).await;
    let short = id.short();
    let store = &fixture.store;
    let text =
        |result: Result<Vec<Removal>, covey_runtime::image::RemoveError>| result.unwrap_err().to_string();
    assert_eq!(
        text(store.remove("a:1", false, stopped).await),
        format!(
            "conflict: unable to remove repository reference \"a:1\" (must force) - container c0ffee is using its referenced image {short}"
        )
    );
    assert_eq!(
        text(store.remove(&short, false, stopped).await),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container c0ffee"
        )
    );
    assert_eq!(
        text(store.remove(&short, true, running).await),
        format!(
            "conflict: unable to delete {short} (cannot be forced) - image is being used by running container c0ffee"
        )
    );
    store.tag("a:1", &"b:1".parse().unwrap()).await.unwrap();
    assert_eq!(
        text(store.remove(&short, false, unused).await),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )
    );
    assert_eq!(store.list().await[0].tags, ["a:1", "b:1"], "nothing has changed");
    let names = store.remove("a:1", false, running).await.unwrap();
    assert_eq!(names, [Removal::Untagged("a:1".into())], "another name is left");
    let forced = store.remove("b:1", true, running).await.unwrap();
    assert_eq!(forced, [Removal::Untagged("b:1".into())]);
    assert_eq!(
        (store.list().await[0].id, store.list().await[0].tags.len()),
        (id, 0),
        "it stays without a name"
    );
}

/// CTR-06
#[tokio::test]
async fn layers_stay_under_a_container_whose_image_was_deleted() {
    let (fixture, id) = with_image(&["x"], &["a:1"]).await;
    assert_eq!(fixture.store.hold("a:1", "container").await.unwrap(), id);
    let removed = fixture.store.remove(&id.short(), true, stopped).await.unwrap();
    assert_eq!(removed, [Removal::Untagged("a:1".into()), Removal::Deleted(id)]);
    assert!(fixture.store.list().await.is_empty());
    assert_eq!(fixture.store.rootfs(&id.to_string()).await.unwrap().lower.len(), 1);
    // Whoever names it again has it again.
    fixture.store.tag(&id.to_string(), &"again".parse().unwrap()).await.unwrap();
    assert_eq!(fixture.store.list().await[0].tags, ["again:latest"]);
    fixture.store.remove(&id.short(), true, stopped).await.unwrap();
    // After a restart the container is adopted before anything is swept.
    let again = open(fixture.dir.path()).unwrap();
    again.hold(&id.to_string(), "container").await.unwrap();
    again.sweep().await.unwrap();
    assert_eq!(fixture.layer_dirs().len(), 1);
    again.release("container").await.unwrap();
    assert!(fixture.layer_dirs().is_empty());
    assert!(again.rootfs(&id.to_string()).await.is_err());
}

/// CTR-06
#[tokio::test]
async fn a_name_moves_to_another_image() {
    let (fixture, first) = with_image(&["x"], &["a:1"]).await;
    let second = add(&fixture, &["y"], &["a:1"]).await;
    let list = fixture.store.list().await;
    let tags = |id: Digest| list.iter().find(|image| image.id == id).unwrap().tags.clone();
    assert_eq!((tags(first), tags(second)), (vec![], vec!["a:1".to_owned()]));
    let digest = format!("a@{first}").parse().unwrap();
    let error = fixture.store.tag("a:1", &digest).await.unwrap_err();
    assert_eq!(error.to_string(), "refusing to create a tag with a digest reference");
    let error = fixture.store.tag("nothing", &"b".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.to_string(), "No such image: nothing:latest");
}
