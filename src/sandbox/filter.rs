//! The system calls that a program may make (seccomp). All others fail as on a kernel that does not have them.
//!
//! No new process, no network, no other process's memory, no mounts, no keys, no kernel interface that the interpreter
//! does not need.

// The numbers have other types with other C libraries.
#![allow(clippy::unnecessary_cast)]

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use libc::*;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Is, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// Allowed whatever their arguments are.
const ALLOWED: &[c_long] = &[
    // Files, in what the mount namespace shows.
    SYS_read,
    SYS_write,
    SYS_readv,
    SYS_writev,
    SYS_pread64,
    SYS_pwrite64,
    SYS_preadv,
    SYS_pwritev,
    SYS_preadv2,
    SYS_pwritev2,
    SYS_lseek,
    SYS_close,
    SYS_close_range,
    SYS_dup,
    SYS_dup3,
    SYS_openat,
    SYS_openat2,
    SYS_fstat,
    SYS_newfstatat,
    SYS_statx,
    SYS_fstatfs,
    SYS_statfs,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_getdents64,
    SYS_getcwd,
    SYS_chdir,
    SYS_fchdir,
    SYS_mkdirat,
    SYS_unlinkat,
    SYS_renameat2,
    SYS_readlinkat,
    SYS_linkat,
    SYS_symlinkat,
    SYS_truncate,
    SYS_ftruncate,
    SYS_fallocate,
    SYS_fsync,
    SYS_fdatasync,
    SYS_fchmod,
    SYS_fchmodat,
    SYS_utimensat,
    SYS_umask,
    SYS_flock,
    SYS_sendfile,
    SYS_copy_file_range,
    SYS_fadvise64,
    SYS_pipe2,
    SYS_ppoll,
    SYS_pselect6,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_eventfd2,
    // Memory.
    SYS_brk,
    SYS_mmap,
    SYS_munmap,
    SYS_mremap,
    SYS_mprotect,
    SYS_madvise,
    SYS_mincore,
    SYS_msync,
    SYS_membarrier,
    // This process and its threads. The namespace holds no other.
    SYS_exit,
    SYS_exit_group,
    SYS_execve,
    SYS_wait4,
    SYS_waitid,
    SYS_set_tid_address,
    SYS_set_robust_list,
    SYS_get_robust_list,
    SYS_rseq,
    SYS_futex,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_sched_getparam,
    SYS_sched_getscheduler,
    SYS_sched_get_priority_max,
    SYS_sched_get_priority_min,
    SYS_getpriority,
    SYS_prlimit64,
    SYS_getrusage,
    SYS_times,
    SYS_uname,
    SYS_sysinfo,
    SYS_getcpu,
    SYS_getpid,
    SYS_getppid,
    SYS_gettid,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    SYS_getresuid,
    SYS_getresgid,
    SYS_getgroups,
    SYS_getpgid,
    SYS_getsid,
    SYS_getrandom,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_rt_sigpending,
    SYS_rt_sigtimedwait,
    SYS_rt_sigsuspend,
    SYS_rt_sigqueueinfo,
    SYS_sigaltstack,
    SYS_kill,
    SYS_tkill,
    SYS_tgkill,
    SYS_restart_syscall,
    SYS_getitimer,
    SYS_setitimer,
    // Time.
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_clock_nanosleep,
    SYS_nanosleep,
    SYS_gettimeofday,
    // The two ends of a socket pair, which event loops wake themselves with. There is no other socket.
    SYS_sendto,
    SYS_recvfrom,
    SYS_shutdown,
];

/// What newer architectures have only the more general form of.
#[cfg(target_arch = "x86_64")]
const ALLOWED_TOO: &[c_long] = &[
    SYS_open,
    SYS_creat,
    SYS_stat,
    SYS_lstat,
    SYS_access,
    SYS_dup2,
    SYS_pipe,
    SYS_poll,
    SYS_select,
    SYS_epoll_create,
    SYS_epoll_wait,
    SYS_eventfd,
    SYS_mkdir,
    SYS_rmdir,
    SYS_unlink,
    SYS_rename,
    SYS_renameat,
    SYS_readlink,
    SYS_link,
    SYS_symlink,
    SYS_chmod,
    SYS_utime,
    SYS_utimes,
    SYS_futimesat,
    SYS_getdents,
    SYS_getpgrp,
    SYS_getrlimit,
    SYS_setrlimit,
    SYS_time,
    SYS_alarm,
    SYS_pause,
    SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_TOO: &[c_long] = &[];

/// Requests of a file descriptor: is it a terminal, close it on exec, do not wait, how much can be read.
const IOCTLS: [u64; 6] =
    [TCGETS as u64, TIOCGWINSZ as u64, FIOCLEX as u64, FIONCLEX as u64, FIONBIO as u64, FIONREAD as u64];

/// Names of threads and of memory areas; what is allowed anyway.
const PRCTLS: [u64; 4] = [PR_SET_NAME as u64, PR_GET_NAME as u64, PR_SET_VMA as u64, PR_GET_DUMPABLE as u64];

/// No duplicate's settings that reach outside: the owner of a file's signals.
const FCNTLS: [u64; 10] = [
    F_DUPFD as u64,
    F_DUPFD_CLOEXEC as u64,
    F_GETFD as u64,
    F_SETFD as u64,
    F_GETFL as u64,
    F_SETFL as u64,
    F_GETLK as u64,
    F_SETLK as u64,
    F_SETLKW as u64,
    F_GETPIPE_SZ as u64,
];

const NEW_NAMESPACES: u64 =
    (CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP) as u64;

/// The filter of a program; with `forks` it may also start processes like itself, which the tests do and programs do not.
pub fn filter(forks: bool) -> Result<BpfProgram> {
    let one = |argument, is, value| SeccompCondition::new(argument, Width::Dword, is, value);
    let rule = |conditions: Vec<SeccompCondition>| SeccompRule::new(conditions);
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = BTreeMap::new();
    for number in ALLOWED.iter().chain(ALLOWED_TOO) {
        rules.insert(*number, vec![]);
    }
    for (number, argument, values) in
        [(SYS_ioctl, 1, &IOCTLS[..]), (SYS_prctl, 0, &PRCTLS[..]), (SYS_fcntl, 1, &FCNTLS[..])]
    {
        let allowed =
            values.iter().map(|value| rule(vec![one(argument, Is::Eq, *value)?])).collect::<Result<_, _>>()?;
        rules.insert(number, allowed);
    }
    rules.insert(SYS_socketpair, vec![rule(vec![one(0, Is::Eq, AF_UNIX as u64)?])?]);
    // Through `clone`, whose flags can be seen; glibc takes it where `clone3` is not there.
    let (mask, flags) =
        if forks { (NEW_NAMESPACES, 0) } else { (NEW_NAMESPACES | CLONE_THREAD as u64, CLONE_THREAD as u64) };
    rules.insert(SYS_clone, vec![rule(vec![one(0, Is::MaskedEq(mask), flags)?])?]);
    let architecture =
        std::env::consts::ARCH.try_into().context("seccomp's filters are not made for this processor")?;
    let filter = SeccompFilter::new(rules, SeccompAction::Errno(ENOSYS as u32), SeccompAction::Allow, architecture)?;
    filter.try_into().context("the filter of system calls cannot be compiled")
}
