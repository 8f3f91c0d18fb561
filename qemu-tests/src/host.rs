//! What this machine has: its Rust toolchain, its programs, its distribution.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::targets::{Compiler, Emulated, Target};

/// The machine that the harness runs on.
pub struct Host {
    /// Its own triple.
    pub triple: String,
    /// Where the active toolchain lies.
    sysroot: PathBuf,
    pub distribution: Distribution,
}

/// One of the things that an emulated target needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    Compiler,
    CLibrary,
    Emulator,
    RustStd,
}

/// A part that is not there.
#[derive(Debug)]
pub struct Lack {
    pub part: Part,
    /// One sentence for the user: what is missing and the remedy.
    pub message: String,
}

/// How a target's standard library is had.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RustStd {
    /// It came with the target.
    Prebuilt,
    /// Cargo builds it from the toolchain's `rust-src`.
    FromSource,
}

impl Host {
    pub fn inspect() -> Result<Host, String> {
        let rustc = env::var_os("RUSTC").unwrap_or("rustc".into());
        let output = Command::new(&rustc)
            .args(["--print", "host-tuple", "--print", "sysroot"])
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| format!("cannot run {}: {error}", rustc.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut lines = text.lines();
        let (Some(triple), Some(sysroot)) = (lines.next(), lines.next()) else {
            return Err(format!("{} names no host or no sysroot", rustc.display()));
        };
        Ok(Host {
            triple: triple.to_string(),
            sysroot: sysroot.into(),
            distribution: Distribution::parse(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
        })
    }

    /// What `target` needs and this machine has not.
    pub fn lacks(&self, target: &Target) -> Vec<Lack> {
        let Some(emulated) = target.emulated else { return Vec::new() };
        let mut lacks = Vec::new();
        let mut lack = |part, what: String| {
            let message = format!("{}: {what}, `cargo qemu --install` brings it", emulated.triple);
            lacks.push(Lack { part, message });
        };
        if compiler(emulated).is_none() {
            let names: Vec<_> = emulated.compilers.iter().map(|compiler| compiler.cc).collect();
            lack(Part::Compiler, format!("no cross compiler ({})", names.join(" or ")));
        }
        if c_library(emulated).is_none() {
            lack(Part::CLibrary, format!("no C library in {}", root(emulated)));
        }
        if emulator(emulated).is_none() {
            let (major, minor) = emulated.qemu_least;
            let least = if major > 0 { format!(" {major}.{minor} or newer") } else { String::new() };
            lack(Part::Emulator, format!("no QEMU{least} (qemu-{0}-static or qemu-{0})", emulated.qemu));
        }
        if self.rust_std(emulated).is_none() {
            lack(Part::RustStd, "no Rust standard library, neither the target's nor rust-src to build it".to_string());
        }
        lacks
    }

    /// Where the standard library for `target` comes from.
    pub fn rust_std(&self, target: &Emulated) -> Option<RustStd> {
        let libraries = self.sysroot.join("lib/rustlib").join(target.triple).join("lib");
        let prebuilt = fs::read_dir(libraries).is_ok_and(|mut files| {
            files.any(|file| file.is_ok_and(|file| file.file_name().as_encoded_bytes().starts_with(b"libstd-")))
        });
        let source = self.sysroot.join("lib/rustlib/src/rust/library/std/Cargo.toml");
        match (prebuilt, source.exists()) {
            (true, _) => Some(RustStd::Prebuilt),
            (false, true) => Some(RustStd::FromSource),
            (false, false) => None,
        }
    }
}

/// The first compiler for `target` that is whole.
pub fn compiler(target: &Emulated) -> Option<&'static Compiler> {
    let whole = |compiler: &&Compiler| [compiler.cc, compiler.ar].iter().chain(compiler.also).all(|name| on_path(name));
    target.compilers.iter().find(whole)
}

/// Where the libraries of `target` lie.
pub fn root(target: &Emulated) -> String {
    format!("/usr/{}", target.gnu)
}

/// The C library to link with: its start-up object.
pub fn c_library(target: &Emulated) -> Option<PathBuf> {
    let start = Path::new(&root(target)).join("lib/crt1.o");
    start.exists().then_some(start)
}

/// An emulator: its name and its version.
pub struct Emulator {
    pub program: String,
    pub version: (u32, u32),
}

/// The first QEMU for `target` that is new enough.
pub fn emulator(target: &Emulated) -> Option<Emulator> {
    [format!("qemu-{}-static", target.qemu), format!("qemu-{}", target.qemu)].into_iter().find_map(|program| {
        let output = Command::new(&program).arg("--version").stdin(Stdio::null()).output().ok()?;
        let version = qemu_version(&String::from_utf8_lossy(&output.stdout))?;
        (version >= target.qemu_least).then_some(Emulator { program, version })
    })
}

/// Whether a program of this name can be started.
pub fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Reads `qemu-arm version 8.2.2 (Debian ...)`.
fn qemu_version(text: &str) -> Option<(u32, u32)> {
    let (_, version) = text.lines().next()?.split_once(" version ")?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The distribution, as far as package names depend on it.
#[derive(Debug, PartialEq)]
pub enum Distribution {
    /// Debian 12: its own QEMU is too old for loongarch64, and it has no compiler or C library for it.
    Bookworm,
    /// Debian 13, Ubuntu 24.04 and later: all is in the main archive.
    Complete,
    /// Anything else, by the name it gives itself.
    Unknown(String),
}

impl Distribution {
    /// Reads `/etc/os-release`.
    fn parse(os_release: &str) -> Distribution {
        let field = |name: &str| {
            let line = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(|value| value.trim_matches(['"', '\'']))
        };
        // Debian's testing and unstable have no version.
        let version = field("VERSION_ID").map_or(Some(u32::MAX), |id| id.split('.').next()?.parse().ok());
        match (field("ID"), version) {
            (Some("debian"), Some(12)) => Distribution::Bookworm,
            (Some("debian"), Some(13..)) | (Some("ubuntu"), Some(24..)) => Distribution::Complete,
            _ => Distribution::Unknown(field("PRETTY_NAME").unwrap_or("a system without /etc/os-release").to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_distributions_are_told_apart() {
        let bookworm = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n";
        assert_eq!(Distribution::parse(bookworm), Distribution::Bookworm);
        let trixie = "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nVERSION_ID=\"13\"\nID=debian\n";
        assert_eq!(Distribution::parse(trixie), Distribution::Complete);
        let sid = "PRETTY_NAME=\"Debian GNU/Linux forky/sid\"\nID=debian\n";
        assert_eq!(Distribution::parse(sid), Distribution::Complete);
        let noble = "PRETTY_NAME=\"Ubuntu 24.04.2 LTS\"\nVERSION_ID=\"24.04\"\nID=ubuntu\nID_LIKE=debian\n";
        assert_eq!(Distribution::parse(noble), Distribution::Complete);
    }

    #[test]
    fn other_distributions_keep_their_name() {
        let jammy = "PRETTY_NAME=\"Ubuntu 22.04 LTS\"\nVERSION_ID=\"22.04\"\nID=ubuntu\n";
        assert_eq!(Distribution::parse(jammy), Distribution::Unknown("Ubuntu 22.04 LTS".to_string()));
        let fedora = "PRETTY_NAME='Fedora Linux 42'\nVERSION_ID=42\nID=fedora\n";
        assert_eq!(Distribution::parse(fedora), Distribution::Unknown("Fedora Linux 42".to_string()));
        assert!(matches!(Distribution::parse(""), Distribution::Unknown(_)));
    }

    #[test]
    fn versions_of_qemu_are_read_and_compared_by_number() {
        let version = qemu_version("qemu-loongarch64 version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright").unwrap();
        assert_eq!(version, (10, 0));
        assert!(version > (8, 2));
        assert!(qemu_version("qemu-loongarch64 version 7.2.15 (Debian)").unwrap() < (8, 2));
        assert_eq!(qemu_version("not a version"), None);
    }
}
