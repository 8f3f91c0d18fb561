//! The targets and what each needs: data only.

/// A target that the tests run on.
#[derive(Clone, Debug)]
pub struct Target {
    pub triple: String,
    /// None for the machine itself.
    pub emulated: Option<&'static Emulated>,
}

/// What it takes to build for an architecture and to run it under QEMU.
#[derive(Debug)]
pub struct Emulated {
    pub triple: &'static str,
    /// Short names that `--target` takes.
    pub names: &'static [&'static str],
    /// The name that GNU tools and Debian's multiarch folders have for it.
    pub gnu: &'static str,
    /// What Debian calls the architecture, as in `libc6-dev-arm64-cross`.
    pub debian: &'static str,
    /// QEMU's name for it, as in `qemu-arm-static`.
    pub qemu: &'static str,
    /// The oldest QEMU that runs what rustc makes.
    pub qemu_least: (u32, u32),
    /// C compilers that link for it; the first one present is taken.
    pub compilers: &'static [Compiler],
}

/// A C compiler, which links Rust's programs and compiles the fixtures.
#[derive(Debug)]
pub struct Compiler {
    pub cc: &'static str,
    pub ar: &'static str,
    /// What must be on PATH besides `cc` and `ar`.
    pub also: &'static [&'static str],
    /// Arguments that make `cc` link for the target.
    pub link_args: &'static [&'static str],
}

impl Compiler {
    const fn gcc(cc: &'static str, ar: &'static str) -> Compiler {
        Compiler { cc, ar, also: &[], link_args: &[] }
    }
}

const ANY_QEMU: (u32, u32) = (0, 0);

/// In the order in which they are run: loongarch64 last, as its standard library may have to be built first.
pub static EMULATED: [Emulated; 4] = [
    Emulated {
        triple: "aarch64-unknown-linux-gnu",
        names: &["aarch64", "arm64"],
        gnu: "aarch64-linux-gnu",
        debian: "arm64",
        qemu: "aarch64",
        qemu_least: ANY_QEMU,
        compilers: &[Compiler::gcc("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-ar")],
    },
    Emulated {
        triple: "armv7-unknown-linux-gnueabihf",
        names: &["arm", "armv7", "armhf"],
        gnu: "arm-linux-gnueabihf",
        debian: "armhf",
        qemu: "arm",
        qemu_least: ANY_QEMU,
        compilers: &[Compiler::gcc("arm-linux-gnueabihf-gcc", "arm-linux-gnueabihf-ar")],
    },
    Emulated {
        triple: "riscv64gc-unknown-linux-gnu",
        names: &["riscv64", "riscv64gc"],
        gnu: "riscv64-linux-gnu",
        debian: "riscv64",
        qemu: "riscv64",
        qemu_least: ANY_QEMU,
        compilers: &[Compiler::gcc("riscv64-linux-gnu-gcc", "riscv64-linux-gnu-ar")],
    },
    Emulated {
        triple: "loongarch64-unknown-linux-gnu",
        names: &["loongarch64", "loong64"],
        gnu: "loongarch64-linux-gnu",
        debian: "loong64",
        qemu: "loongarch64",
        // rustc's baseline has LSX, the 128-bit vectors; an older QEMU ends such a program with SIGILL.
        qemu_least: (8, 2),
        compilers: &[
            Compiler::gcc("loongarch64-linux-gnu-gcc", "loongarch64-linux-gnu-ar"),
            Compiler::gcc("loongarch64-linux-gnu-gcc-14", "loongarch64-linux-gnu-ar"),
            // Debian 12 has no gcc for it, and its clang-19 has every back end.
            Compiler {
                cc: "clang-19",
                ar: "llvm-ar-19",
                also: &["ld.lld-19"],
                link_args: &["--target=loongarch64-linux-gnu", "-fuse-ld=lld-19"],
            },
        ],
    },
];

/// Every target on a machine whose own triple is `host`, the machine itself first.
pub fn all(host: &str) -> Vec<Target> {
    let native = Target { triple: host.to_string(), emulated: None };
    let emulated = EMULATED.iter().filter(|target| target.triple != host);
    let emulated = emulated.map(|target| Target { triple: target.triple.to_string(), emulated: Some(target) });
    std::iter::once(native).chain(emulated).collect()
}

impl Target {
    /// Whether `name` is one of this target's names.
    pub fn answers_to(&self, name: &str) -> bool {
        let short = match self.emulated {
            Some(emulated) => emulated.names.contains(&name),
            None => name == "native" || self.triple.split('-').next() == Some(name),
        };
        short || self.triple == name
    }

    /// Its name in progress lines and in the table.
    pub fn label(&self) -> String {
        match self.emulated {
            Some(_) => self.triple.clone(),
            None => format!("{} (native)", self.triple),
        }
    }

    /// The name as it stands in `CARGO_TARGET_<NAME>_LINKER`.
    pub fn in_cargo_variables(&self) -> String {
        self.triple.to_uppercase().replace(['-', '.'], "_")
    }

    /// The name as it stands in `CC_<name>`.
    pub fn in_cc_variables(&self) -> String {
        self.triple.replace('-', "_")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_itself_is_first_and_never_emulated() {
        let on_x86_64 = all("x86_64-unknown-linux-gnu");
        assert_eq!(on_x86_64.len(), 5);
        assert!(on_x86_64[0].emulated.is_none());
        let on_aarch64 = all("aarch64-unknown-linux-gnu");
        assert_eq!(on_aarch64.len(), 4);
        assert!(on_aarch64[1..].iter().all(|target| target.triple != "aarch64-unknown-linux-gnu"));
    }

    #[test]
    fn every_name_means_one_target() {
        let all = all("x86_64-unknown-linux-gnu");
        let names = EMULATED.iter().flat_map(|target| target.names.iter().chain([&target.triple]));
        for name in names.chain([&"native", &"x86_64", &"x86_64-unknown-linux-gnu"]) {
            let answering = all.iter().filter(|target| target.answers_to(name)).count();
            assert_eq!(answering, 1, "{name}");
        }
    }
}
