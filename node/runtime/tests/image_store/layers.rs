//! What an honest layer becomes.

use std::{
    ffi::CString,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::FileTypeExt as _, fs::MetadataExt as _},
    path::Path,
};

use serde_json::json;
use tar::EntryType;

use crate::fixture::{Fixture, Tar, docker_archive, header, silent};

/// An extended attribute, where it is set.
pub fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let (path, name) = (CString::new(path.as_os_str().as_bytes()).unwrap(), CString::new(name).unwrap());
    let mut value = vec![0; 256];
    // SAFETY: both strings end in NUL, and the buffer is as long as said.
    let length =
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    usize::try_from(length).ok().map(|length| {
        value.truncate(length);
        value
    })
}

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|stat| stat.file_type().is_char_device() && stat.rdev() == 0)
}

/// CTR-02
#[tokio::test]
async fn owners_modes_times_links_and_attributes_are_kept() {
    let fixture = Fixture::new();
    let mut tool = header(EntryType::Regular, "bin/tool", "", 0o4755);
    tool.set_uid(7);
    tool.set_gid(8);
    let mut pipe = header(EntryType::Fifo, "pipe", "", 0o620);
    pipe.set_uid(9);
    let mut null = header(EntryType::Char, "null", "", 0o666);
    null.set_device_major(1).unwrap();
    null.set_device_minor(3).unwrap();
    let capability = "\u{1}\0\0\u{2}\0\u{4}\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let tar =
        Tar::default().dir("./", 0o711).dir("bin", 0o1777).xattrs(&[("security.capability", capability)]);
    let tar = tar
        .header(tool)
        .hard_link("bin/same", "./bin/tool")
        .symlink("sh", "bin/tool")
        .header(pipe)
        .header(null);
    let layer = fixture.import(tar.file("implied/file", "12345").end()).await.unwrap();
    let stat = |name: &str| fs::symlink_metadata(layer.join(name)).unwrap();
    assert_eq!((stat("").mode() & 0o7777, stat("").mtime()), (0o711, 1_000_000));
    assert_eq!((stat("bin").mode() & 0o7777, stat("bin").mtime()), (0o1777, 1_000_000));
    let tool = stat("bin/tool");
    assert_eq!((tool.uid(), tool.gid(), tool.mode() & 0o7777, tool.nlink()), (7, 8, 0o4755, 2));
    assert_eq!(tool.ino(), stat("bin/same").ino());
    assert_eq!(xattr(&layer.join("bin/tool"), "security.capability"), Some(capability.into()));
    assert_eq!(fs::read_link(layer.join("sh")).unwrap(), Path::new("bin/tool"));
    assert_eq!((stat("pipe").uid(), stat("pipe").mode() & 0o7777), (9, 0o620));
    assert_eq!((stat("null").rdev(), stat("null").mode() & 0o7777), (libc::makedev(1, 3), 0o666));
    assert_eq!(stat("implied").mode() & 0o7777, 0o755);
    assert_eq!(fixture.store.list().await[0].size, 5);
}

/// CTR-02
#[tokio::test]
async fn removed_files_and_directories_are_hidden_as_overlayfs_wants_it() {
    let fixture = Fixture::new();
    let tar = Tar::default()
        .file("a/.wh.gone", "")
        .dir("new", 0o755)
        .file("new/.wh..wh..opq", "")
        .file("new/x", "");
    // A directory that the same layer removes and makes again, in either order.
    let tar = tar.file(".wh.again", "").dir("again", 0o755).dir("before", 0o755).file(".wh.before", "");
    let tar = tar.file(".wh..wh.plnk", "");
    let layer = fixture.import(tar.end()).await.unwrap();
    assert!(is_whiteout(&layer.join("a/gone")));
    for opaque in ["new", "again", "before"] {
        assert_eq!(xattr(&layer.join(opaque), "trusted.overlay.opaque"), Some(b"y".to_vec()), "{opaque}");
    }
    assert_eq!(crate::fixture::names(&layer), ["a", "again", "before", "new"]);
}

/// CTR-02
#[tokio::test]
async fn a_directory_that_a_layer_only_implies_is_like_the_one_below() {
    let fixture = Fixture::new();
    let mut home = header(EntryType::Directory, "home", "", 0o750);
    home.set_uid(5);
    let layers = [
        Tar::default().dir("tmp", 0o1777).header(home).end(),
        Tar::default().file("other", "").end(),
        Tar::default().file("tmp/x", "").file("home/y/z", "").end(),
    ];
    let archive = docker_archive(&layers, json!({}), &["implied:1"]);
    fixture.store.load(&archive[..], silent()).await.unwrap();
    let top = fixture.lower("implied:1").await.remove(0);
    let stat = |name: &str| fs::metadata(top.join(name)).unwrap();
    assert_eq!((stat("tmp").mode() & 0o7777, stat("tmp").mtime()), (0o1777, 1_000_000));
    assert_eq!((stat("home").mode() & 0o7777, stat("home").uid()), (0o750, 5));
    assert_eq!((stat("home/y").mode() & 0o7777, stat("home/y").uid()), (0o755, 0));
}

/// CTR-02
#[tokio::test]
async fn an_image_without_layers_still_has_something_to_stand_on() {
    let fixture = Fixture::new();
    fixture
        .store
        .load(&docker_archive(&[], json!({ "Cmd": ["x"] }), &["scratch:1"])[..], silent())
        .await
        .unwrap();
    let rootfs = fixture.store.rootfs("scratch:1").await.unwrap();
    assert_eq!(rootfs.defaults.cmd, ["x"]);
    assert_eq!(fs::read_dir(rootfs.layers_dir.join(&rootfs.lower[0])).unwrap().count(), 0);
}
