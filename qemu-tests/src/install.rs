//! `--install`: brings what is missing, and says each step before it is done.
//!
//! Packages come from apt, Rust targets from rustup. Only what [`Host::lacks`] reports is asked for, so a second run
//! does nothing.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::host::{Distribution, Host, Part, RustStd, on_path};
use crate::targets::{Emulated, Target};

/// Brings what `targets` lack on `host`.
pub fn bring(host: &mut Host, targets: &[Target]) -> Result<(), String> {
    let emulated: Vec<_> = targets.iter().filter_map(|target| target.emulated).collect();
    let mut packages = BTreeSet::new();
    let mut more_suites = false;
    for target in targets {
        for lack in host.lacks(target) {
            let emulated = target.emulated.expect("only an emulated target lacks anything");
            packages.extend(packages_for(&host.distribution, emulated, lack.part));
            more_suites |= host.distribution == Distribution::Bookworm && emulated.debian == "loong64";
        }
    }
    if !packages.is_empty() {
        if let Distribution::Unknown(name) = &host.distribution {
            let packages: Vec<_> = packages.into_iter().collect();
            return Err(format!(
                "--install knows Debian 12 and 13 and Ubuntu 24.04, not {name}: install what Debian calls {} yourself",
                packages.join(", ")
            ));
        }
        apt(more_suites, packages)?;
    }
    for target in emulated {
        if host.rust_std(target).is_none() {
            rust_std(target)?;
        }
    }
    *host = Host::inspect()?;
    let still: Vec<_> = targets.iter().flat_map(|target| host.lacks(target)).map(|lack| lack.message).collect();
    if !still.is_empty() {
        return Err(format!("installed, and yet missing: {}", still.join("; ")));
    }
    for target in targets.iter().filter_map(|target| target.emulated) {
        if host.rust_std(target) == Some(RustStd::FromSource) {
            println!("install: {} has no prebuilt standard library here, cargo builds it from source", target.triple);
        }
    }
    println!("install: nothing is missing");
    Ok(())
}

/// The packages that bring `part` of `target`.
fn packages_for(distribution: &Distribution, target: &Emulated, part: Part) -> Vec<String> {
    let c_library = format!("libc6-dev-{}-cross", target.debian);
    match part {
        Part::Compiler if target.debian == "loong64" => match distribution {
            Distribution::Bookworm => {
                // clang brings neither the compiler's own runtime library nor an archiver of its version.
                ["clang-19", "lld-19", "llvm-19", "libgcc-14-dev-loong64-cross"].map(String::from).to_vec()
            }
            _ => vec!["gcc-14-loongarch64-linux-gnu".to_string(), c_library],
        },
        Part::Compiler => vec![format!("gcc-{}", target.gnu), c_library],
        Part::CLibrary => vec![c_library],
        Part::Emulator => vec!["qemu-user-static".to_string()],
        Part::RustStd => Vec::new(),
    }
}

/// Installs `packages`.
fn apt(more_suites: bool, packages: BTreeSet<String>) -> Result<(), String> {
    if !on_path("apt-get") {
        return Err("apt-get is not on PATH, and --install has no other way to bring packages".to_string());
    }
    update()?;
    if more_suites {
        add_suites()?;
        update()?;
    }
    let mut install = apt_get();
    install.args(["install", "--yes", "--no-install-recommends"]).args(packages);
    step(install)
}

fn update() -> Result<(), String> {
    let mut update = apt_get();
    update.args(["update", "--quiet=2"]);
    step(update)
}

/// apt-get that asks nothing, and waits for another one to finish.
fn apt_get() -> Command {
    let mut command = as_root("env");
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=300"]);
    command
}

const SUITES: &str = "/etc/apt/sources.list.d/switchback-qemu.sources";
const PINS: &str = "/etc/apt/preferences.d/switchback-qemu";

/// Debian 12 alone: lets apt see QEMU in backports and loongarch64's C library in trixie, and nothing else there.
fn add_suites() -> Result<(), String> {
    let targets = Command::new("apt-get")
        .args(["indextargets", "--format", "$(RELEASE) $(CODENAME) $(REPO_URI)", "Created-By: Packages"])
        .output()
        .map_err(|error| format!("cannot run apt-get: {error}"))?;
    let targets = String::from_utf8_lossy(&targets.stdout);
    let mirror =
        mirror(&targets).ok_or("apt has no source for bookworm, whose mirror would serve the other suites too")?;
    println!("install: lets apt take QEMU from bookworm-backports and loongarch64's C library from trixie");
    write_as_root(
        SUITES,
        &format!(
            "Types: deb\nURIs: {mirror}\nSuites: bookworm-backports trixie\nComponents: main\n\
             Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        ),
    )?;
    write_as_root(
        PINS,
        "Package: *\nPin: release n=trixie\nPin-Priority: -10\n\n\
         Package: *-loong64-cross gcc-14-cross-base-ports\nPin: release n=trixie\nPin-Priority: 500\n\n\
         Package: qemu-user qemu-user-binfmt qemu-user-static\nPin: release n=bookworm-backports\nPin-Priority: 600\n",
    )
}

/// The mirror that serves bookworm itself, out of lines of release, codename and address.
fn mirror(index_targets: &str) -> Option<&str> {
    index_targets.lines().find_map(|line| {
        let (names, address) = line.rsplit_once(' ')?;
        names.split(' ').any(|name| name == "bookworm").then_some(address)
    })
}

/// Brings the standard library of `target`: prebuilt, or else as source, for mirrors that do not carry the target.
fn rust_std(target: &Emulated) -> Result<(), String> {
    if !on_path("rustup") {
        return Err(format!(
            "{}: no Rust standard library and no rustup to bring it, add it with the packages that brought rustc",
            target.triple
        ));
    }
    let prebuilt = rustup(&["target", "add", target.triple]);
    let Err(why) = prebuilt else { return Ok(()) };
    println!("install: it is not to be had ({why}), so its source instead");
    rustup(&["component", "add", "rust-src"])
        .map_err(|why| format!("{}: neither the target nor rust-src is to be had from rustup: {why}", target.triple))
}

/// Runs rustup on the active toolchain; an error is the first line that it said.
fn rustup(arguments: &[&str]) -> Result<(), String> {
    println!("install: rustup {}", arguments.join(" "));
    let output = Command::new("rustup")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run rustup: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let error = said.lines().find_map(|line| line.strip_prefix("error: ").or_else(|| line.strip_prefix("warn: ")));
    Err(error.or(said.lines().last()).unwrap_or("rustup failed without a word").to_string())
}

/// A command with the rights to install: through sudo unless we are root.
fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    command
}

/// Says what is run, and runs it; what it prints is shown only if it fails.
fn step(mut command: Command) -> Result<(), String> {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let line = words.join(" ");
    println!("install: {line}");
    // Standard error passes: sudo asks for its password there, or on the terminal.
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| cannot_run(&command, &error))?;
    if output.status.success() {
        return Ok(());
    }
    print!("{}", String::from_utf8_lossy(&output.stdout));
    Err(format!("`{line}` failed with {}", output.status))
}

/// Writes a file that only root may write.
fn write_as_root(path: &str, text: &str) -> Result<(), String> {
    println!("install: writes {path}");
    let mut tee = as_root("tee");
    tee.arg(path).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = tee.spawn().map_err(|error| cannot_run(&tee, &error))?;
    let mut input = child.stdin.take().expect("standard input is piped");
    input.write_all(text.as_bytes()).map_err(|error| format!("cannot write {path}: {error}"))?;
    drop(input);
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("cannot write {path}: tee failed with {status}")),
        Err(error) => Err(format!("cannot write {path}: {error}")),
    }
}

fn cannot_run(command: &Command, error: &std::io::Error) -> String {
    let program = command.get_program().display();
    if program.to_string() == "sudo" {
        return format!("cannot run sudo: {error}; run `cargo qemu --install` as root");
    }
    format!("cannot run {program}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::EMULATED;

    fn loongarch64() -> &'static Emulated {
        EMULATED.iter().find(|target| target.debian == "loong64").unwrap()
    }

    #[test]
    fn the_mirror_is_that_of_the_release_itself() {
        let lines = "bookworm-security bookworm-security http://security.example/\n\
                     bookworm bookworm http://mirror.example/debian/\n\
                     trixie trixie http://other.example/debian/\n";
        assert_eq!(mirror(lines), Some("http://mirror.example/debian/"));
        assert_eq!(mirror("oldstable bookworm http://mirror.example/debian/"), Some("http://mirror.example/debian/"));
        assert_eq!(mirror("trixie trixie http://other.example/debian/"), None);
    }

    #[test]
    fn packages_are_named_as_debian_names_them() {
        let arm = &EMULATED[1];
        assert_eq!(
            packages_for(&Distribution::Complete, arm, Part::Compiler),
            ["gcc-arm-linux-gnueabihf", "libc6-dev-armhf-cross"]
        );
        assert_eq!(packages_for(&Distribution::Bookworm, arm, Part::Emulator), ["qemu-user-static"]);
    }

    #[test]
    fn only_bookworm_links_loongarch64_with_clang() {
        let names = |distribution| packages_for(&distribution, loongarch64(), Part::Compiler);
        assert!(names(Distribution::Bookworm).contains(&"clang-19".to_string()));
        assert!(names(Distribution::Complete).contains(&"gcc-14-loongarch64-linux-gnu".to_string()));
    }
}
