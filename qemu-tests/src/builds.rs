//! The ways in which the tests are built: data only.

/// A way to build tests.
#[derive(Debug, PartialEq)]
pub struct Build {
    /// What `--build` and the table call it.
    pub name: &'static str,
    /// Cargo's profile; those that cargo does not have by itself stand in the workspace's `Cargo.toml`.
    pub profile: &'static str,
    /// Flags for rustc that no profile can hold.
    pub rustflags: &'static [&'static str],
    pub tests: Tests,
}

/// Which tests are built.
#[derive(Debug, PartialEq)]
pub enum Tests {
    /// Those of every package, of the examples, and natively the doctests.
    All,
    /// Those of the primitives and the ABI fixtures: what may depend on how the compiler treats a switch.
    OfThePrimitives,
    /// One test program of the primitives.
    One(&'static str),
}

const FRAME_POINTERS: &[&str] = &["-Cforce-frame-pointers=yes", "--cfg=switchback_frame_pointers"];

/// What is built if nothing is said.
pub static DEBUG: Build = Build { name: "debug", profile: "dev", rustflags: &[], tests: Tests::All };

/// What `--release` builds.
pub static RELEASE: Build = Build { name: "release", profile: "release", rustflags: &[], tests: Tests::All };

/// What `--builds` builds: all ways in which a user may build what has a switch in it.
pub static VARIANTS: [Build; 6] = [
    // The switch is inlined into its callers, the values alive across it are in registers.
    Build { name: "optimised", profile: "release", rustflags: &[], tests: Tests::OfThePrimitives },
    // Inlined across crates too; functions without a prologue of the compiler's must not be.
    Build { name: "lto", profile: "fat-lto", rustflags: &[], tests: Tests::OfThePrimitives },
    // Outlined code, other choices of what is inlined.
    Build { name: "size", profile: "size", rustflags: &[], tests: Tests::OfThePrimitives },
    // The frame pointer is a register less, and leads through a switch: the cfg adds the test that follows it.
    Build { name: "frame-pointers", profile: "dev", rustflags: FRAME_POINTERS, tests: Tests::OfThePrimitives },
    Build {
        name: "optimised-frame-pointers",
        profile: "release",
        rustflags: FRAME_POINTERS,
        tests: Tests::OfThePrimitives,
    },
    // libtest always unwinds. Cargo lets no profile of tests abort, so it takes the flag.
    Build { name: "abort", profile: "dev", rustflags: &["-Cpanic=abort"], tests: Tests::One("abort") },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_means_one_build() {
        for build in &VARIANTS {
            assert_eq!(VARIANTS.iter().filter(|other| other.name == build.name).count(), 1, "{}", build.name);
        }
    }
}
