//! No ABI at all: a coroutine is a thread of the operating system, and a switch hands over a baton.
//!
//! Chosen under Miri, which interprets no assembly, so that everything above this floor can be run there, and with
//! `--cfg switchback_threads`, which does the same natively. Not for use: a switch costs microseconds.
//!
//! Whoever is not running waits for a message, in a [`Baton`] that lies on its own stack. The baton's address is the stack
//! pointer, of a suspended context and of a parent:
//!
//! ```text
//!            suspended context                      parent, while the context runs
//!            +--------------------------+           +--------------------------+
//!   sp ----> | baton: whom to wake, and |  sp ----> | baton: whom to wake, and |
//!            |        what is said then |           |        what is said then |
//!            +--------------------------+           +--------------------------+
//!              on its thread's stack                  on the parent's own stack
//! ```
//!
//! A landing is no address here, it only tells in which way a context goes on. Whoever continues a new one, known by the
//! trampoline's landing, starts its thread. Only one of these threads runs at a time, and each message happens before all
//! that its receiver does, so what is sound here is free of data races too.
//!
//! What differs from a switch:
//!
//! - The frames of a coroutine lie on its thread's stack. Its own holds its function, its link and its result, and no
//!   overflow of it is seen. [`call_on`] is a plain call.
//! - Each coroutine has the thread-locals of its own thread, and they end with it. A backtrace ends at the thread's first
//!   function.
//! - `std::thread::panicking` answers for the coroutine alone; [`panicking`] knows about its resumers as well.
//! - A coroutine that is forgotten while it is suspended leaves its thread waiting for ever, which Miri reports when the
//!   program ends. One that ends is joined by whoever hears of its end.
//! - If no thread can be started, the resume panics and its input is leaked; the coroutine is as it was before.

extern crate std;

use core::cell::{Cell, UnsafeCell};
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle, Thread};

pub use super::no_fp::FpEnvironment;
use super::{Link, Word, trampoline_landing};

/// What every ABI is content with.
pub const STACK_ALIGNMENT: usize = 16;
/// Nothing runs on a coroutine's own stack.
pub const RED_ZONE: usize = 0;
/// The guards that matter are those of the threads.
pub const STACK_PROBES: bool = true;
/// Any difference will do.
pub const SECOND_LANDING: usize = 8;

/// Of a context that has suspended. The trampoline's is larger.
const LANDING: usize = 8 | super::SUSPENDED;

std::thread_local! {
    /// Whether this code is thought to be on another stack than its thread's: always so on a coroutine's thread.
    static ELSEWHERE: Cell<bool> = const { Cell::new(false) };
    /// Whether this thread's coroutine was last continued by code that was panicking.
    static RESUMER_PANICS: Cell<bool> = const { Cell::new(false) };
}

/// Whether the running coroutine, or one of those who wait for it to come back, is panicking: what
/// `std::thread::panicking` says where they share a thread.
pub fn panicking() -> bool {
    thread::panicking() || RESUMER_PANICS.get()
}

/// Whether the caller is outside of every coroutine and every [`call_on`].
#[cfg_attr(not(feature = "std"), expect(dead_code, reason = "asked by what needs std"))]
pub fn on_the_threads_stack() -> bool {
    !ELSEWHERE.get()
}

/// Where the caller is on its stack, more or less.
pub fn stack_pointer() -> usize {
    let here = 0_u8;
    (&raw const here).addr()
}

/// Returns are as everywhere.
pub fn has_shadow_stack() -> bool {
    false
}

/// Its landing marks a new context. Not inlined, or Miri might give it several addresses.
#[inline(never)]
pub unsafe extern "C" fn trampoline() {}

/// Goes on at a landing; returns when a context suspends, with its link and its stack pointer, or ends, with null.
///
/// # Panics
///
/// If the context is new and no thread can be started for it.
///
/// # Safety
///
/// Landing and stack pointer must be those of a suspended context on a mapped stack, which this thread resumed before if
/// anyone did, and the word what the code there expects.
pub unsafe fn resume(landing: usize, stack_pointer: usize, word: Word) -> (Word, *const Link, usize) {
    let here = Baton::new();
    // SAFETY: the caller vouches for the context.
    unsafe {
        let (stack_pointer, thread) = started(landing, stack_pointer);
        let unwind = landing == LANDING - SECOND_LANDING;
        hand_over(stack_pointer, Message { unwind, thread, ..Message::new(word, ptr::null(), here.address()) });
    }
    let message = here.wait();
    if let Some(thread) = message.thread {
        // It cannot have panicked: whatever runs there ends the process if it does.
        let _ = thread.join();
    }
    (message.word, message.link, message.stack_pointer)
}

/// Suspends the running context; returns when it is resumed, with the word, its stack pointer (0 if it is to unwind)
/// and the parent's.
///
/// # Safety
///
/// The link must be that of the running context, `parent` the stack pointer of whoever resumed it last, and the word
/// what that one expects.
pub unsafe fn suspend(link: *const Link, parent: usize, word: Word) -> (Word, usize, usize) {
    let here = Baton::new();
    // SAFETY: the link is ours while we run, and the parent waits in its `resume`.
    unsafe {
        (*link).state.set(LANDING);
        hand_over(parent, Message::new(word, link, here.address()));
    }
    let message = here.wait_as_a_context();
    (message.word, if message.unwind { 0 } else { here.address() }, message.stack_pointer)
}

/// Suspends the running context and goes on at the landing of another, whose parent is then ours; returns when it is
/// resumed, with the word and the parent's stack pointer.
///
/// # Panics
///
/// As [`resume`].
///
/// # Safety
///
/// As for [`resume`] and [`suspend`].
pub unsafe fn transfer(
    landing: usize,
    stack_pointer: usize,
    link: *const Link,
    parent: usize,
    word: Word,
) -> (Word, usize) {
    let here = Baton::new();
    // SAFETY: the caller vouches for the context, and the link is ours while we run.
    unsafe {
        let (stack_pointer, thread) = started(landing, stack_pointer);
        (*link).state.set(LANDING);
        (*link).stack_pointer.set(here.address());
        hand_over(stack_pointer, Message { thread, ..Message::new(word, ptr::null(), parent) });
    }
    let message = here.wait_as_a_context();
    (message.word, message.stack_pointer)
}

/// Calls `function(data)`, where the caller is: there is no other stack to go to.
///
/// # Safety
///
/// `top` must be a multiple of [`STACK_ALIGNMENT`], with enough unused stack below it. The function must not unwind.
pub unsafe extern "C" fn call_on(data: *mut (), function: unsafe extern "C" fn(*mut ()), _top: *mut u8) {
    let before = ELSEWHERE.replace(true);
    // SAFETY: the caller's promise.
    unsafe { function(data) };
    ELSEWHERE.set(before);
}

/// What is said when the baton is handed over.
struct Message {
    word: Word,
    /// To a parent: the link of the context that has suspended, null if it has ended.
    link: *const Link,
    /// To a context: its parent's. To a parent: that of the context that has suspended.
    stack_pointer: usize,
    /// To a context: whether it is to unwind.
    unwind: bool,
    /// Whether the sender was [`panicking`].
    panicking: bool,
    /// To a new context: its own thread. From one that has ended: the same, to be joined.
    thread: Option<JoinHandle<()>>,
}

// SAFETY: sender and receiver stand for one thread that switches its context: they never run at the same time.
unsafe impl Send for Message {}

impl Message {
    fn new(word: Word, link: *const Link, stack_pointer: usize) -> Self {
        Self { word, link, stack_pointer, unwind: false, panicking: panicking(), thread: None }
    }
}

/// Where a thread waits, and what wakes it. Aligned as stack pointers are.
#[repr(align(16))]
struct Baton {
    handed_over: AtomicBool,
    message: UnsafeCell<Option<Message>>,
    waits: Thread,
}

impl Baton {
    fn new() -> Self {
        Self {
            handed_over: AtomicBool::new(false),
            message: UnsafeCell::new(None),
            waits: thread::current(),
        }
    }

    /// The baton must not be moved any more.
    fn address(&self) -> usize {
        ptr::from_ref(self).expose_provenance()
    }

    fn wait(&self) -> Message {
        // Pairs with the store in `hand_over`.
        while !self.handed_over.load(Ordering::Acquire) {
            thread::park();
        }
        // SAFETY: the sender is done with it.
        let message = unsafe { (*self.message.get()).take() };
        message.expect("it is written before it is announced")
    }

    fn wait_as_a_context(&self) -> Message {
        let message = self.wait();
        RESUMER_PANICS.set(message.panicking);
        message
    }
}

/// Wakes the thread that waits in a baton.
///
/// # Safety
///
/// `stack_pointer` must be a baton's address, in which a thread waits or is about to, and which nobody else hands over.
unsafe fn hand_over(stack_pointer: usize, message: Message) {
    let baton = ptr::with_exposed_provenance::<Baton>(stack_pointer);
    // SAFETY: the caller's promise. The baton is gone as soon as its thread sees the store, which pairs with the load in
    // `wait`: nothing of it is used after, and no reference to it as a whole is ever made here.
    unsafe {
        let waits = (*baton).waits.clone();
        (*baton).message.get().write(Some(message));
        (*baton).handed_over.store(true, Ordering::Release);
        waits.unpark();
    }
}

/// The stack pointer of a suspended context; if it is new it gets a thread, which is returned as well.
///
/// # Safety
///
/// Landing and stack pointer must be those of a suspended context on a mapped stack, which is continued next.
unsafe fn started(landing: usize, stack_pointer: usize) -> (usize, Option<JoinHandle<()>>) {
    if landing != trampoline_landing() {
        return (stack_pointer, None);
    }
    let (to_starter, waiting) = mpsc::sync_channel(1);
    let run = move || {
        let here = Baton::new();
        to_starter.send(here.address()).expect("the starter waits for it");
        ELSEWHERE.set(true);
        // Of a new context it is the link.
        let link = ptr::with_exposed_provenance::<Link>(stack_pointer);
        // SAFETY: the caller's promise; whoever sends to this baton continues the context.
        unsafe { context(link, here.wait_as_a_context()) };
    };
    match thread::Builder::new().name("coroutine".into()).spawn(run) {
        Ok(thread) => (waiting.recv().expect("the thread says where it waits"), Some(thread)),
        Err(error) => {
            panic!("no thread for a coroutine: {error}; have fewer suspended at once or raise the limit of threads")
        }
    }
}

/// What the trampoline does elsewhere: runs the entry function of a new context and goes back to whoever resumed last.
///
/// # Safety
///
/// The link must be that of a new context, and the message what it expects.
unsafe fn context(link: *const Link, message: Message) {
    // SAFETY: the caller's promise. The link lies still until the last message is sent; the last parent waits in its
    // `resume`.
    unsafe {
        (*link).state.set(message.stack_pointer);
        let word = ((*link).entry)(message.word, link);
        let parent = (*link).state.get();
        hand_over(parent, Message { thread: message.thread, ..Message::new(word, ptr::null(), 0) });
    }
}
