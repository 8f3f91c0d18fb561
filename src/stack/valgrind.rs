//! Valgrind: which memory is a stack.
//!
//! Memcheck takes a stack pointer that moves far for one large allocation or release, unless both ends are on stacks that
//! it knows; it would then call what lives on a suspended coroutine's stack undefined or out of bounds.
//!
//! A program talks to Valgrind by a sequence of instructions that do nothing on a processor. Natively it costs six
//! stores and five instructions.

use core::ptr::NonNull;
#[cfg(feature = "std")]
use core::sync::atomic::{AtomicBool, Ordering};

#[cfg(feature = "std")]
use super::StackSize;

/// Requests, from `valgrind.h`, where their numbers are declared to be fixed for ever.
const STACK_REGISTER: usize = 0x1501;
#[cfg(feature = "std")]
const STACK_DEREGISTER: usize = 0x1502;
/// Memcheck's own, for memory that may be used.
#[cfg(feature = "std")]
const MAKE_MEM_DEFINED: usize = 0x4d43_0002;

/// What [`request`] answers when nobody listens. Valgrind counts its stacks from zero.
const NATIVE: usize = usize::MAX;

/// Whether a Valgrind has been told of a stack that can be used again. Orders nothing: who hands a stack out has seen it
/// registered.
#[cfg(feature = "std")]
static LISTENS: AtomicBool = AtomicBool::new(false);

/// Registers a stack for as long as the program runs.
pub(super) fn register_for_ever(limit: NonNull<u8>, top: NonNull<u8>) {
    register_range(limit, top);
}

/// Registers a stack until [`deregister`].
#[cfg(feature = "std")]
pub(super) fn register(limit: NonNull<u8>, top: NonNull<u8>) {
    let number = register_range(limit, top);
    if number != NATIVE {
        numbers().insert(limit.addr().get(), number);
        LISTENS.store(true, Ordering::Relaxed);
    }
}

/// Says that a stack is handed out, perhaps again: Memcheck holds what was below the last stack pointer there for out of
/// bounds. It holds each frame for undefined anew as the stack pointer goes down, so nothing is hidden from it. Natively two
/// loads and a branch.
#[cfg(feature = "std")]
#[inline(always)]
pub(super) fn hand_out(limit: NonNull<u8>, size: &StackSize) {
    if LISTENS.load(Ordering::Relaxed) {
        open_up(limit, size);
    }
}

#[cfg(feature = "std")]
#[cold]
#[inline(never)]
fn open_up(limit: NonNull<u8>, size: &StackSize) {
    request(MAKE_MEM_DEFINED, limit.addr().get(), size.reserve);
}

/// Takes back what [`register`] said, before the memory is something else.
#[cfg(feature = "std")]
pub(super) fn deregister(limit: NonNull<u8>) {
    if is_listening()
        && let Some(number) = numbers().remove(&limit.addr().get())
    {
        request(STACK_DEREGISTER, number, 0);
    }
}

fn register_range(limit: NonNull<u8>, top: NonNull<u8>) -> usize {
    // Valgrind wants the highest byte, not the one above it.
    request(STACK_REGISTER, limit.addr().get(), top.addr().get() - 1)
}

/// Whether the program runs under Valgrind.
#[cfg(feature = "std")]
fn is_listening() -> bool {
    const RUNNING_ON_VALGRIND: usize = 0x1001;
    request(RUNNING_ON_VALGRIND, 0, 0) != NATIVE
}

/// The number that Valgrind gave each registered stack, by its limit. Nothing is in it natively.
#[cfg(feature = "std")]
fn numbers() -> std::sync::MutexGuard<'static, std::collections::BTreeMap<usize, usize>> {
    use std::sync::{Mutex, PoisonError};
    static NUMBERS: Mutex<std::collections::BTreeMap<usize, usize>> = Mutex::new(std::collections::BTreeMap::new());
    NUMBERS.lock().unwrap_or_else(PoisonError::into_inner)
}

cfg_select! {
    // What Valgrind runs on, and rustc's inline assembly for it that this crate has a switch for.
    all(any(target_os = "linux", target_os = "android", target_os = "freebsd"), not(miri), any(
        target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm", target_arch = "riscv64",
    )) => {
        /// Asks Valgrind for something; without one the answer is [`NATIVE`].
        #[inline]
        fn request(request: usize, first: usize, second: usize) -> usize {
            let arguments = [request, first, second, 0, 0, 0];
            let answer;
            // SAFETY: natively it turns a register by two whole rounds, and moves another onto itself: nothing. Valgrind
            // reads the arguments and writes the answer.
            unsafe {
                cfg_select! {
                    target_arch = "x86_64" => core::arch::asm!(
                        "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51",
                        "xchg rbx, rbx",
                        inlateout("rdx") NATIVE => answer,
                        in("rax") &raw const arguments,
                        options(nostack),
                    ),
                    target_arch = "aarch64" => core::arch::asm!(
                        "ror x12, x12, #3", "ror x12, x12, #13", "ror x12, x12, #51", "ror x12, x12, #61",
                        "orr x10, x10, x10",
                        inlateout("x3") NATIVE => answer,
                        in("x4") &raw const arguments,
                        options(nostack),
                    ),
                    target_arch = "arm" => core::arch::asm!(
                        "mov r12, r12, ror #3", "mov r12, r12, ror #13", "mov r12, r12, ror #29", "mov r12, r12, ror #19",
                        "orr r10, r10, r10",
                        inlateout("r3") NATIVE => answer,
                        in("r4") &raw const arguments,
                        options(nostack),
                    ),
                    // Since Valgrind 3.25. Compressed instructions would not be recognised.
                    target_arch = "riscv64" => core::arch::asm!(
                        ".option push", ".option norvc",
                        "srli zero, zero, 3", "srli zero, zero, 13", "srli zero, zero, 51", "srli zero, zero, 61",
                        "or a0, a0, a0",
                        ".option pop",
                        inlateout("a3") NATIVE => answer,
                        in("a4") &raw const arguments,
                        options(nostack),
                    ),
                }
            }
            answer
        }
    }
    _ => {
        /// There is no Valgrind.
        #[inline]
        fn request(_: usize, _: usize, _: usize) -> usize {
            NATIVE
        }
    }
}
