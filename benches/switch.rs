//! The primitive crate beside its peers: the switch, and the life of a coroutine.

use switchback_benches::{jobs, timing};

fn main() {
    timing::run(jobs::SWITCHES.iter().chain(jobs::PLACES));
}
