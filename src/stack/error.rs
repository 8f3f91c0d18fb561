//! What went wrong with a stack, in a sentence that names the limit and the remedy.

use core::fmt;

#[cfg(feature = "std")]
use super::system;

/// Why a stack could not be had or used.
///
/// Making and displaying one allocates nothing, so it can be reported when memory has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    TooSmall {
        size: usize,
        needed: usize,
    },
    TooLarge {
        size: usize,
    },
    ShadowStack,
    #[cfg(feature = "std")]
    TooMany {
        asked: Asked,
    },
    #[cfg(feature = "std")]
    NoStacks,
    #[cfg(feature = "std")]
    AllInUse {
        stacks: usize,
    },
    #[cfg(feature = "std")]
    MappingLimit {
        used: usize,
        limit: usize,
        asked: Asked,
    },
    #[cfg(feature = "std")]
    AddressSpaceLimit {
        limit: u64,
        asked: Asked,
    },
    #[cfg(feature = "std")]
    DataLimit {
        limit: u64,
        asked: Asked,
    },
    #[cfg(feature = "std")]
    LockLimit {
        limit: u64,
        asked: Asked,
    },
    #[cfg(feature = "std")]
    CommitLimit {
        asked: Asked,
    },
    #[cfg(feature = "std")]
    TooManySizes {
        limit: usize,
    },
    #[cfg(feature = "std")]
    Refused {
        call: &'static str,
        errno: i32,
        asked: Asked,
    },
}

/// What was asked for: stacks of so many bytes each, at once.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) stacks: usize,
    pub(super) size: usize,
}

#[cfg(feature = "std")]
impl From<usize> for Asked {
    /// One stack of that size.
    fn from(size: usize) -> Self {
        Self { stacks: 1, size }
    }
}

#[cfg(feature = "std")]
impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { stacks: 1, size } => write!(f, "a stack of {size} bytes"),
            Self { stacks, size } => write!(f, "{stacks} stacks of {size} bytes"),
        }
    }
}

impl Error {
    pub(crate) fn too_small(size: usize, needed: usize) -> Self {
        Self(Kind::TooSmall { size, needed })
    }

    /// The thread has a shadow stack.
    pub(crate) fn shadow_stack() -> Self {
        Self(Kind::ShadowStack)
    }

    #[cfg_attr(not(feature = "std"), expect(dead_code, reason = "only a mapping can be too large"))]
    pub(crate) fn too_large(size: usize) -> Self {
        Self(Kind::TooLarge { size })
    }
}

#[cfg(feature = "std")]
impl Error {
    /// So many of that size do not fit into the address space.
    pub(super) fn too_many(asked: Asked) -> Self {
        Self(Kind::TooMany { asked })
    }

    /// A slab is to have at least one.
    pub(super) fn no_stacks() -> Self {
        Self(Kind::NoStacks)
    }

    /// A slab has handed out all that it has.
    pub(super) fn all_in_use(stacks: usize) -> Self {
        Self(Kind::AllInUse { stacks })
    }

    /// The process holds as many mappings as the kernel allows.
    pub(super) fn mapping_limit(used: usize, limit: usize, asked: Asked) -> Self {
        Self(Kind::MappingLimit { used, limit, asked })
    }

    /// The process has reached its limit of address space.
    pub(super) fn address_space_limit(limit: u64, asked: Asked) -> Self {
        Self(Kind::AddressSpaceLimit { limit, asked })
    }

    /// The process has reached its limit of memory that can be written.
    pub(super) fn data_limit(limit: u64, asked: Asked) -> Self {
        Self(Kind::DataLimit { limit, asked })
    }

    /// All memory of the process is to be locked, and it has reached its limit of that.
    pub(super) fn lock_limit(limit: u64, asked: Asked) -> Self {
        Self(Kind::LockLimit { limit, asked })
    }

    /// The system promises no more memory.
    pub(super) fn commit_limit(asked: Asked) -> Self {
        Self(Kind::CommitLimit { asked })
    }

    /// The pool has been asked for more different sizes than it keeps apart.
    pub(super) fn too_many_sizes(limit: usize) -> Self {
        Self(Kind::TooManySizes { limit })
    }

    /// A system call failed for a reason that only its error number tells.
    pub(super) fn refused(call: &'static str, errno: i32, asked: impl Into<Asked>) -> Self {
        Self(Kind::Refused { call, errno, asked: asked.into() })
    }

    /// There is no memory for what keeps account of stacks.
    pub(super) fn no_memory(asked: impl Into<Asked>) -> Self {
        Self::refused("the allocator", libc::ENOMEM, asked)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::TooSmall { size, needed } => {
                write!(f, "a stack of {size} bytes is too small: at least {needed} are needed")
            }
            Kind::ShadowStack => write!(
                f,
                "this thread has a shadow stack, which allows no coroutines on it: start the program with \
                 GLIBC_TUNABLES=glibc.cpu.{}",
                if cfg!(target_arch = "aarch64") { "aarch64_gcs=0" } else { "x86_shstk=off" }
            ),
            Kind::TooLarge { size } => write!(f, "a stack of {size} bytes exceeds the address space: ask for less"),
            #[cfg(feature = "std")]
            Kind::TooMany { asked } => {
                write!(f, "{asked} each exceed the address space: ask for fewer or for smaller ones")
            }
            #[cfg(feature = "std")]
            Kind::NoStacks => write!(f, "a slab of no stacks has none to give: ask for at least one"),
            #[cfg(feature = "std")]
            Kind::AllInUse { stacks } => write!(
                f,
                "all stacks of the slab are in use, {stacks} of {stacks}: drop one first or make the slab larger"
            ),
            #[cfg(feature = "std")]
            Kind::MappingLimit { used, limit, asked } => write!(
                f,
                "no mapping left for {asked}: stacks hold {used} of the {limit} that vm.max_map_count allows a process, \
                 two each, and the rest of the program needs some; raise it with `sysctl -w vm.max_map_count=N`"
            ),
            #[cfg(feature = "std")]
            Kind::AddressSpaceLimit { limit, asked } => write!(
                f,
                "no address space left for {asked}: the process may have {limit} bytes (RLIMIT_AS); \
                 raise it with `ulimit -v` or ask for less"
            ),
            #[cfg(feature = "std")]
            Kind::LockLimit { limit, asked } => write!(
                f,
                "no memory left for {asked}: the process locks what it maps (mlockall) and may lock {limit} bytes \
                 (RLIMIT_MEMLOCK); raise it with `ulimit -l` or ask for less"
            ),
            #[cfg(feature = "std")]
            Kind::DataLimit { limit, asked } => write!(
                f,
                "no memory left for {asked}: the process may have {limit} bytes that can be written \
                 (RLIMIT_DATA); raise it with `ulimit -d` or ask for less"
            ),
            #[cfg(feature = "std")]
            Kind::CommitLimit { asked } => write!(
                f,
                "no memory left for {asked}: the system promises no more than it has \
                 (vm.overcommit_memory is 2); raise vm.overcommit_ratio or ask for less"
            ),
            #[cfg(feature = "std")]
            Kind::TooManySizes { limit } => write!(
                f,
                "the pool keeps stacks of at most {limit} sizes apart: use fewer sizes, or a mapping of its own for a \
                 stack of an odd one"
            ),
            #[cfg(feature = "std")]
            Kind::Refused { call, errno, asked } => {
                let remedy = match errno {
                    libc::ENOMEM | libc::EAGAIN => "ask for less or end what holds memory",
                    libc::EPERM | libc::EACCES | libc::ENOSYS => "does the sandbox of the process forbid the call?",
                    // Guard regions are for memory that is not locked.
                    libc::EINVAL => "if the process locks its memory (mlockall), set SWITCHBACK_GUARD=protection",
                    _ => "the system allows no stacks like that",
                };
                write!(f, "{call} refused {asked}: ")?;
                system::write_reason(f, errno)?;
                write!(f, "; {remedy}")
            }
        }
    }
}

impl core::error::Error for Error {}

#[cfg(feature = "std")]
impl From<Error> for std::io::Error {
    /// Sizes that make no sense become `InvalidInput`, a shadow stack `Unsupported`, a call that a sandbox forbids
    /// `PermissionDenied`, everything else `OutOfMemory`; the sentence is kept, for which it allocates.
    fn from(error: Error) -> Self {
        let kind = match error.0 {
            Kind::TooSmall { .. } | Kind::TooLarge { .. } | Kind::TooMany { .. } | Kind::NoStacks => {
                std::io::ErrorKind::InvalidInput
            }
            Kind::ShadowStack => std::io::ErrorKind::Unsupported,
            Kind::Refused { errno: libc::EPERM | libc::EACCES, .. } => std::io::ErrorKind::PermissionDenied,
            _ => std::io::ErrorKind::OutOfMemory,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "std")]
    #[test]
    fn a_refusal_says_what_can_be_done_about_its_reason() {
        let said = |errno| Error::refused("mmap", errno, 4096).to_string();
        assert!(said(libc::ENOMEM).ends_with("; ask for less or end what holds memory"));
        assert!(said(libc::EPERM).ends_with("; does the sandbox of the process forbid the call?"));
        assert!(
            said(libc::EINVAL)
                .ends_with("; if the process locks its memory (mlockall), set SWITCHBACK_GUARD=protection")
        );
        let kind = |errno| std::io::Error::from(Error::refused("mmap", errno, 4096)).kind();
        assert_eq!(kind(libc::EPERM), std::io::ErrorKind::PermissionDenied);
        assert_eq!(kind(libc::ENOMEM), std::io::ErrorKind::OutOfMemory);
        let locked = Error::lock_limit(65536, 4096.into()).to_string();
        assert!(locked.contains("RLIMIT_MEMLOCK") && locked.contains("ulimit -l"), "{locked}");
    }

    /// Few machines have a shadow stack to be refused for.
    #[test]
    fn a_shadow_stack_is_refused_with_the_way_to_turn_it_off() {
        let said = Error::shadow_stack().to_string();
        assert!(said.starts_with("this thread has a shadow stack"), "{said}");
        assert!(said.contains("GLIBC_TUNABLES=glibc.cpu."), "{said}");
        #[cfg(feature = "std")]
        assert_eq!(std::io::Error::from(Error::shadow_stack()).kind(), std::io::ErrorKind::Unsupported);
    }
}
