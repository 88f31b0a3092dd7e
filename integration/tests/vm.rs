//! On Debian's stock kernel, where control groups are version 2 alone: booted in QEMU by `scripts/vm`.
#![allow(clippy::disallowed_methods, reason = "door: runs the release binary on an emulated machine")]

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use covey_integration::workspace;

/// What `scripts/vm` answers where QEMU neither is nor can be installed.
const NO_MACHINE: i32 = 77;

/// Limits hold, the disk is out of reach, a service runs and nothing is left of it.
///
/// RES-01, RES-03
#[test]
#[ignore = "needs the release binary and half a minute of an emulated machine: scripts/test runs it"]
fn a_machine_with_version_2_alone_holds_containers_to_their_limits() {
    let covey = env::var_os("COVEY_BIN").map(PathBuf::from).expect("COVEY_BIN names the release binary");
    let image = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hello.tar");
    let hello = covey.with_file_name("hello");
    let packed =
        Command::new(workspace().join("examples/pack")).arg(hello).arg("hello:1").arg(&image).status();
    assert!(packed.expect("examples/pack runs").success());

    let smoke = workspace().join("integration/tests/vm/smoke.sh");
    // What it says on standard error, such as why it cannot boot, is for whoever reads along.
    let machine = Command::new(workspace().join("scripts/vm"))
        .args([&smoke, &covey, &image])
        .stderr(Stdio::inherit())
        .output()
        .expect("scripts/vm runs");
    if machine.status.code() == Some(NO_MACHINE) {
        return;
    }
    let said = String::from_utf8_lossy(&machine.stdout);
    assert!(machine.status.success(), "{}:\n{said}", machine.status);
}
