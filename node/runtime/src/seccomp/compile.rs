//! From the OCI description of a filter to the classic BPF program that the kernel runs at each system call.
//!
//! The program looks at the architecture first, then finds the call's number by bisection over ranges of numbers that
//! share a verdict, then compares arguments where a rule asks for it.

use std::{collections::BTreeMap, io};

use libc::sock_filter;
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator};

use super::numbers;
use crate::sys;

/// `struct seccomp_data` of `linux/seccomp.h`: where the number, the architecture and the arguments are.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;
/// Numbers from here on are x32's on x86-64, which nobody uses and which has been a way around filters.
const X32_BIT: u32 = 0x4000_0000;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQ: u16 = 0x15;
const JUMP_GT: u16 = 0x25;
const JUMP_GE: u16 = 0x35;
const RETURN: u16 = 0x06;

/// The filter asks for something that this compiler does not know; none is better than a wrong one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CompileError {
    /// There is no table of numbers for it.
    #[error("seccomp: the system calls of architecture {0:?} are not known")]
    Architecture(Arch),
    /// There are six arguments.
    #[error("seccomp: a system call has no argument {0}")]
    Argument(usize),
    /// It needs a process that answers for the kernel.
    #[error("seccomp: action {0:?} is not supported")]
    Action(LinuxSeccompAction),
    /// The kernel's limit.
    #[error("seccomp: the filter has {0} instructions, more than the kernel's 4096")]
    TooLong(usize),
}

/// A filter, ready to be installed.
pub(crate) struct Program(Vec<sock_filter>);

impl Program {
    /// Puts the filter on this process, for ever. Needs `CAP_SYS_ADMIN` or no-new-privileges.
    pub(crate) fn install(&self) -> io::Result<()> {
        let program = libc::sock_fprog {
            len: u16::try_from(self.0.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
            filter: self.0.as_ptr().cast_mut(),
        };
        // SAFETY: the kernel copies the program, which lives across the call and is not written to.
        sys::check(unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
        })
        .map(drop)
    }
}

/// What happens to one system call: the conditional rules in their order, then the verdict for all other arguments.
#[derive(Clone, PartialEq, Eq)]
struct Verdict<'a> {
    conditions: Vec<(&'a [LinuxSeccompArg], u32)>,
    otherwise: u32,
}

/// Compiles `seccomp` for all of its architectures.
pub(crate) fn compile(seccomp: &LinuxSeccomp) -> Result<Program, CompileError> {
    let default = action(seccomp.default_action(), seccomp.default_errno_ret())?;
    let mut program = vec![load(OFFSET_ARCH)];
    for arch in seccomp.architectures().as_deref().unwrap_or_default() {
        let runs = numbers::of(*arch).ok_or(CompileError::Architecture(*arch))?;
        let block = architecture(seccomp, *arch, runs, default)?;
        program.push(jump(JUMP_EQ, audit_arch(*arch), 1, 0));
        program.push(skip(block.len()));
        program.extend(block);
    }
    // A foreign architecture: as if the kernel did not have it.
    program.push(give(errno(libc::ENOSYS)));
    match program.len() {
        0..=4096 => Ok(Program(program)),
        long => Err(CompileError::TooLong(long)),
    }
}

fn architecture(
    seccomp: &LinuxSeccomp,
    arch: Arch,
    runs: &[numbers::Run],
    default: u32,
) -> Result<Vec<sock_filter>, CompileError> {
    let names: BTreeMap<&str, u32> =
        runs.iter().flat_map(|(first, names)| names.split_ascii_whitespace().zip(*first..)).collect();
    let unknown = names.values().max().map_or(0, |last| last + 1);
    let mut verdicts: BTreeMap<u32, Verdict<'_>> = BTreeMap::new();
    for rule in seccomp.syscalls().as_deref().unwrap_or_default() {
        let verdict = action(rule.action(), rule.errno_ret())?;
        let args = rule.args().as_deref().unwrap_or_default();
        for number in rule.names().iter().filter_map(|name| names.get(name.as_str())) {
            let entry = verdicts.entry(*number).or_insert(Verdict { conditions: vec![], otherwise: default });
            match args {
                // Of two rules without conditions the one that allows wins, whatever their order.
                [] if entry.otherwise != allow() => entry.otherwise = verdict,
                [] => {}
                args => entry.conditions.push((args, verdict)),
            }
        }
    }
    let mut ranges: Vec<(u32, Verdict<'_>)> = vec![];
    let always = |otherwise| Verdict { conditions: vec![], otherwise };
    for number in 0..unknown {
        let verdict = verdicts.remove(&number).unwrap_or_else(|| always(default));
        if ranges.last().is_none_or(|(_, last)| *last != verdict) {
            ranges.push((number, verdict));
        }
    }
    // Newer than this table: programs probe for such calls, and expect ENOSYS rather than EPERM.
    ranges.push((unknown, always(errno(libc::ENOSYS))));
    let mut block = vec![load(OFFSET_NUMBER)];
    if arch == Arch::ScmpArchX86_64 {
        block.extend([jump(JUMP_GE, X32_BIT, 0, 1), give(errno(libc::ENOSYS))]);
    }
    block.extend(bisect(&ranges)?);
    Ok(block)
}

/// Finds the range that the number in the accumulator is in.
fn bisect(ranges: &[(u32, Verdict<'_>)]) -> Result<Vec<sock_filter>, CompileError> {
    if let [(_, verdict)] = ranges {
        return decide(verdict);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let (below, above) = (bisect(low)?, bisect(high)?);
    let first = high.first().map_or(0, |(first, _)| *first);
    let mut code = match u8::try_from(below.len()) {
        Ok(length) => vec![jump(JUMP_GE, first, length, 0)],
        Err(_) => vec![jump(JUMP_GE, first, 0, 1), skip(below.len())],
    };
    code.extend(below);
    code.extend(above);
    Ok(code)
}

fn decide(verdict: &Verdict<'_>) -> Result<Vec<sock_filter>, CompileError> {
    let mut code = vec![];
    for (args, given) in &verdict.conditions {
        let mut rule = vec![give(*given)];
        for arg in args.iter().rev() {
            // Each test continues with what follows it, or leaves the rule.
            let mut test = compare(arg, rule.len())?;
            test.append(&mut rule);
            rule = test;
        }
        code.extend(rule);
    }
    code.push(give(verdict.otherwise));
    Ok(code)
}

/// Tests one argument: falls through where it holds, else skips the `rest` instructions behind the test.
fn compare(arg: &LinuxSeccompArg, rest: usize) -> Result<Vec<sock_filter>, CompileError> {
    use LinuxSeccompOperator as Op;
    let index = u32::try_from(arg.index()).ok().filter(|i| *i < 6);
    let low = OFFSET_ARGS + 8 * index.ok_or(CompileError::Argument(arg.index()))?;
    let high = low + 4;
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let (hi, lo) = halves(arg.value());
    // Every step names where it goes: the test holds, fails, or goes on to the lower half.
    Ok(match arg.op() {
        Op::ScmpCmpEq => {
            vec![load(high), jump(JUMP_EQ, hi, 0, 2), load(low), jump(JUMP_EQ, lo, 1, 0), skip(rest)]
        }
        Op::ScmpCmpNe => {
            vec![load(high), jump(JUMP_EQ, hi, 0, 3), load(low), jump(JUMP_EQ, lo, 0, 1), skip(rest)]
        }
        Op::ScmpCmpMaskedEq => {
            let (want_hi, want_lo) = halves(arg.value_two().unwrap_or(0));
            vec![
                load(high),
                mask(hi),
                jump(JUMP_EQ, want_hi, 0, 3),
                load(low),
                mask(lo),
                jump(JUMP_EQ, want_lo, 1, 0),
                skip(rest),
            ]
        }
        Op::ScmpCmpGt | Op::ScmpCmpGe => {
            let last = if arg.op() == Op::ScmpCmpGt { JUMP_GT } else { JUMP_GE };
            vec![
                load(high),
                jump(JUMP_GT, hi, 4, 0),
                jump(JUMP_EQ, hi, 0, 2),
                load(low),
                jump(last, lo, 1, 0),
                skip(rest),
            ]
        }
        Op::ScmpCmpLt | Op::ScmpCmpLe => {
            let last = if arg.op() == Op::ScmpCmpLt { JUMP_GE } else { JUMP_GT };
            vec![
                load(high),
                jump(JUMP_GT, hi, 3, 0),
                jump(JUMP_EQ, hi, 0, 3),
                load(low),
                jump(last, lo, 0, 1),
                skip(rest),
            ]
        }
    })
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, CompileError> {
    match action {
        // Nobody would be there to answer.
        LinuxSeccompAction::ScmpActNotify | LinuxSeccompAction::ScmpActTrace => {
            Err(CompileError::Action(action))
        }
        known => Ok(known.as_u32(errno.map(|e| e & 0xffff))),
    }
}

fn allow() -> u32 {
    LinuxSeccompAction::ScmpActAllow.as_u32(None)
}

fn errno(errno: i32) -> u32 {
    LinuxSeccompAction::ScmpActErrno.as_u32(Some(errno.unsigned_abs()))
}

/// `AUDIT_ARCH_*` of `linux/audit.h`, as the kernel reports it: the OCI names have the same values.
fn audit_arch(arch: Arch) -> u32 {
    arch as u32
}

fn load(offset: u32) -> sock_filter {
    sock_filter { code: LOAD, jt: 0, jf: 0, k: offset }
}

fn mask(bits: u32) -> sock_filter {
    sock_filter { code: AND, jt: 0, jf: 0, k: bits }
}

fn give(verdict: u32) -> sock_filter {
    sock_filter { code: RETURN, jt: 0, jf: 0, k: verdict }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn skip(count: usize) -> sock_filter {
    // A length beyond 32 bits is refused as TooLong before anybody runs it.
    sock_filter { code: JUMP, jt: 0, jf: 0, k: u32::try_from(count).unwrap_or(u32::MAX) }
}

#[cfg(test)]
mod tests;
