//! Tells the instruction set of arm code, for which rustc has no stable `cfg`.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(thumb)");
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
