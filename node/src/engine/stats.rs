//! What a container uses, and what its host has spent.

use std::fs;

use covey_api::{
    Failure,
    engine::{ContainerState, Network, Stats},
};
use covey_runtime::{self as runtime, OperationError, Runtime};
use nix::unistd::{SysconfVar, sysconf};

use super::{container, failure};
use crate::clock;

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;
/// Parts of the CPU's time in `/proc/stat`: user, nice, system, idle, iowait, irq, softirq and steal. What comes after
/// them is part of user already.
const CPU_PARTS: usize = 8;
/// Columns of `/proc/net/dev` before the bytes that went out.
const RECEIVE_COLUMNS: usize = 8;

/// One reading; a container that does not run uses nothing.
pub fn read(runtime: &Runtime, id: &str) -> Result<Stats, Failure> {
    let container = container::to_api(runtime.inspect(id).map_err(failure::lookup)?);
    let usage = match runtime.stats(id) {
        Ok(usage) => usage,
        Err(OperationError::NotRunning(_)) => runtime::Stats::default(),
        Err(error) => return Err(failure::operation(error)),
    };
    // The host's own interfaces are not the container's traffic.
    let wired = container.state == ContainerState::Running && container.network != Network::Host;
    let (received, sent) = if wired { traffic(&proc(&format!("{}/net/dev", container.pid))) } else { (0, 0) };
    let host_memory = meminfo(&proc("meminfo")).unwrap_or(u64::MAX);
    Ok(Stats {
        at: clock::now(),
        cpu: u64::try_from(usage.cpu.as_nanos()).unwrap_or(u64::MAX),
        host_cpu: host_cpu(&proc("stat"), ticks()),
        memory: usage.memory,
        memory_limit: usage.memory_limit.min(host_memory),
        pids: usage.pids,
        received,
        sent,
        // The runtime does not count these.
        cpu_system: 0,
        read: 0,
        written: 0,
    })
}

/// A file below `/proc`; empty where it is not there, such as that of a process that has ended.
fn proc(path: &str) -> String {
    fs::read_to_string(format!("/proc/{path}")).unwrap_or_default()
}

/// How many ticks of `/proc/stat` a second has.
fn ticks() -> u64 {
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    ticks.and_then(|ticks| u64::try_from(ticks).ok()).filter(|ticks| *ticks > 0).unwrap_or(100)
}

/// Nanoseconds that all CPUs have spent, by `/proc/stat`.
fn host_cpu(stat: &str, ticks: u64) -> u64 {
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let spent = all.split_whitespace().take(CPU_PARTS).filter_map(|part| part.parse::<u64>().ok());
    spent.sum::<u64>().saturating_mul(SECOND / ticks)
}

/// Bytes of the host's memory, by `/proc/meminfo`.
fn meminfo(text: &str) -> Option<u64> {
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Bytes in and out of all interfaces but loopback, by `/proc/<pid>/net/dev`.
fn traffic(dev: &str) -> (u64, u64) {
    let interfaces = dev.lines().filter_map(|line| line.split_once(':'));
    interfaces.filter(|(name, _)| name.trim() != "lo").fold((0, 0), |(received, sent), (_, columns)| {
        let mut columns = columns.split_whitespace().map(|column| column.parse::<u64>().unwrap_or(0));
        let incoming = columns.next().unwrap_or(0);
        let outgoing = columns.nth(RECEIVE_COLUMNS - 1).unwrap_or(0);
        (received + incoming, sent + outgoing)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// LOG-09
    #[test]
    fn the_hosts_time_is_all_that_passed_on_all_cpus() {
        let stat = "cpu  1 2 3 4 5 6 7 8 1000 1000\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 5\n";
        assert_eq!(host_cpu(stat, 100), 36 * 10_000_000);
        assert_eq!(host_cpu("", 100), 0);
    }

    /// LOG-09
    #[test]
    fn traffic_is_that_of_all_interfaces_but_loopback() {
        let dev = "Inter-|   Receive                                                |  Transmit\n \
                   face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs\n    \
                   lo:      99       1    0    0    0     0          0         0       99       1    0\n  \
                   eth0:    1000       2    0    0    0     0          0         0       20       3    0\n  \
                   eth1:       1       2    0    0    0     0          0         0        2       3    0\n";
        assert_eq!(traffic(dev), (1001, 22));
        assert_eq!(traffic(""), (0, 0));
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(meminfo("MemTotal:       2048 kB\nMemFree:  1 kB\n"), Some(2 << 20));
        assert_eq!(meminfo(""), None);
    }
}
