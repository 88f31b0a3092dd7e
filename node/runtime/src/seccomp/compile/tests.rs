//! The compiled filter, run by a small interpreter over every call and many arguments.

use oci_spec::runtime::{Capability, LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSyscallBuilder};

use super::*;
use crate::seccomp::default_policy;

const X86_64: u32 = 0xc000_003e;
const ALLOW: u32 = 0x7fff_0000;

fn run(program: &Program, arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = [number, arch, 0, 0].to_vec();
    data.extend(args.iter().flat_map(|a| [*a as u32, (*a >> 32) as u32]));
    let (mut at, mut acc) = (0_usize, 0_u32);
    loop {
        let i = program.0[at];
        at += 1;
        let mut branch = |holds: bool| at += usize::from(if holds { i.jt } else { i.jf });
        match i.code {
            LOAD => acc = data[i.k as usize / 4],
            AND => acc &= i.k,
            JUMP_EQ => branch(acc == i.k),
            JUMP_GT => branch(acc > i.k),
            JUMP_GE => branch(acc >= i.k),
            JUMP => at += i.k as usize,
            RETURN => return i.k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn number(name: &str) -> u32 {
    numbers::X86_64
        .iter()
        .flat_map(|(first, names)| names.split_ascii_whitespace().zip(*first..))
        .find(|(n, _)| *n == name)
        .unwrap()
        .1
}

fn default_filter(capabilities: &[Capability]) -> Program {
    compile(&default_policy(capabilities).unwrap()).unwrap()
}

#[test]
fn the_tables_agree_with_the_kernel_headers_of_this_build() {
    for (name, expected) in [
        ("read", libc::SYS_read),
        ("execve", libc::SYS_execve),
        ("clone3", libc::SYS_clone3),
        ("mount_setattr", libc::SYS_mount_setattr),
    ] {
        assert_eq!(i64::from(number(name)), expected, "{name}");
    }
}

#[test]
fn ordinary_calls_pass_and_dangerous_ones_do_not() {
    let filter = default_filter(&[]);
    for name in ["read", "openat", "execve", "futex", "ptrace", "setuid", "capset", "rseq", "mseal"] {
        assert_eq!(run(&filter, X86_64, number(name), [0; 6]), ALLOW, "{name}");
    }
    for name in ["mount", "unshare", "setns", "keyctl", "bpf", "io_uring_setup", "kexec_load", "userfaultfd"]
    {
        assert_eq!(run(&filter, X86_64, number(name), [0; 6]), errno(libc::EPERM), "{name}");
    }
    assert_eq!(run(&filter, X86_64, 100_000, [0; 6]), errno(libc::ENOSYS));
    assert_eq!(run(&filter, X86_64, X32_BIT + 1, [0; 6]), errno(libc::ENOSYS));
    assert_eq!(run(&filter, 0xc000_00b7, 0, [0; 6]), errno(libc::ENOSYS));
    // On i386 number 21 is mount, 4 is write.
    assert_eq!(run(&filter, 0x4000_0003, 21, [0; 6]), errno(libc::EPERM));
    assert_eq!(run(&filter, 0x4000_0003, 4, [0; 6]), ALLOW);
}

#[test]
fn capabilities_open_their_calls() {
    for (capability, name) in [
        (Capability::SysAdmin, "mount"),
        (Capability::SysTime, "clock_settime"),
        (Capability::SysChroot, "chroot"),
        (Capability::SysPtrace, "kcmp"),
        (Capability::SysAdmin, "clone3"),
    ] {
        assert_ne!(run(&default_filter(&[]), X86_64, number(name), [0; 6]), ALLOW, "{name}");
        assert_eq!(run(&default_filter(&[capability]), X86_64, number(name), [0; 6]), ALLOW, "{name}");
    }
}

#[test]
fn arguments_are_looked_at() {
    let filter = default_filter(&[]);
    let verdict = |name, first: u64| run(&filter, X86_64, number(name), [first, 0, 0, 0, 0, 0]);
    assert_eq!(verdict("clone", 0x11), ALLOW);
    assert_eq!(verdict("clone", 0x1000_0011), errno(libc::EPERM), "a user namespace");
    assert_eq!(verdict("clone3", 0), errno(libc::ENOSYS));
    assert_eq!(verdict("socket", 2), ALLOW);
    assert_eq!(verdict("socket", 40), errno(libc::EPERM));
    assert_eq!(verdict("socket", 40 | 1 << 32), ALLOW);
    assert_eq!(verdict("personality", 0xffff_ffff), ALLOW);
    assert_eq!(verdict("personality", 0x40_0000), errno(libc::EPERM));
}

#[test]
fn each_operator_compares_64_bits() {
    use LinuxSeccompOperator as Op;
    const PIVOT: u64 = 0x5_0000_0005;
    let samples = [0, 5, PIVOT - 1, PIVOT, PIVOT + 1, 0x4_ffff_ffff, 0x6_0000_0000, u64::MAX];
    for (op, holds) in [
        (Op::ScmpCmpNe, (|v| v != PIVOT) as fn(u64) -> bool),
        (Op::ScmpCmpLt, |v| v < PIVOT),
        (Op::ScmpCmpLe, |v| v <= PIVOT),
        (Op::ScmpCmpEq, |v| v == PIVOT),
        (Op::ScmpCmpGe, |v| v >= PIVOT),
        (Op::ScmpCmpGt, |v| v > PIVOT),
        (Op::ScmpCmpMaskedEq, |v| v & PIVOT == 5),
    ] {
        let argument = |index: usize| {
            LinuxSeccompArgBuilder::default()
                .index(index)
                .value(PIVOT)
                .value_two(5_u64)
                .op(op)
                .build()
                .unwrap()
        };
        let rule = LinuxSyscallBuilder::default()
            .names(vec!["read".to_owned()])
            .action(LinuxSeccompAction::ScmpActAllow)
            .args(vec![argument(1), argument(5)]);
        let seccomp = LinuxSeccompBuilder::default()
            .default_action(LinuxSeccompAction::ScmpActErrno)
            .architectures(vec![Arch::ScmpArchX86_64])
            .syscalls(vec![rule.build().unwrap()]);
        let filter = compile(&seccomp.build().unwrap()).unwrap();
        for a in samples {
            for b in samples {
                let given = run(&filter, X86_64, 0, [9, a, 9, 9, 9, b]);
                assert_eq!(given == ALLOW, holds(a) && holds(b), "{op} {a:#x} {b:#x}");
            }
        }
    }
}

#[test]
fn an_unknown_architecture_is_refused() {
    let seccomp = LinuxSeccompBuilder::default().architectures(vec![Arch::ScmpArchMips]).build().unwrap();
    assert_eq!(compile(&seccomp).err(), Some(CompileError::Architecture(Arch::ScmpArchMips)));
}

#[test]
fn every_name_of_the_policy_is_a_system_call() {
    for names in crate::seccomp::policy::named() {
        for name in names.split_ascii_whitespace() {
            let known = |runs: &[numbers::Run]| {
                runs.iter().any(|(_, names)| names.split_ascii_whitespace().any(|n| n == name))
            };
            assert!(known(numbers::X86_64) || known(numbers::X86), "{name}");
        }
    }
}
