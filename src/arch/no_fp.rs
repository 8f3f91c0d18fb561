//! The floating-point environment of a target without floating-point registers: nothing.

/// Nothing. Whatever computes with fractions here has its state in ordinary memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FpEnvironment;

impl FpEnvironment {
    /// Nothing.
    #[inline(always)]
    pub fn current() -> Self {
        Self
    }

    /// Does nothing.
    ///
    /// # Safety
    ///
    /// None to keep.
    #[inline(always)]
    pub unsafe fn load(self, _over: Self) {}
}
