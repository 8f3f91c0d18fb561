//! The report of an overflow: which faults are reported, what is said, and what becomes of all others.
//!
//! A program of its own, so that its main thread can overflow: each case runs in a process of its own.
#![cfg_attr(any(miri, switchback_threads), allow(dead_code, reason = "the frames of a coroutine are not on its stack"))]

mod common;

use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::mem::{MaybeUninit, transmute, zeroed};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, Output};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use common::{cases, leak};
use switchback::stack::{Borrowed, Mapped, Named, Pool, Pooled, Slab, Stack, guard_size, report_overflows};
use switchback::{Coroutine, Resumed, Yielder, ensure_stack, on_stack, stack};

struct Case {
    name: &'static str,
    /// Prints what it does.
    run: fn(),
    end: End,
}

/// How a case ends.
enum End {
    /// By the signal of a guard, and what was said of an overflow is one line: of a coroutine with this name and with a stack
    /// of this size, where the case has said last that its stack is, if it knows.
    Reports(&'static str, &'static str),
    /// By this signal, having printed these lines; nothing is said of an overflow.
    Dies(c_int, &'static [&'static str]),
    /// By SIGABRT, with this in what the standard library says of the overflow of a thread.
    Aborts(&'static str),
    /// By itself, having printed these lines.
    Returns(&'static [&'static str]),
}

use End::{Aborts, Dies, Reports, Returns};

const CASES: &[Case] = &[
    // Which faults are overflows.
    Case {
        name: "a_recursion_is_reported",
        run: || {
            report();
            run_on(named(64, "deep"), overflow);
        },
        end: Reports("deep", "64 KiB"),
    },
    Case {
        name: "one_huge_frame_is_reported",
        run: || {
            report();
            run_on(named(128, "wide"), one_huge_frame);
        },
        end: Reports("wide", "128 KiB"),
    },
    Case {
        name: "of_many_pooled_stacks_the_one_that_overflows_is_reported",
        run: || {
            report();
            let pool = Pool::of(64 << 10).expect("a pool");
            let stack = || pool.take().expect("a stack");
            let _others: Vec<_> = (0..40).map(|n| suspended_on(Named::new(stack(), &n.to_string()))).collect();
            run_on(Named::new(stack(), "pooled"), overflow);
        },
        end: Reports("pooled", "64 KiB"),
    },
    Case {
        name: "a_thread_that_rust_has_not_started_reports_of_a_pooled_stack",
        run: || {
            report();
            on_a_foreign_thread(|| run_on(Named::new(Pooled::new(64 << 10).expect("a stack"), "pooled"), overflow));
        },
        end: Reports("pooled", "64 KiB"),
    },
    Case {
        name: "of_the_stacks_of_a_slab_the_one_that_overflows_is_reported",
        run: || {
            report();
            let slab = Slab::new(64 << 10, 40).expect("a slab");
            let stack = || slab.take().expect("not all are in use");
            let _others: Vec<_> = (0..39).map(|n| suspended_on(Named::new(stack(), &n.to_string()))).collect();
            run_on(Named::new(stack(), "last"), overflow);
        },
        end: Reports("last", "64 KiB"),
    },
    Case {
        name: "a_thread_that_rust_has_not_started_reports_of_a_slab_that_another_made",
        run: || {
            report();
            static SLAB: OnceLock<Slab> = OnceLock::new();
            let slab = SLAB.get_or_init(|| Slab::new(64 << 10, 2).expect("a slab"));
            on_a_foreign_thread(|| {
                let slab = SLAB.get().expect("the other thread's");
                run_on(Named::new(slab.take().expect("not all are in use"), "shared"), overflow);
            });
            drop(slab.take());
        },
        end: Reports("shared", "64 KiB"),
    },
    Case {
        name: "of_nested_coroutines_the_one_that_overflows_is_reported",
        run: || {
            report();
            run_on(named(256, "outer"), || run_on(named(64, "inner"), overflow));
        },
        end: Reports("inner", "64 KiB"),
    },
    Case {
        name: "beside_a_suspended_coroutine_the_one_that_overflows_is_reported",
        run: || {
            report();
            let outer = named(128, "outer");
            let limit = outer.limit().addr();
            run_on(outer, move || {
                let _inner = suspended_on(named(64, "inner"));
                say_limit(limit.get());
                overflow();
            });
        },
        end: Reports("outer", "128 KiB"),
    },
    Case {
        name: "a_call_on_another_stack_is_reported",
        run: || {
            report();
            let mut stack = named(64, "a call");
            say_limit(stack.limit().addr().get());
            on_stack(&mut stack, overflow);
        },
        end: Reports("a call", "64 KiB"),
    },
    Case {
        name: "a_stack_that_a_recursion_grew_onto_is_reported",
        run: || {
            report();
            // On an unknown stack it grows at once.
            // SAFETY: what runs on it needs far less.
            let mut unknown = unsafe { Borrowed::new(leak(vec![0; 64 << 10].into_boxed_slice())) }.expect("room");
            on_stack(&mut unknown, || ensure_stack(4096, 64 << 10, overflow)).expect("a stack");
        },
        end: Reports("<unnamed>", "64 KiB"),
    },
    Case {
        name: "a_stack_that_is_part_of_a_mapped_one_is_reported",
        run: || {
            report();
            run_on(Part(mapped(64)), overflow);
        },
        end: Reports("<unnamed>", "64 KiB"),
    },
    Case {
        name: "an_overflow_while_others_map_stacks_is_reported",
        run: || {
            report();
            for _ in 0..2 {
                thread::spawn(|| {
                    loop {
                        drop((mapped(64), mapped(8)));
                    }
                });
            }
            run_on(named(64, "beside others"), overflow);
        },
        end: Reports("beside others", "64 KiB"),
    },
    Case {
        name: "an_overflow_after_fork_is_reported",
        run: || {
            report();
            let mut coroutine =
                Coroutine::with_stack(told(named(64, "the child's")), |yielder: &Yielder<(), ()>, ()| {
                    yielder.suspend(());
                    overflow();
                })
                .expect("it fits");
            let _ = coroutine.resume(());
            // SAFETY: the process has one thread.
            match unsafe { libc::fork() } {
                0 => {
                    let _ = coroutine.resume(());
                }
                child => die_as(child),
            }
        },
        end: Reports("the child's", "64 KiB"),
    },
    Case {
        name: "a_null_pointer_in_a_coroutine_is_not_reported",
        run: || {
            report();
            run_on(named(64, "innocent"), || touch(8));
        },
        end: Dies(libc::SIGSEGV, &[]),
    },
    Case {
        name: "a_wild_pointer_into_the_guard_of_another_stack_is_not_reported",
        run: || {
            report();
            let other = named(64, "suspended");
            let guard = other.limit().addr().get() - 8;
            let _other = suspended_on(other);
            run_on(named(64, "innocent"), move || touch(guard));
        },
        end: Dies(libc::SIGSEGV, &[]),
    },
    Case {
        name: "a_wild_pointer_into_its_own_guard_is_not_reported",
        run: || {
            report();
            let stack = named(64, "innocent");
            let guard = stack.limit().addr().get() - 8;
            run_on(stack, move || touch(guard));
        },
        end: Dies(libc::SIGSEGV, &[]),
    },
    Case {
        name: "a_write_beyond_the_top_of_a_stack_into_the_guard_of_the_next_is_not_reported",
        run: || {
            report();
            // Two of them follow one another sooner or later.
            let mut stacks: Vec<_> = (0..100).map(|_| mapped(64)).collect();
            stacks.sort_by_key(|stack| stack.limit());
            let top = |n: usize| stacks[n].top().addr().get();
            let lower = (0..99).find(|&n| top(n) + guard_size() == stacks[n + 1].limit().addr().get());
            let lower = lower.expect("two neighbours");
            let guard = top(lower);
            run_on(stacks.remove(lower), move || touch(guard));
        },
        end: Dies(libc::SIGSEGV, &[]),
    },
    Case {
        name: "a_thread_on_its_own_stack_is_not_taken_for_a_coroutine",
        run: || {
            report();
            let stack = mapped(64);
            touch(stack.limit().addr().get() - 8);
        },
        end: Dies(libc::SIGSEGV, &[]),
    },
    Case {
        name: "nothing_is_said_unasked",
        run: || run_on(named(64, "silent"), overflow),
        end: Dies(libc::SIGSEGV, &[]),
    },
    Case {
        name: "the_main_threads_own_overflow_is_reported_by_the_standard_library",
        run: || {
            report();
            overflow();
        },
        end: Aborts("thread 'main'"),
    },
    Case {
        name: "a_threads_own_overflow_is_reported_by_the_standard_library",
        run: || {
            report();
            run_on(named(64, "innocent"), || ());
            let thread = thread::Builder::new().name("tailor".into());
            let _ = thread.spawn(overflow).expect("a thread").join();
        },
        end: Aborts("thread 'tailor'"),
    },
    // Names.
    Case {
        name: "a_coroutine_without_a_name_is_reported",
        run: || {
            report();
            run_on(mapped(1024), overflow);
        },
        end: Reports("<unnamed>", "1 MiB"),
    },
    Case {
        name: "a_name_that_is_not_ascii_is_printed",
        run: || {
            report();
            run_on(named(64, "Käsekuchen 🍰"), overflow);
        },
        end: Reports("Käsekuchen 🍰", "64 KiB"),
    },
    Case {
        name: "a_name_that_is_too_long_is_cut_between_characters",
        run: || {
            report();
            run_on(named(64, &"é".repeat(60)), overflow);
        },
        end: Reports(
            match size_of::<usize>() {
                // 26 and 28 times.
                8 => "éééééééééééééééééééééééééé…",
                _ => "éééééééééééééééééééééééééééé…",
            },
            "64 KiB",
        ),
    },
    Case {
        name: "a_name_goes_with_its_coroutine_and_not_with_the_stack",
        run: || {
            report();
            let mut first = suspended_on(named(64, "the first"));
            assert_eq!(first.resume(()), Resumed::Returned(()));
            let stack = first.into_stack().expect("it has returned").into_inner();
            run_on(stack, overflow);
        },
        end: Reports("<unnamed>", "64 KiB"),
    },
    // Other handlers.
    Case {
        name: "an_earlier_handler_gets_a_fault_with_all_that_is_said_of_it",
        run: || {
            install(repair_with_info as *const () as usize, libc::SA_SIGINFO | libc::SA_ONSTACK);
            report();
            say_repair();
            // It is no matter where.
            run_on(named(64, "innocent"), say_repair);
        },
        end: Returns(&[
            "repaired at the address",
            "with itself blocked",
            "repaired at the address",
            "with itself blocked",
        ]),
    },
    Case {
        name: "an_earlier_handler_without_siginfo_gets_the_signal",
        run: || {
            install(repair as *const () as usize, libc::SA_ONSTACK);
            report();
            say_repair();
        },
        end: Returns(&["repaired", "with itself blocked"]),
    },
    Case {
        name: "an_earlier_handler_that_does_not_defer_its_signal_is_not_blocked",
        run: || {
            install(repair_with_info as *const () as usize, libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER);
            report();
            say_repair();
        },
        end: Returns(&["repaired at the address", "with itself let through"]),
    },
    Case {
        name: "an_earlier_handler_that_is_to_be_reset_is_called_once",
        run: || {
            install(repair_with_info as *const () as usize, libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND);
            report();
            say_repair();
            say_repair();
        },
        end: Dies(libc::SIGSEGV, &["repaired at the address", "with itself blocked"]),
    },
    Case {
        name: "an_earlier_handler_is_not_asked_about_overflows",
        run: || {
            install(exit_at_once as *const () as usize, libc::SA_ONSTACK);
            report();
            run_on(named(64, "deep"), overflow);
        },
        end: Reports("deep", "64 KiB"),
    },
    Case {
        name: "a_later_handler_passes_an_overflow_on",
        run: || {
            report();
            install(pass_on as *const () as usize, libc::SA_SIGINFO | libc::SA_ONSTACK);
            run_on(named(64, "deep"), overflow);
        },
        end: Reports("deep", "64 KiB"),
    },
    Case {
        name: "a_later_handler_passes_another_fault_on_to_the_one_that_stood_before",
        run: || {
            install(repair_with_info as *const () as usize, libc::SA_SIGINFO | libc::SA_ONSTACK);
            report();
            install(pass_on as *const () as usize, libc::SA_SIGINFO | libc::SA_ONSTACK);
            say_repair();
        },
        end: Returns(&["repaired at the address", "with itself blocked"]),
    },
    Case {
        name: "a_second_call_behind_a_later_handler_closes_no_circle",
        run: || {
            install(repair_with_info as *const () as usize, libc::SA_SIGINFO | libc::SA_ONSTACK);
            report();
            install(pass_on as *const () as usize, libc::SA_SIGINFO | libc::SA_ONSTACK);
            report();
            say_repair();
        },
        end: Returns(&["repaired at the address", "with itself blocked"]),
    },
    Case {
        name: "where_nobody_handles_the_signal_an_overflow_is_reported",
        run: || {
            install(libc::SIG_DFL, 0);
            report();
            run_on(named(64, "deep"), overflow);
        },
        end: Reports("deep", "64 KiB"),
    },
    Case {
        name: "an_overflow_that_the_other_signal_tells_of_is_reported",
        run: || {
            report();
            let stack = named(64, "deep");
            let guard = stack.limit().addr().get() - 8;
            install(pass_on_as_a_fault as *const () as usize, libc::SA_SIGINFO | libc::SA_ONSTACK);
            BROKEN.store(guard, Ordering::Relaxed);
            run_on(stack, || at_the_end(&|| send(libc::SIGBUS)));
        },
        end: Reports("deep", "64 KiB"),
    },
    Case {
        name: "a_signal_that_is_ignored_is_ignored_unless_it_is_a_fault",
        run: || {
            install(libc::SIG_IGN, 0);
            report();
            send(libc::SIGSEGV);
            println!("ignored");
            touch(8);
        },
        end: Dies(libc::SIGSEGV, &["ignored"]),
    },
    Case {
        name: "a_signal_that_is_sent_kills_where_nobody_handles_it",
        run: || {
            install(libc::SIG_DFL, 0);
            report();
            send(libc::SIGSEGV);
            println!("survived");
        },
        end: Dies(libc::SIGSEGV, &[]),
    },
    Case {
        name: "the_other_signal_of_a_fault_is_passed_on_as_well",
        run: || {
            install(libc::SIG_DFL, 0);
            report();
            send(libc::SIGBUS);
            println!("survived");
        },
        end: Dies(libc::SIGBUS, &[]),
    },
    // Alternate stacks.
    Case {
        name: "on_a_thread_that_rust_started_it_is_reported",
        run: || {
            report();
            let _ = thread::spawn(|| run_on(named(64, "deep"), overflow)).join();
        },
        end: Reports("deep", "64 KiB"),
    },
    Case {
        name: "on_a_thread_that_rust_did_not_start_it_is_reported",
        run: || {
            report();
            on_a_foreign_thread(|| run_on(named(64, "deep"), overflow));
        },
        end: Reports("deep", "64 KiB"),
    },
    Case {
        name: "on_a_thread_that_rust_did_not_start_it_is_reported_of_a_stack_from_elsewhere",
        run: || {
            report();
            static STACK: std::sync::Mutex<Option<Named<Mapped>>> = std::sync::Mutex::new(None);
            *STACK.lock().expect("nobody panics") = Some(named(64, "deep"));
            on_a_foreign_thread(|| {
                report();
                let stack = STACK.lock().expect("nobody panics").take();
                run_on(stack.expect("a stack"), overflow);
            });
        },
        end: Reports("deep", "64 KiB"),
    },
    Case {
        name: "an_alternate_stack_of_the_users_that_will_do_stays",
        run: || {
            report();
            on_a_foreign_thread(|| {
                let theirs = set_alternate_stack(64 << 10);
                drop(mapped(64));
                assert_eq!(alternate_stack().ss_sp, theirs);
                run_on(named(64, "deep"), overflow);
            });
        },
        end: Reports("deep", "64 KiB"),
    },
    Case {
        name: "an_alternate_stack_of_the_users_that_is_too_small_is_replaced",
        run: || {
            report();
            on_a_foreign_thread(|| {
                let theirs = set_alternate_stack(libc::MINSIGSTKSZ.max(3600));
                drop(mapped(64));
                assert_ne!(alternate_stack().ss_sp, theirs);
                run_on(named(64, "deep"), overflow);
            });
        },
        end: Reports("deep", "64 KiB"),
    },
    Case {
        name: "the_alternate_stack_goes_with_the_thread",
        run: || {
            report();
            // The first of all threads leaves something behind, malloc's arena for one.
            let mut mappings = Vec::new();
            for _ in 0..20 {
                on_a_foreign_thread(|| {
                    drop(mapped(64));
                    assert_eq!(alternate_stack().ss_flags & libc::SS_DISABLE, 0);
                });
                // The standard library takes down its own before.
                let thread = thread::spawn(|| {
                    set_alternate_stack(libc::MINSIGSTKSZ.max(3600));
                    drop(mapped(64));
                });
                thread.join().expect("it does not panic");
                let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc");
                mappings.push(maps.lines().count());
            }
            let (first, last) = (mappings[2], mappings[19]);
            println!("{}", if last < first + 10 { "gone" } else { "still there" });
        },
        end: Returns(&["gone"]),
    },
];

fn main() -> ExitCode {
    if cfg!(switchback_threads) {
        println!("no case is run: the frames of a coroutine are not on its stack");
        return ExitCode::SUCCESS;
    }
    cases::main(CASES)
}

impl cases::Case for Case {
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(&self) {
        (self.run)();
    }

    fn is_met_by(&self, output: &Output) -> bool {
        let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        let limit = stdout.lines().rev().find_map(|line| line.strip_prefix(LIMIT));
        let printed = stdout.lines().filter(|line| !line.starts_with(LIMIT));
        let said: Vec<_> = stderr.lines().filter(|line| line.contains("overflowed")).collect();
        match self.end {
            Reports(name, size) => {
                let line = format!("coroutine '{name}' overflowed its stack ({size} at ");
                let line = line + &limit.map_or("0x".to_owned(), |limit| format!("{limit})"));
                [Some(libc::SIGSEGV), Some(libc::SIGBUS)].contains(&output.status.signal())
                    && printed.count() == 0
                    && matches!(said[..], [said] if said.starts_with(&line))
            }
            Dies(signal, lines) => {
                output.status.signal() == Some(signal) && printed.eq(lines.iter().copied()) && said.is_empty()
            }
            Aborts(thread) => {
                output.status.signal() == Some(libc::SIGABRT)
                    && printed.count() == 0
                    && matches!(said[..], [line] if line.starts_with(thread))
            }
            Returns(lines) => output.status.success() && printed.eq(lines.iter().copied()),
        }
    }
}

// Coroutines that overflow.

/// What a case prints before the address of its stack.
const LIMIT: &str = "limit ";

fn say_limit(limit: usize) {
    println!("{LIMIT}{limit:#x}");
}

fn report() {
    report_overflows().expect("memory for an alternate stack");
}

fn mapped(kib: usize) -> Mapped {
    Mapped::new(kib << 10).expect("a stack")
}

fn named(kib: usize, name: &str) -> Named<Mapped> {
    Named::new(mapped(kib), name)
}

/// The same stack, and says where it is.
fn told<S: Stack>(stack: S) -> S {
    say_limit(stack.limit().addr().get());
    stack
}

fn run_on(stack: impl Stack + 'static, f: impl FnOnce() + 'static) {
    let mut coroutine = Coroutine::with_stack(told(stack), |_: &Yielder<(), ()>, ()| f()).expect("it fits");
    assert_eq!(coroutine.resume(()), Resumed::Returned(()));
}

fn suspended_on<S: Stack + 'static>(stack: S) -> Coroutine<(), (), (), S> {
    let mut coroutine =
        Coroutine::with_stack(told(stack), |yielder: &Yielder<(), ()>, ()| yielder.suspend(())).expect("it fits");
    assert_eq!(coroutine.resume(()), Resumed::Yielded(()));
    coroutine
}

/// Part of a mapped stack.
struct Part(Mapped);

// SAFETY: within the mapped stack, which lies still. What is cut off above is left unused.
unsafe impl Stack for Part {
    fn top(&self) -> NonNull<u8> {
        // SAFETY: a few bytes below its top.
        unsafe { self.0.top().sub(333) }
    }
    fn limit(&self) -> NonNull<u8> {
        self.0.limit()
    }
}

/// Calls itself until the stack is full.
fn overflow() {
    #[inline(never)]
    fn recurse(depth: usize) -> usize {
        let frame = black_box([depth; 16]);
        if depth == usize::MAX { 0 } else { recurse(depth + 1) + frame[depth % 16] }
    }
    black_box(recurse(0));
}

/// One frame that begins in the stack, is larger than what is left there, and ends in the guard of 64 KiB that there is
/// where frames are not probed. Its bottom is written first, if the compiler lets it.
#[inline(never)]
fn one_huge_frame() {
    let mut frame = MaybeUninit::<[u8; (128 + 32) << 10]>::uninit();
    let bottom = black_box(frame.as_mut_ptr().cast::<u8>());
    // SAFETY: within the array.
    unsafe {
        bottom.write_volatile(1);
        black_box(bottom.read_volatile());
    }
}

/// Calls a function where little is left of the stack.
#[inline(never)]
fn at_the_end(f: &dyn Fn()) {
    let frame = black_box([0_u8; 128]);
    match stack::remaining().expect("it is mapped") < 3 << 10 {
        true => f(),
        false => at_the_end(f),
    }
    black_box(frame);
}

/// Writes where nobody may.
fn touch(address: usize) {
    // SAFETY: it faults, which is what the caller wants.
    unsafe { black_box(ptr::without_provenance_mut::<u8>(address)).write_volatile(1) };
}

/// Waits for a process and ends as it did.
fn die_as(child: libc::pid_t) {
    let mut status = 0;
    // SAFETY: the place is valid.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    if libc::WIFSIGNALED(status) {
        install(libc::SIG_DFL, 0);
        send(libc::WTERMSIG(status));
    }
}

// Handlers.

/// The handler that was installed before the one of [`install`].
static BEFORE: AtomicUsize = AtomicUsize::new(0);

/// Installs what does not look at `SIGBUS` for both signals.
fn install(handler: usize, flags: c_int) {
    for signal in [libc::SIGBUS, libc::SIGSEGV] {
        // SAFETY: the handlers here have the form that their flags say; zeroes are an empty mask.
        unsafe {
            let mut action = zeroed::<libc::sigaction>();
            action.sa_sigaction = handler;
            action.sa_flags = flags;
            let mut before = zeroed::<libc::sigaction>();
            assert_eq!(libc::sigaction(signal, &action, &mut before), 0);
            BEFORE.store(before.sa_sigaction, Ordering::Relaxed);
        }
    }
}

fn send(signal: c_int) {
    // SAFETY: no preconditions.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

/// A page that cannot be written to until [`repair`] was called.
static BROKEN: AtomicUsize = AtomicUsize::new(0);
/// The address that the last handler heard of, and whether its signal was blocked.
static HEARD: AtomicUsize = AtomicUsize::new(0);
static BLOCKED: AtomicBool = AtomicBool::new(false);

/// Faults, and says what the handler has heard.
fn say_repair() {
    let page = 64 << 10;
    // SAFETY: a new mapping disturbs no other.
    let broken =
        unsafe { libc::mmap(ptr::null_mut(), page, libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
    assert_ne!(broken, libc::MAP_FAILED);
    BROKEN.store(broken.addr(), Ordering::Relaxed);
    HEARD.store(0, Ordering::Relaxed);
    touch(broken.addr() + 40);
    match HEARD.load(Ordering::Relaxed) {
        0 => println!("repaired"),
        heard if heard == broken.addr() + 40 => println!("repaired at the address"),
        _ => println!("repaired at another address"),
    }
    println!("with itself {}", if BLOCKED.load(Ordering::Relaxed) { "blocked" } else { "let through" });
}

extern "C" fn repair(signal: c_int) {
    assert_eq!(signal, libc::SIGSEGV);
    // SAFETY: the page is there; the places are valid.
    unsafe {
        let broken = ptr::without_provenance_mut(BROKEN.load(Ordering::Relaxed));
        libc::mprotect(broken, 64 << 10, libc::PROT_READ | libc::PROT_WRITE);
        let mut blocked = zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &mut blocked);
        BLOCKED.store(libc::sigismember(&blocked, signal) == 1, Ordering::Relaxed);
    }
}

unsafe extern "C" fn repair_with_info(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: they come from the kernel.
    let (same, code, heard) = unsafe { ((*info).si_signo == signal, (*info).si_code, (*info).si_addr().addr()) };
    // 2: SEGV_ACCERR.
    if same && code == 2 && !context.is_null() {
        HEARD.store(heard, Ordering::Relaxed);
    }
    repair(signal);
}

extern "C" fn exit_at_once(_: c_int) {
    // SAFETY: no preconditions.
    unsafe { libc::_exit(3) };
}

unsafe extern "C" fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: it is what `sigaction` returned, with these flags.
    unsafe {
        let before = BEFORE.load(Ordering::Relaxed);
        let before = transmute::<usize, unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void)>(before);
        before(signal, info, context);
    }
}

/// As if the signal told of a fault at [`BROKEN`].
unsafe extern "C" fn pass_on_as_a_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the address has this place on Linux.
    unsafe {
        (*info).si_code = 2;
        let place = if size_of::<usize>() == 8 { 16 } else { 12 };
        info.cast::<usize>().byte_add(place).write(BROKEN.load(Ordering::Relaxed));
        pass_on(signal, info, context);
    }
}

// Threads.

/// Calls a function on a thread that the standard library knows nothing of.
fn on_a_foreign_thread(f: fn()) {
    extern "C" fn call(f: *mut c_void) -> *mut c_void {
        // SAFETY: it is the function below.
        unsafe { transmute::<*mut c_void, fn()>(f)() };
        ptr::null_mut()
    }
    // SAFETY: the places are valid.
    unsafe {
        let mut thread = zeroed();
        assert_eq!(libc::pthread_create(&mut thread, ptr::null(), call, f as *mut c_void), 0);
        assert_eq!(libc::pthread_join(thread, ptr::null_mut()), 0);
    }
}

fn alternate_stack() -> libc::stack_t {
    // SAFETY: the place is valid.
    unsafe {
        let mut stack = zeroed();
        assert_eq!(libc::sigaltstack(ptr::null(), &mut stack), 0);
        stack
    }
}

/// Gives the thread an alternate stack of this size.
fn set_alternate_stack(size: usize) -> *mut c_void {
    let memory = leak(vec![0_u8; size].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: size };
    // SAFETY: the memory is leaked.
    assert_eq!(unsafe { libc::sigaltstack(&stack, ptr::null_mut()) }, 0);
    stack.ss_sp
}
