//! What went wrong with a stack, in a sentence that names the limit and the remedy.

use core::fmt;

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
    MappingLimit {
        used: usize,
        limit: usize,
        size: usize,
    },
    #[cfg(feature = "std")]
    AddressSpaceLimit {
        limit: u64,
        size: usize,
    },
    #[cfg(feature = "std")]
    DataLimit {
        limit: u64,
        size: usize,
    },
    #[cfg(feature = "std")]
    CommitLimit {
        size: usize,
    },
    #[cfg(feature = "std")]
    TooManySizes {
        limit: usize,
    },
    #[cfg(feature = "std")]
    Refused {
        call: &'static str,
        errno: i32,
        size: usize,
    },
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
    /// The process holds as many mappings as the kernel allows.
    pub(crate) fn mapping_limit(used: usize, limit: usize, size: usize) -> Self {
        Self(Kind::MappingLimit { used, limit, size })
    }

    /// The process has reached its limit of address space.
    pub(crate) fn address_space_limit(limit: u64, size: usize) -> Self {
        Self(Kind::AddressSpaceLimit { limit, size })
    }

    /// The process has reached its limit of memory that can be written.
    pub(crate) fn data_limit(limit: u64, size: usize) -> Self {
        Self(Kind::DataLimit { limit, size })
    }

    /// The system promises no more memory.
    pub(crate) fn commit_limit(size: usize) -> Self {
        Self(Kind::CommitLimit { size })
    }

    /// The pool has been asked for more different sizes than it keeps apart.
    pub(crate) fn too_many_sizes(limit: usize) -> Self {
        Self(Kind::TooManySizes { limit })
    }

    /// A system call failed for a reason that only its error number tells.
    pub(crate) fn refused(call: &'static str, errno: i32, size: usize) -> Self {
        Self(Kind::Refused { call, errno, size })
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
            Kind::MappingLimit { used, limit, size } => write!(
                f,
                "no mapping left for a stack of {size} bytes: stacks hold {used} of the {limit} that vm.max_map_count \
                 allows a process, the rest of the program needs some; raise it with `sysctl -w vm.max_map_count=N`"
            ),
            #[cfg(feature = "std")]
            Kind::AddressSpaceLimit { limit, size } => write!(
                f,
                "no address space left for a stack of {size} bytes: the process may have {limit} bytes (RLIMIT_AS); \
                 raise it with `ulimit -v` or ask for smaller stacks"
            ),
            #[cfg(feature = "std")]
            Kind::DataLimit { limit, size } => write!(
                f,
                "no memory left for a stack of {size} bytes: the process may have {limit} bytes that can be written \
                 (RLIMIT_DATA); raise it with `ulimit -d` or ask for smaller stacks"
            ),
            #[cfg(feature = "std")]
            Kind::CommitLimit { size } => write!(
                f,
                "no memory left for a stack of {size} bytes: the system promises no more than it has \
                 (vm.overcommit_memory is 2); raise vm.overcommit_ratio or ask for smaller stacks"
            ),
            #[cfg(feature = "std")]
            Kind::TooManySizes { limit } => write!(
                f,
                "the pool keeps stacks of at most {limit} sizes apart: use fewer sizes, or a mapping of its own for a \
                 stack of an odd one"
            ),
            #[cfg(feature = "std")]
            Kind::Refused { call, errno, size } => {
                let reason = std::io::Error::from_raw_os_error(errno);
                write!(f, "{call} refused a stack of {size} bytes: {reason}; ask for less or end what holds memory")
            }
        }
    }
}

impl core::error::Error for Error {}

#[cfg(feature = "std")]
impl From<Error> for std::io::Error {
    /// Sizes that make no sense become `InvalidInput`, a shadow stack `Unsupported`, everything else `OutOfMemory`; the
    /// sentence is kept.
    fn from(error: Error) -> Self {
        let kind = match error.0 {
            Kind::TooSmall { .. } | Kind::TooLarge { .. } => std::io::ErrorKind::InvalidInput,
            Kind::ShadowStack => std::io::ErrorKind::Unsupported,
            _ => std::io::ErrorKind::OutOfMemory,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
