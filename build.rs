//! Tells the crate what only the compiler's command line says, as cfgs of its own.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    sanitizer();
    thumb();
    apx();
}

/// `switchback_sanitizer = "address" | "thread"`: the program is built with this sanitizer, which must hear of switches.
/// `switchback_sanitizer`: with one of them.
///
/// `cfg(sanitize)`, which says it to the source, is unstable.
fn sanitizer() {
    let sanitizers = env::var("CARGO_CFG_SANITIZE").unwrap_or_default();
    for sanitizer in sanitizers.split(',').filter(|name| matches!(*name, "address" | "thread")) {
        println!("cargo::rustc-cfg=switchback_sanitizer");
        println!("cargo::rustc-cfg=switchback_sanitizer={sanitizer:?}");
    }
}

/// Refuses x86_64 processors with APX, whose registers r16-r31 the assembly cannot declare lost: rustc has no names for them
/// yet, and LLVM keeps values there across a switch.
///
/// Nor has it a stable cfg for APX. All processors that it knows with these two features have APX; a flag may ask for it.
fn apx() {
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    let has = |feature| features.split(',').any(|one| one == feature);
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    if (has("avx512fp16") && has("sm4")) || flags.contains("+apxf") || flags.contains("+egpr") {
        println!(
            "cargo::error=switchback cannot save the registers r16-r31 of processors with APX, which rustc has no names for: \
             compile for an older one, as with -Ctarget-cpu=graniterapids"
        );
    }
}

/// `thumb`: the code for arm is in Thumb state.
fn thumb() {
    let target = env::var("TARGET").expect("cargo sets it for build scripts");
    if target.starts_with("thumbv6m") || target.starts_with("thumbv8m.base") {
        println!(
            "cargo::error=switchback cannot switch in the small Thumb instruction set of {target}: use a target with Thumb-2"
        );
    }
    // Android's armv7 is Thumb too, though its name does not say so.
    if target.starts_with("thumb") || target == "armv7-linux-androideabi" {
        println!("cargo::rustc-cfg=thumb");
    }
}
