//! Floor 1: the switch.
//!
//! One file per ABI, each with the same items under the same names, and one where there is none (`threads`, for Miri):
//!
//! | item | what it is |
//! |---|---|
//! | `STACK_ALIGNMENT` | bytes the stack pointer must be a multiple of at a call |
//! | `RED_ZONE` | bytes below the stack pointer that a leaf function may use and a signal handler keeps |
//! | `STACK_PROBES` | whether the compiler touches every page of a large frame in order, so that one guard page suffices |
//! | `has_shadow_stack` | whether the processor checks this thread's returns against a stack of its own |
//! | `SECOND_LANDING` | how far before its landing a context goes on that is to unwind |
//! | `trampoline` | first code of a new context; never called, only its address is used |
//! | `resume` | leaves the running context for a suspended one, which can find the way back |
//! | `suspend` | leaves the running context for the one that resumed it |
//! | `transfer` | leaves the running context for another suspended one, which the same parent will hear of |
//! | `call_on` | calls a function on another stack |
//! | `stack_pointer` | where the caller's stack ends |
//! | `FpEnvironment` | the floating-point control and status registers, which a switch leaves alone |
//!
//! # How a switch works
//!
//! A context has a few words of its own at a fixed place of its stack, the [`Link`], whose address is its name from its
//! creation to its end. While it is suspended, the link says at which address it goes on, its *landing*, and with which
//! stack pointer. While it runs, the first of these words holds the stack pointer of its *parent* instead, which is
//! whoever resumed it: one store both notes the way back and tells that the context is not suspended.
//!
//! `resume` *calls* the landing with the stack pointer still on the resumer's side, so the processor's return predictor
//! sees a call. The code there keeps the resumer's stack pointer, moves to its own stack and goes on. `suspend` moves back
//! to the parent's stack and *returns*, which the predictor expects. Four registers carry everything, the first four
//! argument registers of the C ABI:
//!
//! | register | to the context | to the resumer |
//! |---|---|---|
//! | 0 | a word of the caller's | a word of the context's |
//! | 1 | | the link of the context that suspended, 0 when it has ended |
//! | 2 | the context's own stack pointer | the same |
//! | 3 | the parent's stack pointer, where a context has transferred | |
//!
//! Both are inline assembly that declares every other register clobbered: the compiler spills just the values that are
//! live, which in a loop around a switch is often none. Saved by hand are only the registers that LLVM reserves for
//! itself and refuses as clobbers. Nothing is stored below the stack pointer, because a signal handler may run there.
//!
//! A landing and a stack pointer are told apart by one bit, [`SUSPENDED`]: stack pointers are multiples of 8, and the
//! assembly places its landings 4 bytes past a multiple of 8. `SECOND_LANDING` bytes before a landing lies a jump to a
//! second one, which says that the context is to unwind: so nobody who resumes pays for saying that it is not.
//!
//! # The assembly
//!
//! The three functions of each file that hold the assembly of a switch; the functions here load and store the link's words
//! around it.
//!
//! - `resume(landing, stack_pointer, word)` goes on at a landing. It returns when a context suspends, with the word, its link
//!   and its stack pointer, or ends, with null. Landing and stack pointer must be those of a suspended context on a mapped
//!   stack, which this thread resumed before if anyone did, and the word what the code there expects.
//! - `suspend(link, parent, word)` suspends the running context. It returns when it is resumed, with the word, its stack
//!   pointer (0 if it is to unwind) and the parent's. The link must be that of the running context, `parent` the stack
//!   pointer of whoever resumed it last, and the word what that one expects.
//! - `transfer(landing, stack_pointer, link, parent, word)` suspends the running context and goes on at the landing of
//!   another, whose parent is then ours. It returns when it is resumed, with the word and the parent's stack pointer. What
//!   the other two demand it demands as well. The parent's frame is complete: where an indirect branch may end anywhere, it
//!   skips the two instructions with which landings begin, which would complete it and fetch its address.
//!
//! # Walking stacks
//!
//! The unwind tables of the trampoline lead from a coroutine's first function to whoever resumed it last, through the
//! link. A coroutine that runs has such a resumer always, so a walk in the process ends where the thread's does. The link
//! of a suspended coroutine is stale: a debugger that is shown its registers by hand sees its own frames as they are, and
//! beyond the trampoline whatever lies where the resumer was. A store in each switch would be needed to say that; nothing
//! in the process walks a suspended stack.
//!
//! - The trampoline is marked as a signal frame, which is how gdb shows it, so that the resumer's stack may lie anywhere.
//!   EHABI, on arm, has no such mark: gdb stops at the trampoline there if the resumer's stack lies below.
//! - Profilers that copy a stack and walk it later by the tables (`perf record --call-graph dwarf`) see the coroutine's
//!   stack up to the trampoline, since the copy is of one stack.
//! - Chains of frame pointers, which cheaper profilers follow (`perf record --call-graph fp`), lead to the resumer as well:
//!   what it leaves on its stack is a frame record, completed by the resumed side, and the link's last two words are another,
//!   which leads there while the context runs. The very last is taken for a return address: the walk shows the entry
//!   function once more, as the trampoline's caller. To show the trampoline instead would take one more word of every link.
//!   Linux on aarch64 and loongarch64 goes only to higher addresses, so to a resumer whose stack lies above, as that of the
//!   thread mostly does.
//!
//! # Hardened programs
//!
//! - *Shadow stacks* (x86_64 SHSTK, aarch64 GCS): a return that the processor checks against its own stack of addresses must
//!   come in the order of the calls, and a suspend does not. Each coroutine would need a shadow stack of its own, from
//!   the kernel. C libraries leave them off unless asked; a coroutine on a thread that has one is refused when it is made.
//!   If the shadow stack is turned on after that, the first suspend or end faults at its `ret`, before it returns
//!   anywhere. `call_on` is a call and a return to them.
//! - *Shadow stacks of RISC-V* (Zicfiss) are kept by instructions in the code that wants them, and rustc makes none; nor
//!   does any C library turn them on yet.
//! - *aarch64 BTI*: every address that an indirect branch here can reach begins with a landing pad.
//! - *x86_64 IBT*: no landing pads. No kernel enforces it in user space, and there would be one in every suspend.
//! - *aarch64 pointer authentication*: a function that signs its return address with the stack pointer finds the same
//!   stack pointer when it returns. The addresses in suspended contexts are not signed.
//!
//! # Measured
//!
//! On an AMD EPYC (a cycle is 0.27 ns), one resume and suspend in a loop takes 11 cycles:
//!
//! - 13 if the words of the link are loaded and stored by the assembly, through its operands, instead of the compiler's
//!   code around it: there a word is stored and loaded through the same base register, which the processor forwards
//!   sooner. To load the stack pointer straight from memory costs 2 more than by way of another register.
//! - 12 if a running coroutine is marked by a store of its own, or if whoever resumes says in a word of the link whether to
//!   unwind; saying it in a register costs an instruction.
//! - Call and return stay paired: four places that resume ten coroutines at random take 5.5 ns each time. Jumps both ways
//!   take 5.6, a call in and a jump out 10.7, a jump in and a return out 13.
//! - Whoever resumes one of a thousand waits for two lines of memory, link and stack: at once if he keeps the stack pointer
//!   himself (5.9 ns), one after the other if it has to be read from the link (12.5 ns).
//! - Equally aligned stacks cost `transfer` more than all of this: 6.2 ns, and 1.7 with stack tops that differ (see
//!   `stagger` in floor 3), because stores and loads of two links then fall together in their lower 12 bits.

use core::cell::Cell;
use core::mem::MaybeUninit;

#[allow(dead_code, reason = "most targets have floating-point registers")]
mod no_fp;

cfg_select! {
    any(miri, switchback_threads) => { pub mod threads; pub use threads as native; }
    // Their C ABI passes arguments in other registers than the assembly does, and their threads know their stacks.
    any(windows, target_os = "uefi", target_os = "cygwin") => {
        compile_error!("switchback cannot switch under the Windows ABI: use a target with the System V ABI or the AAPCS");
    }
    // The assembly takes an address for 64 bits there: not so in x32 and ILP32.
    all(not(target_pointer_width = "64"), any(target_arch = "x86_64", target_arch = "aarch64")) => {
        compile_error!("switchback cannot switch where this architecture has addresses of 32 bits: use a target of 64");
    }
    target_arch = "x86_64" => { pub mod x86_64; pub use x86_64 as native; }
    target_arch = "aarch64" => { pub mod aarch64; pub use aarch64 as native; }
    target_arch = "arm" => { pub mod arm; pub use arm as native; }
    target_arch = "riscv64" => { pub mod riscv64; pub use riscv64 as native; }
    target_arch = "loongarch64" => { pub mod loongarch64; pub use loongarch64 as native; }
    _ => { compile_error!("switchback has no context switch for this architecture"); }
}

use native::trampoline;
pub use native::{FpEnvironment, RED_ZONE, STACK_ALIGNMENT, STACK_PROBES, call_on, has_shadow_stack};

/// What travels in a register across a switch: a pointer, or the bytes of a value that is no larger.
///
/// A pointer rather than an integer, so that provenance travels with it.
pub type Word = MaybeUninit<*mut ()>;

/// The bit that a landing has, and a stack pointer has not.
const SUSPENDED: usize = 4;

/// A context's own words, at a fixed place of its stack, which begins right below. The trampoline knows the offsets, and
/// its unwind tables look here for the resumer.
#[repr(C, align(16))]
pub struct Link {
    /// A word of the creator's.
    pub data: *mut (),
    /// Unstarted: this link. Of a context that has transferred to another: its stack pointer. Whoever resumes keeps that of
    /// a context that has suspended, here or elsewhere.
    pub stack_pointer: Cell<usize>,
    /// Suspended: the landing. Running: the stack pointer of whoever resumed it last. Ended: 0.
    state: Cell<usize>,
    /// To whoever walks frame pointers, these last two words are a frame record, as aligned as kernels want it, and this one
    /// is a return address.
    entry: Entry,
}

impl Link {
    /// Whether [`resume`] may be called.
    #[inline(always)]
    pub fn is_suspended(&self) -> bool {
        self.state.get() & SUSPENDED != 0
    }

    /// Whether it is suspended and has never been resumed.
    #[inline]
    pub fn is_unstarted(&self) -> bool {
        self.state.get() == trampoline_landing()
    }

    /// Whether [`set_ended`](Self::set_ended) was called.
    #[inline(always)]
    pub fn is_ended(&self) -> bool {
        self.state.get() == 0
    }

    /// To be called when the context's last [`resume`] has returned.
    #[inline(always)]
    pub fn set_ended(&self) {
        self.state.set(0);
    }
}

/// The first Rust function of a context, with the word of the first resume and its link.
///
/// What it returns is the word the last `resume` returns. It must not unwind.
pub type Entry = unsafe extern "C" fn(Word, *const Link) -> Word;

/// Lays out a new context on a stack whose free part ends at `top`, with its link right below `top`.
///
/// # Safety
///
/// `top` must be a multiple of 16, and the `size_of::<Link>()` bytes below it must be writable and not in use.
#[inline]
pub unsafe fn prepare(top: *mut u8, entry: Entry, data: *mut ()) -> *const Link {
    const { assert!(align_of::<Link>().is_multiple_of(STACK_ALIGNMENT)) }
    debug_assert!(top.addr().is_multiple_of(align_of::<Link>()));
    // SAFETY: the caller vouches for the place.
    unsafe {
        let link = top.cast::<Link>().sub(1);
        link.write(Link {
            data,
            stack_pointer: Cell::new(link.expose_provenance()),
            state: Cell::new(trampoline_landing()),
            entry,
        });
        link
    }
}

/// The landing of the trampoline: the first place behind its beginning that has the form of one.
///
/// Never inlined into another crate: a program that is not position-independent would take the address of a jump to the
/// trampoline for the trampoline's if this crate is in a dynamic library.
#[inline(never)]
fn trampoline_landing() -> usize {
    let begin = trampoline as *const () as usize;
    // In Thumb state the address of a function has its lowest bit set, and so must have that of a landing.
    let thumb = begin & 1;
    (begin - thumb).next_multiple_of(8) | SUSPENDED | thumb
}

/// How a [`resume`] came back.
pub struct Back {
    /// A word of whoever came back.
    pub word: Word,
    /// The link of the context that has suspended, null if it has ended.
    pub link: *const Link,
    /// Its stack pointer, if it has suspended.
    pub stack_pointer: usize,
}

/// Goes on with a suspended context; returns when one with this parent suspends or ends.
///
/// The caller keeps the stack pointer that comes back for the next resume.
///
/// # Safety
///
/// `target` must be suspended with this stack pointer, on a stack that is mapped, and be resumed by the thread that resumed
/// it before. The word must be what the code there expects, and remain so whatever it transfers to.
#[inline(always)]
pub unsafe fn resume(target: *const Link, stack_pointer: usize, word: Word) -> Back {
    // SAFETY: the caller's promise.
    let (word, link, stack_pointer) = unsafe { native::resume((*target).state.get(), stack_pointer, word) };
    Back { word, link, stack_pointer }
}

/// Goes on with a suspended context and tells it to unwind: its `suspend` returns none. Returns as [`resume`] does.
///
/// # Safety
///
/// As for [`resume`]; it must be suspended in [`suspend`].
#[allow(dead_code, reason = "nothing unwinds without std")]
#[inline(always)]
pub unsafe fn resume_to_unwind(target: *const Link, stack_pointer: usize) -> Back {
    // SAFETY: the caller's promise; `suspend` has a second landing.
    let (word, link, stack_pointer) = unsafe {
        let landing = (*target).state.get() - native::SECOND_LANDING;
        native::resume(landing, stack_pointer, Word::uninit())
    };
    Back { word, link, stack_pointer }
}

/// Suspends the running context; returns when it is resumed, with the word, or none if it is to unwind.
///
/// # Safety
///
/// `link` must be that of the running context, and the word what its resumer expects.
#[inline(always)]
pub unsafe fn suspend(link: *const Link, word: Word) -> Option<Word> {
    // SAFETY: while it runs its state is the parent's stack pointer. Whoever resumes it is its parent then.
    unsafe {
        let (word, stack_pointer, parent) = native::suspend(link, (*link).state.get(), word);
        (*link).state.set(parent);
        (stack_pointer != 0).then_some(word)
    }
}

/// Suspends the running context and goes on with `target` as if our parent had resumed that one; returns when it is
/// resumed, with the word.
///
/// # Safety
///
/// As for [`resume`] and [`suspend`]. Both contexts must be of this thread.
#[inline(always)]
pub unsafe fn transfer(target: *const Link, link: *const Link, word: Word) -> Word {
    // SAFETY: as in `resume` and `suspend`; the parent's frame stays as its own resume left it.
    unsafe {
        let landing = (*target).state.get();
        let stack_pointer = (*target).stack_pointer.get();
        let (word, parent) = native::transfer(landing, stack_pointer, link, (*link).state.get(), word);
        (*link).state.set(parent);
        word
    }
}
