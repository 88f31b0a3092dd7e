//! The same `config.json`, run by Debian's runc and by our shim: a probe inside must see the same. Needs root and runc.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "door: these tests start processes and look at the machine")]

mod bench;

use std::{fs, path::Path, process::Command};

use bench::{bench, output, spec};
use covey_runtime::{CreateContainer, CreateError};
use covey_state::container::{Amount, ContainerSpec, Mount, MountKind, Resources};
use tokio::io::AsyncWriteExt as _;

/// Everything that a container sees of its confinement, without what differs by nature: ids, device numbers, our root
/// file system, and a signal that a Go program leaves ignored.
const PROBE: &str = "exec 2>&1; cd /; \
    grep -vE '^(Pid|PPid|Tgid|NSpid|NSpgid|NSsid|NStgid|Vm|Rss|voluntary|nonvoluntary|Cpus|Mems|Name|Threads|Seccomp_filters|FDSize|Hugetlb|SigQ|x86_Thread|untag|Ngid|State|Kthread|CoreDumping|THP|Speculation|SigIgn)' /proc/self/status; \
    awk '{$1=$2=$3=\"\"; print}' /proc/self/mountinfo | sed -E 's/ (shared|master):[0-9]+//g; s/inode64//; s#/[^ ]*/(hosts|hostname|resolv.conf) #\\1 #; s/,(lowerdir|upperdir|workdir)=[^, ]*//g; s/(tmpfs tmpfs) r[ow]/\\1/' | grep -vE '/sys/fs/cgroup| / r[ow],' | sort; \
    cat /proc/self/limits | grep -v 'pending signals'; ulimit -a | sort; ls -l /dev | awk '{print $1,$3,$4,$5,$6,$NF}' | sed 's/ [A-Z][a-z][a-z] / /'; \
    for f in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts /proc/sched_debug; do [ -e $f ] && wc -c $f; done; \
    ls -A /sys/firmware /proc/scsi /proc/acpi; touch /proc/sys/x /proc/bus/x /proc/irq/x /sys/x; \
    ls -l /proc/self/fd | awk '{print $1,$3,$9}'; umask; id; pwd; env | sort; hostname; \
    cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range; \
    cat /proc/self/oom_score_adj /proc/self/setgroups; ip addr | grep -vE 'valid_lft|link/'; \
    mount -t tmpfs x /mnt; unshare -U true; unshare -m true; chroot / /bin/true && echo chroot; mknod /tmp/b b 8 0 && cat /tmp/b; rm -f /tmp/b; \
    date -s 2020-01-01; hostname other; dmesg; nice -n -5 true; swapoff /x; setarch i386 uname -m; \
    ls /proc/1/ns | wc -l; echo ended";

/// CTR-13
#[tokio::test]
async fn a_container_looks_as_it_does_in_runc() {
    let Some(bench) = bench().await else { return };
    if Command::new("runc").arg("--version").output().is_err() {
        eprintln!("SKIPPED: the comparison needs runc (Debian: runc)");
        return bench.close().await;
    }
    let shared = bench.directory.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let bind = |target: &str, read_only| Mount {
        target: target.into(),
        read_only,
        kind: MountKind::Bind { source: shared.display().to_string() },
    };
    let tmpfs = |read_only| MountKind::Tmpfs { size: 1 << 20, mode: if read_only { 0o755 } else { 0o1777 } };
    let mounts = vec![
        bind("/rw", false),
        bind("/ro", true),
        Mount { target: "/t".into(), read_only: false, kind: tmpfs(false) },
        Mount { target: "/tr".into(), read_only: true, kind: tmpfs(true) },
    ];
    let limits = Amount { memory: 64 << 20, nano_cpus: 1_500_000_000 };
    let request = CreateContainer {
        spec: ContainerSpec {
            read_only: true,
            mounts,
            ..spec(&["sh", "-c", &format!("{PROBE}; read _ || true")])
        },
        open_stdin: true,
        resources: Resources { limits, pids_limit: 100, ..Resources::default() },
        ..CreateContainer::default()
    };
    let id = bench.runtime.create(request).await.map_err(|error: CreateError| error.to_string()).unwrap();
    let mut attached = bench.runtime.attach(id.as_str()).unwrap();
    bench.runtime.start(id.as_str()).await.unwrap();
    // What it was given goes when it ends: it has to wait.
    let bundle = bench.directory.path().join("bundle");
    let config = bench.exec_root().join("c").join(id.as_str()).join("config.json");
    let theirs = in_runc(&config, &bundle, bench.directory.path());
    bench.runtime.stdin(id.as_str()).unwrap().shutdown().await.unwrap();
    let ours = output(&mut attached.output).await.0;
    bench.runtime.wait(id.as_str()).await.unwrap();
    assert!(ours.ends_with("ended\n"), "{ours}");
    let (missing, more): (Vec<_>, Vec<_>) = (
        theirs.lines().filter(|line| !ours.lines().any(|l| l == *line)).collect(),
        ours.lines().filter(|line| !theirs.lines().any(|l| l == *line)).collect(),
    );
    assert!(missing.is_empty() && more.is_empty(), "only in runc: {missing:#?}\nonly in ours: {more:#?}");
    bench.close().await;
}

/// Runs `config` in runc, on the unpacked root file system; what it cannot be told is taken out: our root mount, and
/// users by name.
fn in_runc(config: &Path, bundle: &Path, directory: &Path) -> String {
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(config).unwrap()).unwrap();
    spec["mounts"].as_array_mut().unwrap().remove(0);
    spec["root"]["path"] = directory.join("busybox").display().to_string().into();
    spec["process"]["user"] = serde_json::json!({"uid": 0, "gid": 0, "additionalGids": [0, 10]});
    let name = format!("reference-{}", std::process::id());
    spec["linux"]["cgroupsPath"] = format!("/{name}").into();
    fs::create_dir(bundle).unwrap();
    fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
    let output = Command::new("runc")
        .args(["--root", &bundle.join("state").display().to_string(), "run", "--bundle"])
        .args([bundle.display().to_string(), name])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
