//! Layers under a real overlayfs, compared with what another tool makes of the same image.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use covey_runtime::image::Rootfs;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::json;

use crate::fixture::{Fixture, Tar, docker_archive, have, run, silent, umoci_layout};

/// Looks at the stacked layers from a mount namespace of its own; `None` where this process may not have one.
fn stacked<T: Send>(rootfs: &Rootfs, at: &Path, look: impl FnOnce() -> T + Send) -> Option<T> {
    let see = || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS) {
            eprintln!("SKIPPED: no mount namespace ({error}); run as root");
            return None;
        }
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        std::env::set_current_dir(&rootfs.layers_dir).unwrap();
        let options = format!("lowerdir={}", rootfs.lower.join(":"));
        mount(Some("overlay"), at, Some("overlay"), MsFlags::MS_RDONLY, Some(options.as_str())).unwrap();
        Some(look())
    };
    std::thread::scope(|scope| scope.spawn(see).join().unwrap())
}

/// Everything below a directory: mode, owner, group, device, and content, link target or nothing.
fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, u32, u32, u64, Vec<u8>)> {
    let (mut tree, mut left) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(path) = left.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        let content = if stat.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Vec::new()
        } else if stat.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else {
            fs::read(&path).unwrap()
        };
        let name = path.strip_prefix(root).unwrap().to_owned();
        tree.insert(name, (stat.mode(), stat.uid(), stat.gid(), stat.rdev(), content));
    }
    tree
}

/// CTR-02
#[tokio::test]
async fn the_stacked_layers_are_what_umoci_unpacks() {
    if !have(&["umoci", "busybox"]) {
        return;
    }
    let fixture = Fixture::new();
    let layout = umoci_layout(fixture.dir.path());
    let [packed, other, at] = ["layout.tar", "other", "at"].map(|name| fixture.dir.path().join(name));
    run("tar", &["-cf", packed.to_str().unwrap(), "-C", layout.to_str().unwrap(), "."]);
    run("umoci", &["unpack", "--image", &format!("{}:box", layout.display()), other.to_str().unwrap()]);
    fs::create_dir(&at).unwrap();
    let archive = tokio::fs::File::open(&packed).await.unwrap();
    let id = fixture.store.load(archive, silent()).await.unwrap()[0].id.to_string();
    let rootfs = fixture.store.rootfs(&id).await.unwrap();
    let Some(ours) = stacked(&rootfs, &at, || tree(&at)) else { return };
    assert!(ours.contains_key(Path::new("added")) && !ours.contains_key(Path::new("removed")));
    assert!(ours == tree(&other.join("rootfs")), "{:?}", ours.keys());
}

/// CTR-02
#[tokio::test]
async fn the_longest_stack_of_layers_fits_into_mount_options() {
    let fixture = Fixture::new();
    let layers: Vec<_> = (0..128).map(|n| Tar::default().file(&format!("f{n}"), "").end()).collect();
    let load =
        async |layers| fixture.store.load(&docker_archive(layers, json!({}), &["tall"])[..], silent()).await;
    let error = load(&layers).await.unwrap_err();
    assert!(error.to_string().contains("at most 127"), "{error}");
    load(&layers[..127]).await.unwrap();
    let rootfs = fixture.store.rootfs("tall").await.unwrap();
    assert_eq!(rootfs.lower.len(), 127);
    assert!(rootfs.lower.join(":").len() < 3000);
    assert!(rootfs.layers_dir.join(&rootfs.lower[0]).join("f126").exists(), "topmost first");
    let at = fixture.dir.path().join("at");
    fs::create_dir(&at).unwrap();
    let Some(files) = stacked(&rootfs, &at, || fs::read_dir(&at).unwrap().count()) else { return };
    assert_eq!(files, 127);
}
