//! Who calls a function on another stack and does nothing else.

use super::OnStack;
use crate::slots::Slot;

/// What `stacker` rests on. It leaves it to the caller that no panic escapes.
pub struct Psm;

impl OnStack for Psm {
    const NAME: &'static str = "psm (no panics)";

    #[inline]
    fn on_stack(stack: &mut Slot, function: impl FnOnce() -> usize) -> usize {
        let base = stack.limit.as_ptr();
        // SAFETY: the stack's own bounds; the functions of the benchmarks do not panic.
        unsafe { psm::on_stack(base, stack.top.as_ptr().addr() - base.addr(), function) }
    }
}

/// No other stack: a call that is not inlined, for scale.
pub struct PlainCall;

impl OnStack for PlainCall {
    const NAME: &'static str = "plain call";

    #[inline(never)]
    fn on_stack(_: &mut Slot, function: impl FnOnce() -> usize) -> usize {
        function()
    }
}
