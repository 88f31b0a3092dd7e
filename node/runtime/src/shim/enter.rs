//! `exec`: another process in a running container, as confined as its init.

use std::{
    fs::{self, File},
    os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::sched::CloneFlags;
use oci_spec::runtime::Process;

use super::{Failure, build::read_spec, finish::Finish};
use crate::{cgroup::Cgroup, layout, sys};

/// The descriptor that reports are written to, once everything else is closed.
const REPORT: i32 = 3;

/// Starts the process as a child of the daemon, which reads its pid or the failure; returns the helper's exit code.
pub(super) fn run(arguments: &[PathBuf]) -> i32 {
    let [exec, cgroup, process, report] = arguments else { return 2 };
    let Some(report) = report.to_str().and_then(|text| text.parse::<i32>().ok()) else { return 2 };
    // SAFETY: the daemon left this descriptor open for us; after that we own number 3 and nothing above.
    let report = unsafe {
        if libc::dup2(report, REPORT) < 0 {
            return 2;
        }
        sys::close_from(4);
        libc::fcntl(REPORT, libc::F_SETFD, libc::FD_CLOEXEC);
        OwnedFd::from_raw_fd(REPORT)
    };
    match enter(exec, cgroup, process, report.as_fd()) {
        Ok(()) => 0,
        Err(failure) => failure.report(report.as_fd()).map_or(2, |()| 1),
    }
}

fn enter(exec: &Path, cgroup: &Path, process: &Path, report: BorrowedFd<'_>) -> Result<(), Failure> {
    let spec = read_spec(exec)?;
    let text = fs::read(process).map_err(Failure::at("process"))?;
    // Its environment may be confidential: it does not stay on disk longer than needed.
    let _ = fs::remove_file(process);
    let process: Process = serde_json::from_slice(&text).map_err(Failure::at("process"))?;
    let finish = Finish::of(&spec, process)?;
    let init = layout::Process::read(&exec.join(layout::INIT)).and_then(layout::Process::open);
    let init = init.ok_or_else(|| Failure::build("the container is not running"))?;
    finish.set_oom_score();
    let group = Cgroup::at(cgroup).map_err(Failure::at("cgroup"))?;
    let descriptor = group.descriptor().map_err(Failure::at("cgroup"))?;
    if descriptor.is_none() {
        group.join().map_err(Failure::at("join the cgroup"))?;
    }
    sys::hide();
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP;
    nix::sched::setns(init, namespaces).map_err(Failure::at("enter the container"))?;
    // SAFETY: this process has one thread.
    let pid = unsafe { sys::clone3(libc::CLONE_PARENT as u64, 0, descriptor.as_ref().map(AsFd::as_fd)) }
        .map_err(Failure::at("clone"))?;
    if pid == 0 {
        // SAFETY: takes no memory; a new process does not lead a session.
        unsafe { libc::setsid() };
        let Err(failure) = finish.exec(false);
        // If nobody listens any more there is nobody to tell.
        let _ = failure.report(report);
        sys::exit(failure.code);
    }
    let mut file = File::from(report.try_clone_to_owned().map_err(Failure::build)?);
    std::io::Write::write_all(&mut file, format!("pid {pid}\0").as_bytes()).map_err(Failure::build)
}
