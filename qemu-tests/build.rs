//! Compiles the ABI fixtures of the target's architecture into the library of this package.
//!
//! The harness does not use that library and so needs no compiler but the host's own.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=fixtures");
    // As switchback's own build script, whose first floor is compiled into a test here.
    if env::var("TARGET").is_ok_and(|target| target.starts_with("thumb")) {
        println!("cargo::rustc-cfg=thumb");
    }

    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it for build scripts");
    let assembly = format!("fixtures/{arch}.S");
    if !Path::new(&assembly).exists() {
        // The harness must still build on such a host, so this is no error yet.
        println!(
            "cargo::warning={assembly} is missing: the tests of this package will not link on {arch}, because no ABI fixture is \
             written for it"
        );
        return;
    }

    let built = cc::Build::new()
        .file(&assembly)
        .file("fixtures/fixture.c")
        .file("fixtures/fp_environment.c")
        .std("c11")
        // Panics and forced unwinds go through the frames of the fixtures.
        .flag("-fexceptions")
        // The values that are live across a call stay in registers only in optimised code.
        .opt_level(2)
        .warnings(true)
        .extra_warnings(true)
        .warnings_into_errors(true)
        .try_compile("switchback_fixtures");

    if let Err(error) = built {
        let target = env::var("TARGET").expect("cargo sets it for build scripts");
        println!(
            "cargo::error=could not compile the ABI fixtures for {target}: {error}. Install a C compiler for this target, or name one in \
             CC_{}; `cargo qemu --install` does that on Debian and Ubuntu",
            target.replace('-', "_")
        );
    }
}
