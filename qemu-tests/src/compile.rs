//! Builds the test binaries of a target with cargo, all targets and ways to build into one target folder.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::builds::{Build, Tests};
use crate::host::{self, Host, RustStd};
use crate::targets::{Emulated, Target};

/// The packages that have tests: all but the benches.
const PACKAGES: [&str; 3] = ["switchback", "switchback-runtime", "qemu-tests"];

/// A program with tests.
#[derive(Clone, Debug, PartialEq)]
pub struct TestBinary {
    /// Package, what it is, and its name if that is not clear from the two, as in `qemu-tests test abi`.
    pub name: String,
    pub executable: PathBuf,
    /// Where cargo runs the tests of a package: beside its `Cargo.toml`.
    pub package_dir: PathBuf,
}

/// Cargo, set up for `target` and `build` in this workspace.
pub fn cargo(host: &Host, target: &Target, build: &Build) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(workspace()).stdin(Stdio::null());
    let mut flags: Vec<String> = build.rustflags.iter().map(|flag| flag.to_string()).collect();
    if let Some(emulated) = target.emulated {
        set_up(&mut cargo, host, target, emulated);
        let link_args = host::compiler(emulated).map_or(&[][..], |compiler| compiler.link_args);
        flags.extend(link_args.iter().map(|argument| format!("-Clink-arg={argument}")));
    }
    add_rustflags(&mut cargo, target, &flags);
    cargo
}

/// The workspace that this harness was built in.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the harness's package lies in a folder of the workspace")
}

/// The command that runs a program of `target`, as words; none for the machine itself.
pub fn runner(target: &Target) -> Vec<String> {
    let Some(emulated) = target.emulated else { return Vec::new() };
    let Some(emulator) = host::emulator(emulated) else { return Vec::new() };
    vec![emulator.program, "-L".to_string(), host::root(emulated)]
}

/// Linker, C compiler and runner are given in variables and not in `.cargo/config.toml`, where they would bind every
/// other way to build for the target, `cross` among them.
fn set_up(cargo: &mut Command, host: &Host, target: &Target, emulated: &Emulated) {
    let variable = |what: &str| format!("CARGO_TARGET_{}_{what}", target.in_cargo_variables());
    if let Some(compiler) = host::compiler(emulated) {
        cargo.env(variable("LINKER"), compiler.cc);
        cargo.env(format!("CC_{}", target.in_cc_variables()), compiler.cc);
        cargo.env(format!("AR_{}", target.in_cc_variables()), compiler.ar);
    }
    cargo.env(variable("RUNNER"), runner(target).join(" "));
    if host.rust_std(emulated) == Some(RustStd::FromSource) {
        // Lets a stable toolchain take -Zbuild-std: the compiler is then the same one for every target.
        cargo.env("RUSTC_BOOTSTRAP", "1");
    }
}

/// Gives rustc flags beside those that are in force.
fn add_rustflags(cargo: &mut Command, target: &Target, flags: &[String]) {
    if flags.is_empty() {
        return;
    }
    // Cargo looks at one of these alone.
    let (name, separator) = if env::var_os("CARGO_ENCODED_RUSTFLAGS").is_some() {
        ("CARGO_ENCODED_RUSTFLAGS".to_string(), "\u{1f}")
    } else if env::var_os("RUSTFLAGS").is_some() {
        ("RUSTFLAGS".to_string(), " ")
    } else {
        (format!("CARGO_TARGET_{}_RUSTFLAGS", target.in_cargo_variables()), " ")
    };
    let mut joined = env::var_os(&name).unwrap_or_default();
    if !joined.is_empty() {
        joined.push(separator);
    }
    joined.push(flags.join(separator));
    cargo.env(name, joined);
}

/// The arguments that all of cargo's commands take here, for `target` and `build`.
pub fn common_arguments(host: &Host, target: &Target, build: &Build) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--profile".into(), build.profile.into()];
    let packages = match build.tests {
        Tests::All => &PACKAGES[..],
        Tests::OfThePrimitives => &["switchback", "qemu-tests"],
        Tests::One(_) => &["switchback"],
    };
    for &package in packages {
        arguments.extend(["--package".into(), package.into()]);
    }
    if let Some(emulated) = target.emulated {
        arguments.extend(["--target".into(), emulated.triple.into()]);
        if host.rust_std(emulated) == Some(RustStd::FromSource) {
            // The second is what `-Cpanic=abort` asks for; whoever unwinds does not link it.
            arguments.push("-Zbuild-std=std,panic_abort".into());
        }
    }
    arguments
}

/// What cargo is to build, each by a command of its own.
fn selections(build: &Build) -> Vec<Vec<&'static str>> {
    match build.tests {
        // The first builds what `cargo test` would, the example programs among it, which tests may start; the second
        // builds the tests inside the examples, which `cargo test` leaves out.
        Tests::All => vec![vec![], vec!["--examples"]],
        // Without this harness, which cargo would build in every way too because it lies beside the fixtures.
        Tests::OfThePrimitives => {
            vec![vec!["--lib", "--test", "*", "--no-default-features", "--features", "switchback/std"]]
        }
        Tests::One(test) => vec![vec!["--test", test]],
    }
}

/// Builds all test binaries of `target`. Cargo writes its errors where they are seen.
pub fn test_binaries(host: &Host, target: &Target, build: &Build) -> Result<Vec<TestBinary>, String> {
    let mut binaries: Vec<TestBinary> = Vec::new();
    for selection in selections(build) {
        let output = cargo(host, target, build)
            .args(["test", "--no-run", "--message-format=json-render-diagnostics"])
            .args(common_arguments(host, target, build))
            .args(selection)
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| format!("cannot run cargo: {error}"))?;
        if !output.status.success() {
            return Err("did not build".to_string());
        }
        for binary in String::from_utf8_lossy(&output.stdout).lines().filter_map(test_binary) {
            if !binaries.iter().any(|known| known.executable == binary.executable) {
                binaries.push(binary);
            }
        }
    }
    Ok(binaries)
}

/// The folder that cargo builds into.
pub fn target_folder() -> Result<PathBuf, String> {
    let output = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()))
        .current_dir(workspace())
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let folder = metadata["target_directory"].as_str().ok_or("cargo metadata names no target folder")?;
    Ok(folder.into())
}

/// The test binary that a line of cargo's messages tells of, if it tells of one.
fn test_binary(line: &str) -> Option<TestBinary> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let package_dir = Path::new(message["manifest_path"].as_str()?).parent()?;
    let target = &message["target"];
    let package = package_name(message["package_id"].as_str()?)?;
    let kind = match target["kind"][0].as_str()? {
        "lib" | "rlib" => "unit tests".to_string(),
        kind => format!("{kind} {}", target["name"].as_str()?),
    };
    Some(TestBinary {
        name: format!("{package}, {kind}"),
        executable: message["executable"].as_str()?.into(),
        package_dir: package_dir.into(),
    })
}

/// Reads `path+file:///home/me/switchback#0.1.0`, whose folder names the package, or `...#name@0.1.0`.
fn package_name(id: &str) -> Option<&str> {
    let (source, package) = id.rsplit_once('#')?;
    match package.split_once('@') {
        Some((name, _)) => Some(name),
        None => source.rsplit('/').next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARTIFACT: &str = r#"{"reason":"compiler-artifact",
        "package_id":"path+file:///home/me/sb/src/runtime#switchback-runtime@0.1.0",
        "manifest_path":"/home/me/sb/src/runtime/Cargo.toml",
        "target":{"kind":["test"],"crate_types":["bin"],"name":"net","test":true},
        "profile":{"opt_level":"0","test":true},
        "executable":"/home/me/sb/target/debug/deps/net-ca638b423e031b28","fresh":false}"#;

    #[test]
    fn a_test_binary_is_found_with_its_package() {
        let binary = test_binary(ARTIFACT).unwrap();
        assert_eq!(binary.name, "switchback-runtime, test net");
        assert_eq!(binary.package_dir, Path::new("/home/me/sb/src/runtime"));
        assert_eq!(binary.executable, Path::new("/home/me/sb/target/debug/deps/net-ca638b423e031b28"));
    }

    #[test]
    fn other_messages_are_no_test_binaries() {
        assert_eq!(test_binary(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(test_binary(&ARTIFACT.replace("\"test\":true}", "\"test\":false}")), None);
        assert_eq!(
            test_binary(&ARTIFACT.replace("\"/home/me/sb/target/debug/deps/net-ca638b423e031b28\"", "null")),
            None
        );
        assert_eq!(test_binary("Compiling switchback"), None);
    }

    #[test]
    fn packages_are_named_in_both_spellings_of_their_id() {
        assert_eq!(package_name("path+file:///home/me/switchback#0.1.0"), Some("switchback"));
        assert_eq!(package_name("path+file:///home/me/sb#switchback@0.1.0"), Some("switchback"));
    }
}
