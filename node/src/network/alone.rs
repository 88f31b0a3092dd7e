//! A network namespace of its own, for a test.

use std::path::Path;

use covey_overlay_netlink::namespace;

/// Runs this where there is no network yet, with a folder that is gone afterwards.
pub fn alone(work: impl FnOnce(&Path) -> anyhow::Result<()> + Send) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: a network namespace needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host");
    namespace::create(&path).unwrap();
    let done = namespace::inside(&path, || work(folder.path()));
    namespace::remove(&path).unwrap();
    done.unwrap();
}
