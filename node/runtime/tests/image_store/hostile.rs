//! Layers that try to leave their directory.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use tar::EntryType;

use crate::fixture::{Fixture, Tar, header, names};

fn assert_untouched(outside: &Path) {
    assert_eq!(names(outside), ["victim"]);
    assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "untouched");
    let stat = fs::metadata(outside.join("victim")).unwrap();
    assert_eq!((stat.nlink(), stat.mode() & 0o777), (1, 0o644));
}

/// A fixture, the outside directory, and its path as text.
fn prepare() -> (Fixture, std::path::PathBuf, String) {
    let fixture = Fixture::new();
    let outside = fixture.outside();
    let text = outside.to_str().unwrap().to_owned();
    (fixture, outside, text)
}

/// CTR-02
#[tokio::test]
async fn a_symbolic_link_leads_nowhere_outside() {
    let (fixture, outside, target) = prepare();
    let error = fixture.import(Tar::default().symlink("esc", &target).file("esc/pwned", "x").end()).await;
    assert!(error.unwrap_err().contains("esc/pwned"));
    let up = "../".repeat(20) + &target[1..];
    if up.len() < 100 {
        let tar = Tar::default().symlink("up", &up).file("up/pwned", "x").end();
        assert!(fixture.import(tar).await.is_err());
    }
    // Where the target exists inside the image, it is that one.
    let tar = Tar::default().dir("etc", 0o755).symlink("esc", "/etc").file("esc/inside", "x").end();
    let layer = fixture.import(tar).await.unwrap();
    assert!(layer.join("etc/inside").is_file());
    assert_untouched(&outside);
    assert!(fixture.leftovers().is_empty());
}

/// CTR-02
#[tokio::test]
async fn a_directory_replaces_a_link_and_does_not_follow_it() {
    let (fixture, outside, target) = prepare();
    let mode = fs::metadata(&outside).unwrap().mode();
    let tar = Tar::default().symlink("d", &target).dir("d", 0o700).file("d/x", "x").end();
    let layer = fixture.import(tar).await.unwrap();
    assert!(fs::symlink_metadata(layer.join("d")).unwrap().is_dir());
    assert!(layer.join("d/x").is_file());
    assert_eq!(fs::metadata(&outside).unwrap().mode(), mode);
    assert_untouched(&outside);
}

/// CTR-02
#[tokio::test]
async fn dots_are_refused_and_absolute_paths_stay_inside() {
    let (fixture, outside, target) = prepare();
    for path in ["../pwned", "a/../../pwned", "a/..", "/../pwned"] {
        let error = fixture.import(Tar::default().file(path, "x").end()).await.unwrap_err();
        assert!(error.ends_with("leads out of the image"), "{error}");
    }
    let path = format!("{target}/pwned");
    let layer = fixture.import(Tar::default().file(&path, "x").end()).await.unwrap();
    assert!(layer.join(&path[1..]).is_file());
    assert_untouched(&outside);
}

/// CTR-02
#[tokio::test]
async fn a_hard_link_needs_its_target_in_the_same_layer() {
    let (fixture, outside, target) = prepare();
    for tar in [
        Tar::default().hard_link("h", "/etc/passwd"),
        Tar::default().hard_link("h", &format!("{target}/victim")),
        Tar::default().symlink("s", &target).hard_link("h", "s/victim"),
        Tar::default().hard_link("h", "../../../etc/passwd"),
        Tar::default().dir("d", 0o755).hard_link("h", "d"),
        Tar::default().file(".wh.w", "").hard_link("h", "w"),
        Tar::default().hard_link("h", ""),
    ] {
        let error = fixture.import(tar.end()).await.unwrap_err();
        assert!(error.contains("h: links"), "{error}");
    }
    assert_untouched(&outside);
}

/// CTR-02
#[tokio::test]
async fn a_file_is_not_written_through_a_link() {
    let (fixture, outside, target) = prepare();
    let victim = format!("{target}/victim");
    let tar = Tar::default().symlink("f", &victim).file("f", "new").symlink("a", &victim).hard_link("b", "a");
    let layer = fixture.import(tar.file("b", "new").end()).await.unwrap();
    for name in ["f", "b"] {
        assert!(fs::symlink_metadata(layer.join(name)).unwrap().is_file());
        assert_eq!(fs::read_to_string(layer.join(name)).unwrap(), "new");
    }
    assert!(fs::symlink_metadata(layer.join("a")).unwrap().is_symlink());
    assert_untouched(&outside);
}

/// CTR-02
#[tokio::test]
async fn a_whiteout_hides_nothing_outside() {
    let (fixture, outside, target) = prepare();
    for name in ["w/.wh.victim", "w/.wh..wh..opq"] {
        let tar = Tar::default().symlink("w", &target).file(name, "").end();
        assert!(fixture.import(tar).await.is_err(), "{name}");
    }
    for name in [".wh.", ".wh..", ".wh..."] {
        let error = fixture.import(Tar::default().file(name, "").end()).await.unwrap_err();
        assert!(error.ends_with("hides nothing that has a name"), "{error}");
    }
    assert_untouched(&outside);
}

/// CTR-02
#[tokio::test]
async fn an_image_has_no_say_in_how_layers_are_stacked() {
    let fixture = Fixture::new();
    let xattrs = [("trusted.overlay.opaque", "y"), ("user.overlay.opaque", "y"), ("user.kept", "yes")];
    let layer = fixture.import(Tar::default().xattrs(&xattrs).dir("d", 0o755).end()).await.unwrap();
    assert_eq!(crate::layers::xattr(&layer.join("d"), "trusted.overlay.opaque"), None);
    assert_eq!(crate::layers::xattr(&layer.join("d"), "user.overlay.opaque"), None);
    assert_eq!(crate::layers::xattr(&layer.join("d"), "user.kept"), Some(b"yes".to_vec()));
    let mut whiteout = header(EntryType::Char, "c", "", 0o644);
    whiteout.set_device_major(0).unwrap();
    whiteout.set_device_minor(0).unwrap();
    let error = fixture.import(Tar::default().header(whiteout).end()).await.unwrap_err();
    assert!(error.ends_with("would hide a file of a lower layer"), "{error}");
}

/// CTR-02
#[tokio::test]
async fn broken_and_oversized_archives_are_refused() {
    let fixture = Fixture::new();
    let long = "x".repeat(2 << 20);
    let error =
        fixture.import(Tar::default().xattrs(&[("user.x", &long)]).file("a", "").end()).await.unwrap_err();
    assert!(error.contains("headers are too large"), "{error}");
    for broken in
        [b"no tar at all, only some text that is longer than a header".repeat(20), vec![0x1f, 0x8b, 8, 0]]
    {
        fixture.import(broken).await.unwrap_err();
    }
    let mut cut = Tar::default().file("a", &"content".repeat(1000)).end();
    cut.truncate(3000);
    fixture.import(cut).await.unwrap_err();
    let mut huge = header(EntryType::Regular, "huge", "", 0o644);
    huge.set_size(1 << 50);
    let error = fixture.import(Tar::default().header(huge).end()).await.unwrap_err();
    assert!(error.contains("more than 68719476736 bytes"), "{error}");
    assert!(fixture.leftovers().is_empty() && fixture.layer_dirs().is_empty());
    assert!(fixture.store.list().await.is_empty());
}
