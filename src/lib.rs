//! Stackful coroutines: functions that can be suspended anywhere, on stacks of their own.
//!
//! ```
//! # fn main() -> Result<(), switchback::stack::Error> {
//! use switchback::{Coroutine, Resumed, Yielder};
//!
//! let mut squares = Coroutine::new(|yielder: &Yielder<(), u32>, ()| {
//!     for n in 1..=3 {
//!         yielder.suspend(n * n);
//!     }
//!     "done"
//! })?;
//! assert_eq!(squares.resume(()), Resumed::Yielded(1));
//! assert_eq!(squares.resume(()), Resumed::Yielded(4));
//! assert_eq!(squares.resume(()), Resumed::Yielded(9));
//! assert_eq!(squares.resume(()), Resumed::Returned("done"));
//! # Ok(())
//! # }
//! ```
//!
//! Three floors, each of which knows only the ones below it:
//!
//! 1. the switch: inline assembly for x86_64, aarch64, arm, riscv64 and loongarch64 (private);
//! 2. [`stack`]: memory for coroutines to run on, guarded against overflow;
//! 3. [`Coroutine`] and [`Yielder`], [`scoped`] coroutines that borrow, [`on_stack`] and `ensure_stack`: the switch made safe; [`context`], for
//!    schedulers, is not.
//!
//! A switch between a coroutine and its resumer allocates nothing, takes no lock, uses no atomic operation of its own
//! and makes no system call.
//!
//! # Features
//!
//! - `std` (default): panics are caught in the coroutine and carried to the resumer; an unfinished coroutine is unwound
//!   when it is dropped; [`stack::Mapped`] maps stacks from the operating system through `libc`, the only dependency.
//!
//! Without `std` the crate is `no_std` and has no dependency. The user brings the stacks, a panic inside a coroutine
//! aborts, and an unfinished coroutine that is dropped is forgotten: its stack is never given back and the destructors
//! of what lives there do not run.
//!
//! # What is preserved across a switch
//!
//! All registers that the platform's C ABI calls callee-saved, integer and floating point. The floating-point
//! environment belongs to the thread: a change made inside a coroutine is seen by its resumer, and the other way round,
//! unless the coroutine has [an environment of its own](Coroutine::with_own_fp_environment).
//!
//! | | kept by every switch | left to the thread, or kept for a coroutine of its own |
//! |---|---|---|
//! | x86_64 | rbx, rbp, rsp, r12-r15 | MXCSR, x87 control word, exception flags of the x87 status word |
//! | aarch64 | x19-x29, sp, d8-d15 | FPCR, FPSR |
//! | arm | r4-r11, sp, d8-d15 (with VFP) | FPSCR (with VFP and a hard-float ABI) |
//! | riscv64 | s0-s11, sp, fs0-fs11 (with F or D) | fcsr |
//! | loongarch64 | s0-s9 (s9 is fp), sp, fs0-fs7 | fcsr0 |
//!
//! Everything else is lost, as in any call, or left alone: the thread pointer, x18 on aarch64, control registers of other
//! extensions (such as vxrm on riscv64). The x87 register stack must be empty at a switch, and the direction flag of
//! x86_64 clear, as the ABI has it at every call. An alternate signal stack and the signal mask are the thread's.
//!
//! # Under Miri
//!
//! Miri interprets no assembly, so there each coroutine is a thread, one of which runs at a time: programs that use this
//! crate can be tested with `cargo miri test`, which then sees all their memory accesses. `--cfg switchback_threads` in
//! `RUSTFLAGS` does the same without Miri, for other tools that know threads only. What differs:
//!
//! - A coroutine has thread-locals of its own, and `std::thread::panicking` does not tell it about its resumers.
//! - It runs on its thread's stack: what a [`Stack`](stack::Stack) says about size and guard is not enforced.
//! - One that is leaked while suspended leaves a thread behind, which Miri reports unless told `-Zmiri-ignore-leaks`.
//! - A resume panics if no thread can be started.
//!
//! `-Zmiri-permissive-provenance` silences the warning that a context is an integer.
//!
//! # Safety model
//!
//! A coroutine stays on the thread that created it: [`Coroutine`] is neither `Send` nor `Sync`. So no thread-local is
//! ever seen from a second thread. It owns what it uses (`'static`), so forgetting one leaks what it owns. From its first
//! resume until its function has returned or unwound, its stack is neither freed nor moved nor reused.
//!
//! What remains for the user to know: the standard library's thread-locals rely on calls ending in the order in which they
//! began, and code that suspends does not keep that order.
//!
//! - Do not suspend inside the initialiser of a `thread_local!`: another coroutine may initialise it meanwhile, and lose
//!   its value when the first goes on. The same holds for a callback of a library that keeps a raw pointer to stack data
//!   in a thread-local meanwhile.
//! - Do not let a thread end while a coroutine on it is suspended inside [`LocalKey::with`](std::thread::LocalKey::with),
//!   forgotten or kept in a thread-local: the value is destroyed with the thread, and the coroutine, or a scoped thread
//!   it began, still refers to it. Finish or drop it before.
//! - A frame larger than the guard can pass it where frames are not probed; see [`stack::guard_size`].
//!
//! A thread with a shadow stack (x86_64 SHSTK, aarch64 GCS) cannot run coroutines: making one returns an error that says how
//! to turn it off. [`on_stack`] works there.
//!
//! # Tools
//!
//! - **Valgrind** knows the stacks ([`stack::Mapped`], [`stack::Borrowed`]) of any build, debug or release: run the program
//!   under it. That costs a few instructions when a stack is made and dropped. Its reports end at a coroutine's first
//!   function. What lies on a stack below what was in use last is out of bounds to it, also when the stack was taken back
//!   to be ordinary memory again. Not on loongarch64, where there is no Valgrind.
//! - **AddressSanitizer** and **ThreadSanitizer** are found at build time and then hear of every switch, which costs
//!   nothing without them. They need a nightly compiler, which builds the standard library as well:
//!
//!   ```text
//!   RUSTFLAGS=-Zsanitizer=address CARGO_INCREMENTAL=0 cargo +nightly test -Zbuild-std \
//!       --target x86_64-unknown-linux-gnu --config profile.dev.package.switchback.codegen-units=1
//!   ```
//!
//!   With more than one codegen unit all works but backtraces, and with them reports, which end at the coroutine: the
//!   sanitizer's code makes the compiler put the unwind tables of the switch where only debuggers look.
//!
//!   AddressSanitizer finds uses after free, overflows of variables and uses after return on every stack, and leaks: what only
//!   a suspended coroutine holds is none. ThreadSanitizer takes coroutines of one thread as ordered by their switches,
//!   those of different threads as ordered only by what orders the threads, and shows each one's call stack. It
//!   maps memory for each coroutine that has begun: the limit of mappings (`vm.max_map_count`) is met beyond some 10,000.
//!
//! With either, frames are larger: a coroutine that barely fits its stack overflows it, which the guard catches.
#![cfg_attr(not(feature = "std"), no_std)]

#[cfg_attr(not(feature = "std"), allow(dead_code, reason = "only `std` asks for the stack pointer"))]
mod arch;
mod coroutine;
pub mod stack;
mod switch;

#[cfg(feature = "std")]
pub use coroutine::ensure_stack;
pub use coroutine::{Coroutine, Resumed, Scoped, Yielder, on_stack, scoped};
pub use coroutine::{context, fp};

/// What the target's ABI and compiler say about stacks.
pub mod target {
    pub use crate::arch::{RED_ZONE, STACK_ALIGNMENT, STACK_PROBES};
}
