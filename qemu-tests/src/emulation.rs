//! What emulation changes for a test, all in one place.
//!
//! A test runs under QEMU like anywhere else, with three differences that it can meet:
//!
//! - A kernel feature that QEMU lacks is found missing, as on an old kernel. The code under test has a way around it
//!   and the tests go that way: nothing to do.
//! - A test that starts itself again as a child puts the words of [`RUNNER`], split at spaces, before the program.
//!   [`EMULATED`] says that it is emulated at all.
//! - A test whose subject is the real kernel or the real clock means nothing there. It stands in [`LEFT_OUT`] with its
//!   reason, is not run, and is named under the table.

/// Set for an emulated test to the command that runs a program of its target, as in
/// `qemu-arm-static -L /usr/arm-linux-gnueabihf`; unset for a native one.
pub const RUNNER: &str = "SWITCHBACK_RUNNER";

/// Set to `1` for an emulated test; unset for a native one.
pub const EMULATED: &str = "SWITCHBACK_EMULATED";

/// A test that is run natively only.
pub struct LeftOut {
    /// Its full name, as `cargo test` prints it.
    pub test: &'static str,
    pub why: &'static str,
}

/// The tests that mean nothing under emulation.
pub const LEFT_OUT: &[LeftOut] = &[
    LeftOut {
        test: "the_address_space_limit_is_named_when_it_is_met",
        why: "QEMU does not pass a limit of address space on to the kernel",
    },
    LeftOut {
        test: "the_address_space_limit_is_named_when_a_pool_meets_it",
        why: "QEMU does not pass a limit of address space on to the kernel",
    },
    LeftOut {
        test: "the_data_limit_is_named_when_it_is_met",
        why: "QEMU does not pass a limit of memory that can be written on to the kernel",
    },
    LeftOut {
        test: "the_limit_of_locked_memory_is_named_when_it_is_met",
        why: "what is locked is the memory of QEMU too, which ends at the limit",
    },
    LeftOut {
        test: "locked_memory_takes_no_guard_region_and_the_error_says_what_to_do",
        why: "what is locked is the memory of QEMU too, which ends at the limit",
    },
    LeftOut {
        test: "the_mapping_limit_is_named_before_it_is_met",
        why: "the limit is the kernel's, and 32,000 mappings take QEMU minutes on a 32-bit target",
    },
    LeftOut {
        test: "the_timeout_of_a_standard_socket_comes_along",
        why: "QEMU 10.0.13, Debian 13's, answers getsockopt(SO_RCVTIMEO) with nothing",
    },
];
