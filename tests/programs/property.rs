//! Tries a property on random inputs, each reproducible from a seed.
//!
//! A switch that goes wrong rarely fails an assertion: it crashes or hangs. So the inputs are tried in a process of their
//! own, and one that fails in whatever way is made simpler by trying simpler ones in further processes.

use std::env;
use std::fmt::Debug;
use std::io::{self, Write};
use std::process::{self, Output};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quickcheck::{Arbitrary, Gen};

use crate::common::{emulated, in_another_process};

/// Set by the user: the seed to begin with, as a failure prints it.
const SEED: &str = "SWITCHBACK_SEED";
/// Set by the user, or for a process that simplifies: the one input to try.
const INPUT: &str = "SWITCHBACK_INPUT";
/// Tells a process to try as many inputs as there are to be, from this seed on.
const SEEDS_FROM: &str = "SWITCHBACK_SEEDS_FROM";
/// What all inputs and what one input may take.
const DEADLINES: [Duration; 2] = [Duration::from_secs(200), Duration::from_secs(20)];

/// What is tried.
pub struct Property<T> {
    /// The test's name.
    pub name: &'static str,
    /// The size of the inputs, as the generator understands it.
    pub size: usize,
    /// How many inputs are tried; a fortieth of it under emulation.
    pub inputs: u64,
    pub check: fn(&T) -> Result<(), String>,
    pub encode: fn(&T) -> String,
    pub decode: fn(&str) -> T,
}

impl<T: Arbitrary + Debug> Property<T> {
    /// # Panics
    ///
    /// If the property does not hold, with the simplest input that was found.
    pub fn holds(&self) {
        if let Ok(input) = env::var(INPUT) {
            end_a_hang(DEADLINES[1]);
            return self.check_or_panic(&(self.decode)(&input));
        }
        if let Ok(seed) = env::var(SEEDS_FROM) {
            end_a_hang(DEADLINES[0]);
            let seed: u64 = seed.parse().expect("a number from the process that started this one");
            for seed in (0..self.inputs()).map(|n| seed.wrapping_add(n)) {
                // The last one that was written is the one that fails, even if nothing can be said after that.
                writeln!(io::stdout(), "seed {seed}").expect("a place to write to");
                self.check_or_panic(&self.input(seed));
            }
            return;
        }
        if cfg!(miri) {
            return (0..3).for_each(|n| self.check_or_panic(&self.input(n)));
        }
        let seed = env::var(SEED).unwrap_or_else(|_| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock past 1970");
            now.as_micros().to_string()
        });
        let child = in_another_process(self.name, &[(SEEDS_FROM, &seed)]);
        if child.status.success() {
            return;
        }
        let said = String::from_utf8_lossy(&child.stdout);
        let Some(seed) = said.lines().filter_map(|line| line.split_once("seed ")?.1.parse().ok()).next_back() else {
            panic!("the process with the inputs did not begin: {child:?}")
        };
        let (simplest, child) = self.simplify(self.input(seed), child);
        panic!(
            "does not hold for\n{simplest:?}\n{}: {}\n\nagain: {SEED}={seed}; the simplest alone: {INPUT}={}",
            child.status,
            String::from_utf8_lossy(&child.stderr).trim_end(),
            (self.encode)(&simplest)
        );
    }

    /// How many are tried.
    fn inputs(&self) -> u64 {
        if emulated() { self.inputs / 40 } else { self.inputs }
    }

    fn input(&self, seed: u64) -> T {
        T::arbitrary(&mut Gen::from_size_and_seed(self.size, seed))
    }

    fn check_or_panic(&self, input: &T) {
        (self.check)(input).unwrap_or_else(|why| panic!("{why}"));
    }

    /// The first simpler input that fails too, again and again. What fails may do so in another way.
    fn simplify(&self, failing: T, child: Output) -> (T, Output) {
        let mut simplest = (failing, child);
        let mut attempts = if emulated() { 300 } else { 5_000 };
        loop {
            let simpler = simplest.0.shrink().take(attempts).find_map(|input| {
                attempts -= 1;
                let child = in_another_process(self.name, &[(INPUT, &(self.encode)(&input))]);
                (!child.status.success()).then_some((input, child))
            });
            match simpler {
                Some(simpler) => simplest = simpler,
                None => return simplest,
            }
        }
    }
}

/// Lets this process take so long and no longer.
fn end_a_hang(deadline: Duration) {
    thread::spawn(move || {
        thread::sleep(deadline);
        eprintln!("it hangs");
        process::abort();
    });
}
