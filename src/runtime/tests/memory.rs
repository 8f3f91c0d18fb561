//! What is over leaves no memory behind.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use switchback_runtime as rt;
use switchback_runtime::task::{Unparker, park_until};

/// Counts the bytes that are allocated.
struct Counting;

static ALLOCATED: AtomicIsize = AtomicIsize::new(0);

// SAFETY: the system's, with a count beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size().cast_signed(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size().cast_signed(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Calls `f` again and again; what is allocated must not grow. The first times fill what is kept for reuse.
fn leaves_nothing_behind(what: &str, f: impl Fn()) {
    for _ in 0..3 {
        f();
    }
    let before = ALLOCATED.load(Ordering::Relaxed);
    for _ in 0..10 {
        f();
    }
    let grown = ALLOCATED.load(Ordering::Relaxed) - before;
    assert_eq!(grown, 0, "{what}: bytes");
}

/// One worker, since what it has handed to others is freed when they come to it.
fn one() -> rt::RuntimeBuilder {
    rt::Runtime::builder().workers(1)
}

/// One test, since what is allocated is counted for the process.
#[test]
fn what_is_over_leaves_no_memory_behind() {
    one()
        .run(|| {
            leaves_nothing_behind("tasks that are joined", || {
                let tasks: Vec<_> = (0..10).map(|n| rt::spawn(move || vec![n; 100])).collect();
                tasks.into_iter().for_each(|task| drop(task.join().unwrap()));
            });
            leaves_nothing_behind("tasks that nobody waits for", || {
                (0..10).for_each(|n| drop(rt::spawn(move || vec![n; 100])));
                rt::yield_now();
                rt::yield_now();
            });
            leaves_nothing_behind("a name, and an unparker that outlives its task", || {
                let task = rt::Builder::new().name("named".into()).spawn(Unparker::current).unwrap();
                task.join().unwrap().unpark();
            });
            leaves_nothing_behind("a deadline that was not waited for", || {
                let (tell, told) = mpsc::channel();
                let task = rt::spawn(move || {
                    tell.send(Unparker::current()).unwrap();
                    park_until(Instant::now() + Duration::from_secs(3600));
                });
                rt::yield_now();
                told.try_recv().unwrap().unpark();
                task.join().unwrap();
                assert_eq!(rt::metrics().unwrap().timers, 0);
            });
        })
        .unwrap();
    let thread = || thread::spawn(|| one().run(|| rt::spawn(|| 1).join().unwrap()).unwrap()).join().unwrap();
    leaves_nothing_behind("runtimes, with tasks that are left", || {
        one()
            .run(|| {
                let _waits = rt::spawn(rt::task::park);
                let _has_not_begun = (rt::yield_now(), rt::spawn(|| vec![0; 100]));
            })
            .unwrap();
        assert_eq!(thread(), 1);
    });
}
