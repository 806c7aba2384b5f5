//! A seal on a thread: what is done before the guest runs kills the process if the thread does it later.
//!
//! It shows that the threads which run a guest could be put into a sandbox: they need no file, socket,
//! thread, process or KVM machine but those that they were given.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};
use std::collections::BTreeMap;

/// System calls that make something. Accepting a connection is not among them: the runtime's thread
/// lets peers and operators in.
const MAKING: [libc::c_long; 24] = [
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_creat,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_pipe,
    libc::SYS_pipe2,
    libc::SYS_eventfd,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_create1,
    libc::SYS_inotify_init1,
    libc::SYS_io_uring_setup,
    libc::SYS_perf_event_open,
    libc::SYS_timerfd_create,
    libc::SYS_memfd_create,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_execve,
    libc::SYS_pidfd_open,
];

/// `ioctl` requests that make something (`linux/kvm.h`, `linux/if_tun.h`): KVM_CREATE_VM,
/// KVM_CREATE_VCPU, TUNSETIFF.
const MAKING_REQUESTS: [u64; 3] = [0xae01, 0xae41, 0x4004_54ca];

fn filter() -> Result<BpfProgram, seccompiler::Error> {
    let asks = |request| {
        let second = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request)?;
        SeccompRule::new(vec![second])
    };
    let requests = MAKING_REQUESTS
        .into_iter()
        .map(asks)
        .collect::<Result<_, _>>()?;
    let mut rules: BTreeMap<_, _> = MAKING.into_iter().map(|call| (call, vec![])).collect();
    rules.insert(libc::SYS_ioctl, requests);
    let (others, these) = (SeccompAction::Allow, SeccompAction::KillProcess);
    let filter = SeccompFilter::new(rules, others, these, TargetArch::x86_64)?;
    Ok(filter.try_into()?)
}

/// Seals this thread for good.
pub fn this_thread() {
    let sealed = filter().and_then(|filter| apply_filter(&filter));
    sealed.expect("a host that takes a seccomp filter");
}

/// What a sealed thread does not live through.
pub fn break_it() {
    let opened = std::fs::File::open("/");
    panic!("a seal that does not hold ({opened:?})");
}
