//! Nothing that is needed lies below the stack pointer, at no instruction of a switch: a signal handler that ran there
//! would overwrite it.
//!
//! Signals by themselves seldom hit the one instruction that matters, and QEMU delivers them between blocks of
//! instructions only. So a process of its own runs the switches and is stepped through them, instruction by
//! instruction: by ptrace on the machine itself, by QEMU's debug server under emulation. After each step everything
//! below the stack pointer and its red zone is overwritten, as far as a signal frame would reach. The process then says
//! whether all registers were kept.

mod emulated;
mod native;

use std::ptr;

use qemu_tests::registers_kept;
use switchback::context::{Context, Left, Running};
use switchback::stack::{DEFAULT_RESERVE, Mapped};
use switchback::{Coroutine, Resumed, Yielder, on_stack, target};

/// A process, of which the thread that marks is stepped.
trait Stepper {
    /// Lets it run to the first mark.
    fn run_to_mark(&mut self);
    /// Lets it run for one instruction; true if that led to a mark.
    fn step(&mut self) -> bool;
    fn stack_pointer(&mut self) -> u64;
    fn write(&mut self, address: u64, bytes: &[u8]);
    /// Lets it run to its end; true if that was a success.
    fn finish(&mut self) -> bool;
}

/// Where stepping begins, and where it ends: a signal, which is withheld by whoever steps this process.
const MARK: libc::c_int = libc::SIGUSR1;

/// Raises [`MARK`].
fn mark() {
    extern "C" fn withheld(_: libc::c_int) {
        unreachable!();
    }
    // SAFETY: a handler that does not return; it is there because QEMU leaves signals that nobody handles to the host.
    unsafe {
        libc::signal(MARK, withheld as extern "C" fn(_) as libc::sighandler_t);
        libc::raise(MARK);
    }
}

/// What is stepped: `body` alone, not what makes and drops stacks around it.
fn between_marks(body: impl FnOnce()) {
    mark();
    body();
    mark();
}

/// Runs `body` in a process of its own, with everything below its stack pointer overwritten after each instruction that it
/// runs [between marks](between_marks).
fn step_through(test: &str, body: impl FnOnce()) {
    const STEPPED: &str = "SWITCHBACK_STEPPED";
    let runner = std::env::var("SWITCHBACK_RUNNER").unwrap_or_default();
    if std::env::var_os(STEPPED).is_some() {
        if runner.is_empty() {
            native::have_this_thread_traced();
        }
        body();
        return;
    }
    let program = std::env::current_exe().expect("the path of the running program");
    let arguments = ["--exact", test, "--nocapture"];
    let mut stepper: Box<dyn Stepper> = if runner.is_empty() {
        Box::new(native::Process::start(&program, &arguments, STEPPED))
    } else {
        Box::new(emulated::Process::start(&runner, &program, &arguments, STEPPED))
    };

    stepper.run_to_mark();
    let mut steps = 0;
    while !stepper.step() {
        steps += 1;
        // A tenth of that at most is needed; a loss may end in a loop, or in a panic, which takes millions.
        assert!(steps < 100_000, "it went astray");
        // About as far as the smallest signal frame reaches.
        let end = stepper.stack_pointer() - target::RED_ZONE as u64;
        stepper.write(end - 256, &[0xa5; 256]);
    }
    // A switch there and back is tens of instructions, the fixtures around it hundreds.
    assert!(steps > 300, "{steps} steps are too few");
    assert!(stepper.finish(), "something was lost in {steps} steps");
}

#[test]
fn resume_suspend_and_return_need_nothing_below_the_stack_pointer() {
    step_through("resume_suspend_and_return_need_nothing_below_the_stack_pointer", || {
        let mut coroutine = Coroutine::new(|yielder: &Yielder<u64, u64>, mut word| {
            let kept = registers_kept(1, || word = yielder.suspend(word + 1));
            assert_eq!(kept, Ok(()), "lost by the coroutine");
            word
        })
        .expect("a coroutine");
        between_marks(|| {
            for (seed, end) in [(11, false), (12, true)] {
                let kept = registers_kept(seed, || match coroutine.resume(seed) {
                    Resumed::Yielded(word) => assert!(!end && word == seed + 1),
                    Resumed::Returned(word) => assert!(end && word == seed),
                });
                assert_eq!(kept, Ok(()), "lost by the resumer");
            }
        });
    });
}

#[test]
fn a_call_on_another_stack_needs_nothing_below_the_stack_pointer() {
    step_through("a_call_on_another_stack_needs_nothing_below_the_stack_pointer", || {
        let mut stack = Mapped::new(DEFAULT_RESERVE).expect("a stack");
        between_marks(|| {
            let kept = registers_kept(1, || {
                assert_eq!(on_stack(&mut stack, || registers_kept(2, || ())), Ok(()));
            });
            assert_eq!(kept, Ok(()));
        });
    });
}

#[test]
fn a_transfer_needs_nothing_below_the_stack_pointer() {
    struct Pair {
        waiting: Option<Context>,
    }

    unsafe extern "C" fn alternate(pair: *mut (), running: Running) -> *mut () {
        // SAFETY: the word is the pair below, and only one of the two contexts runs at a time.
        unsafe {
            let next = (*pair.cast::<Pair>()).waiting.replace(running.context()).expect("the other one waits");
            let kept = registers_kept((&raw const next).addr() as u64, || {
                assert_eq!(running.switch_to(next, pair), pair);
            });
            assert_eq!(kept, Ok(()), "lost by a context");
            let kept = registers_kept(9, || assert_eq!(running.leave(ptr::null_mut()), pair));
            assert_eq!(kept, Ok(()), "lost by a context that left");
        }
        ptr::without_provenance_mut(7)
    }

    step_through("a_transfer_needs_nothing_below_the_stack_pointer", || {
        let stacks = [(); 2].map(|()| Mapped::new(DEFAULT_RESERVE).expect("a stack"));
        // SAFETY: stacks and pair outlive the contexts, which are not continued after.
        let [first, second] =
            stacks.each_ref().map(|stack| unsafe { Context::new(stack, alternate) }.expect("it fits"));
        let mut pair = Pair { waiting: Some(second) };
        let word = (&raw mut pair).cast();
        between_marks(|| {
            let mut left = None;
            // SAFETY: as above.
            assert_eq!(registers_kept(21, || left = Some(unsafe { first.enter(word) })), Ok(()));
            let Some(Left::Suspended(context, _)) = left.take() else { panic!("it leaves") };
            // SAFETY: as above.
            assert_eq!(registers_kept(22, || left = Some(unsafe { context.enter(word) })), Ok(()));
            assert!(matches!(left, Some(Left::Ended(word)) if word.addr() == 7));
        });
    });
}
