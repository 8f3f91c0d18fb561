//! What keeps a stack that overflows from what lies below it.

use core::sync::atomic::{AtomicUsize, Ordering};

use super::system;
use crate::arch;

/// How the pages of a guard are kept out of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardKind {
    /// By a mark in the page tables (`MADV_GUARD_INSTALL`, Linux 6.13), which costs no mapping: stacks are limited by
    /// memory and address space alone.
    Region,
    /// By `mprotect`, which splits a mapping: two for each stack, and the kernel limits how many a process has
    /// (`vm.max_map_count` on Linux).
    Protection,
}

/// How the stacks of this process are guarded.
///
/// Found out once, when the first stack is mapped or asked for here: a guard region is made and the kernel asked to read
/// from it. An emulator that answers yes and does nothing, as QEMU's user mode does, is not believed.
///
/// The environment variable `SWITCHBACK_GUARD=protection` keeps guard regions from being used.
///
/// ```
/// println!("guarded by a {:?}", switchback::stack::guard_kind());
/// ```
pub fn guard_kind() -> GuardKind {
    const UNKNOWN: usize = 0;
    const REGION: usize = 1;
    const PROTECTION: usize = 2;
    static KIND: AtomicUsize = AtomicUsize::new(UNKNOWN);
    match KIND.load(Ordering::Relaxed) {
        UNKNOWN => {
            let unwanted = std::env::var_os("SWITCHBACK_GUARD").is_some_and(|kind| kind == "protection");
            let kind = if !unwanted && system::guards_hold() { GuardKind::Region } else { GuardKind::Protection };
            let known = if kind == GuardKind::Region { REGION } else { PROTECTION };
            // Whoever was first: a thread that was short of a descriptor for the proof must not change it for all.
            match KIND.compare_exchange(UNKNOWN, known, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => kind,
                Err(REGION) => GuardKind::Region,
                Err(_) => GuardKind::Protection,
            }
        }
        REGION => GuardKind::Region,
        _ => GuardKind::Protection,
    }
}

/// The least bytes of guard below a stack.
///
/// One page where the compiler probes the pages of a large frame one by one; at least 64 KiB where it does not (arm,
/// riscv64, loongarch64), because a frame could jump over less. [`StackSize::guard`](super::StackSize::guard) asks for more.
pub fn guard_size() -> usize {
    let page = system::page_size();
    if arch::STACK_PROBES { page } else { page.max(64 * 1024) }
}
