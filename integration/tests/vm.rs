//! On Debian's stock kernel, where control groups are version 2 alone: booted in QEMU by `scripts/vm`.
#![allow(clippy::disallowed_methods, reason = "door: runs the release binary on an emulated machine")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use covey_integration::workspace;

/// What `scripts/vm` answers where QEMU neither is nor can be installed.
const NO_MACHINE: i32 = 77;

/// Runs a script of `vm/` with the release binary and the example's image.
fn run(script: &str) {
    let covey = env::var_os("COVEY_BIN").map(PathBuf::from).expect("COVEY_BIN names the release binary");
    // The machine knows its files by their names.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(script);
    fs::create_dir_all(&folder).expect("a folder for the image");
    let image = folder.join("hello.tar");
    let hello = covey.with_file_name("hello");
    let packed =
        Command::new(workspace().join("examples/pack")).arg(hello).arg("hello:1").arg(&image).status();
    assert!(packed.expect("examples/pack runs").success());

    let script = workspace().join("integration/tests/vm").join(script);
    // What it says on standard error, such as why it cannot boot, is for whoever reads along.
    let machine = Command::new(workspace().join("scripts/vm"))
        .args([&script, &covey, &image, &covey.with_file_name("sctp")])
        .stderr(Stdio::inherit())
        .output()
        .expect("scripts/vm runs");
    if machine.status.code() == Some(NO_MACHINE) {
        return;
    }
    let said = String::from_utf8_lossy(&machine.stdout);
    assert!(machine.status.success(), "{}:\n{said}", machine.status);
}

/// Limits hold, the disk is out of reach, a service runs and nothing is left of it.
///
/// RES-01, RES-03
#[test]
#[ignore = "needs the release binary and half a minute of an emulated machine: scripts/test runs it"]
fn a_machine_with_version_2_alone_holds_containers_to_their_limits() {
    run("smoke.sh");
}

/// Two hosts on one kernel: an overlay with names and virtual addresses, published ports that keep the client's address,
/// those of SCTP among them, a way that was lost and comes back.
///
/// NET-18, LB-01, LB-03, PRT-05, PRT-07
#[test]
#[ignore = "needs the release binary and a minute of an emulated machine: scripts/test runs it"]
fn networks_and_published_ports_work_on_a_stock_kernel() {
    run("networks.sh");
}
