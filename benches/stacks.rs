//! Stacks: from the pool, warm and cold, beside the bare system calls, a slab, a mapping of its own, and a peer's; and how
//! many of each there can be.

use std::hint::black_box;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use corosensei::stack::{DefaultStack, Stack as _};
use switchback::stack::{Mapped, Pool, Pooled, Slab, Stack, guard_size};
use switchback_benches::alive::{self, Kind, Reached};
use switchback_benches::{Contender, Job, Work, repeat, timing};

const SIZE: usize = 64 * 1024;

fn main() {
    alive::run(
        "alive at once, one page touched",
        &[
            Kind { name: "pool", have: many_pooled },
            Kind { name: "slab", have: many_of_a_slab },
            Kind { name: "mapping of its own", have: many_mapped },
            Kind { name: "corosensei", have: many_corosenseis },
        ],
    );
    timing::run(&[
        Job {
            name: "warm: taken and given back",
            contenders: &[
                Contender { name: "pool", prepare: warm },
                Contender { name: "pool, looked up", prepare: warm_looked_up },
                Contender { name: "slab", prepare: warm_of_a_slab },
                Contender { name: "mapping of its own", prepare: mapped },
                Contender { name: "corosensei", prepare: corosenseis },
            ],
        },
        Job {
            name: "cold: taken, one page touched",
            contenders: &[
                Contender { name: "pool", prepare: cold },
                Contender { name: "bare guard and touch", prepare: bare },
                Contender { name: "mapping of its own", prepare: cold_mapped },
                Contender { name: "corosensei", prepare: cold_corosenseis },
            ],
        },
        Job {
            name: "warm, two threads at once",
            contenders: &[
                Contender { name: "pool", prepare: || on_threads(2, warm_on_threads) },
                Contender { name: "one thread", prepare: || on_threads(1, warm_on_threads) },
            ],
        },
        Job {
            name: "cold, two threads at once",
            contenders: &[
                Contender { name: "pool", prepare: || on_threads(2, cold_part) },
                Contender { name: "one thread", prepare: || on_threads(1, cold_part) },
            ],
        },
    ]);
}

fn pool() -> Pool {
    Pool::of(SIZE).expect("it makes sense")
}

fn warm() -> Work {
    let pool = pool();
    Box::new(move |count| warm_part(pool, count))
}

fn warm_looked_up() -> Work {
    Box::new(|count| repeat(count, || drop(black_box(Pooled::new(black_box(SIZE)).expect("a stack")))))
}

fn warm_of_a_slab() -> Work {
    let slab = Slab::new(SIZE, 16).expect("room");
    Box::new(move |count| repeat(count, || drop(black_box(slab.take().expect("not all are in use")))))
}

fn mapped() -> Work {
    Box::new(|count| repeat(count, || drop(black_box(Mapped::new(black_box(SIZE)).expect("a stack")))))
}

fn corosenseis() -> Work {
    Box::new(|count| repeat(count, || drop(black_box(DefaultStack::new(black_box(SIZE)).expect("a stack")))))
}

fn warm_part(pool: Pool, count: u64) -> Duration {
    repeat(count, || drop(black_box(pool.take().expect("a stack"))))
}

/// Writes below the top, as the first frame does.
fn touch(top: *mut u8) {
    // SAFETY: the topmost word of a stack on which nothing runs.
    unsafe { top.cast::<usize>().sub(1).write_volatile(1) }
}

/// Makes so many and keeps them all, which is no part of the job.
fn keep_all<T>(count: u64, mut make: impl FnMut() -> T) -> (Duration, Vec<T>) {
    let mut kept = Vec::with_capacity(usize::try_from(count).expect("few"));
    let elapsed = repeat(count, || kept.push(make()));
    (elapsed, kept)
}

fn cold() -> Work {
    let pool = pool();
    Box::new(move |count| {
        let (elapsed, kept) = cold_part(pool, count);
        drop(kept);
        pool.trim();
        elapsed
    })
}

fn cold_part(pool: Pool, count: u64) -> (Duration, Vec<Pooled>) {
    keep_all(count, || touched(pool.take()).expect("a stack"))
}

/// What no user of guard regions can do without: one call for the guard, and the fault of the page. In one mapping that is
/// there already, as a pool's is.
fn bare() -> Work {
    const MADV_GUARD_INSTALL: libc::c_int = 102;
    const ROOM: usize = 1 << 30;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
    Box::new(move |count| {
        // SAFETY: a new private mapping disturbs no other.
        let base = unsafe { libc::mmap(ptr::null_mut(), ROOM, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        let base = NonNull::new(base.cast::<u8>()).filter(|_| base != libc::MAP_FAILED).expect("room");
        let stride = SIZE + guard_size();
        assert!(count as usize * stride <= ROOM, "more than there is room for");
        let mut next = 0;
        let elapsed = repeat(count, || {
            // SAFETY: within the mapping.
            unsafe {
                let guard = base.add(next * stride);
                assert_eq!(libc::madvise(guard.as_ptr().cast(), guard_size(), MADV_GUARD_INSTALL), 0, "Linux 6.13");
                touch(guard.as_ptr().add(stride));
            }
            next += 1;
        });
        // SAFETY: nobody uses it any more.
        unsafe { libc::munmap(base.as_ptr().cast(), ROOM) };
        elapsed
    })
}

fn cold_mapped() -> Work {
    Box::new(move |count| keep_all(count, || touched(Mapped::new(SIZE)).expect("a stack")).0)
}

fn cold_corosenseis() -> Work {
    Box::new(move |count| keep_all(count, || corosensei_touched().expect("a stack")).0)
}

fn touched<S: Stack, E>(stack: Result<S, E>) -> Result<S, E> {
    stack.inspect(|stack| touch(stack.top().as_ptr()))
}

fn corosensei_touched() -> io::Result<DefaultStack> {
    let stack = DefaultStack::new(SIZE)?;
    touch(ptr::with_exposed_provenance_mut(stack.base().get()));
    Ok(stack)
}

fn many_pooled(most: usize) -> Reached {
    let pool = pool();
    alive::have(most, || touched(pool.take()))
}

fn many_of_a_slab(most: usize) -> Reached {
    let mut slab = None;
    alive::have(most, || match &slab {
        Some(slab) => touched(Slab::take(slab)),
        None => touched(slab.insert(Slab::new(SIZE, most)?).take()),
    })
}

fn many_mapped(most: usize) -> Reached {
    alive::have(most, || touched(Mapped::new(SIZE)))
}

fn many_corosenseis(most: usize) -> Reached {
    alive::have(most, corosensei_touched)
}

fn warm_on_threads(pool: Pool, count: u64) -> (Duration, Vec<Pooled>) {
    (warm_part(pool, count), Vec::new())
}

/// Does it so many times in all, shared by threads that begin at once; how long the last one took.
fn on_threads(threads: u64, part: fn(Pool, u64) -> (Duration, Vec<Pooled>)) -> Work {
    let pool = pool();
    Box::new(move |count| {
        let together = Barrier::new(usize::try_from(threads).expect("few"));
        let one = || {
            // So that the thread has its shelf.
            drop(pool.take());
            together.wait();
            let (elapsed, kept) = part(pool, count / threads);
            // Nobody gives back while another still takes.
            together.wait();
            drop(kept);
            elapsed
        };
        let last = thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
            running.into_iter().map(|thread| thread.join().expect("it has stacks")).max().expect("a thread")
        });
        pool.trim();
        last
    })
}
