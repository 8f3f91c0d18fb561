//! The signal handler, and the ones that stood before.

use core::ffi::{c_int, c_void};
use core::mem::{MaybeUninit, transmute};
use core::ptr;
use core::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::Once;

use super::{message, overflowed};

/// The signals that a fault in a guard is answered with: the second where a page is there and cannot be had.
static HANDLERS: [Earlier; 2] = [Earlier::of(libc::SIGSEGV), Earlier::of(libc::SIGBUS)];

/// What a signal did before.
struct Earlier {
    signal: c_int,
    /// The address of a function, `SIG_DFL` or `SIG_IGN`.
    handler: AtomicUsize,
    flags: AtomicI32,
}

/// A handler that asked for `SA_SIGINFO`.
type Handler = unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// Installs the handler, once: after that whoever stands in front of us may pass on to us, and to stand in front of them
/// would close a circle.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| HANDLERS.iter().for_each(Earlier::replace));
}

impl Earlier {
    const fn of(signal: c_int) -> Self {
        Self { signal, handler: AtomicUsize::new(libc::SIG_DFL), flags: AtomicI32::new(0) }
    }

    /// Puts our handler in the place of the one that is installed.
    fn replace(&self) {
        let mut earlier = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: the places are valid. Of ours it is changed who is called, and where: what else the earlier handler asked
        // for (which signals are blocked meanwhile, whether calls are restarted) the kernel does for us as it did for it.
        unsafe {
            libc::sigaction(self.signal, ptr::null(), earlier.as_mut_ptr());
            // Before a fault can find us in its place.
            self.set(earlier.assume_init_ref());
            let mut ours = earlier.assume_init();
            ours.sa_sigaction = handle as Handler as usize;
            ours.sa_flags = ours.sa_flags & !libc::SA_RESETHAND | libc::SA_SIGINFO | libc::SA_ONSTACK;
            // Again, in case that somebody was quicker.
            libc::sigaction(self.signal, &ours, earlier.as_mut_ptr());
            self.set(earlier.assume_init_ref());
        }
    }

    fn set(&self, earlier: &libc::sigaction) {
        self.flags.store(earlier.sa_flags, Ordering::Relaxed);
        // Pairs with the load in `pass_on`: whoever sees the handler sees its flags.
        self.handler.store(earlier.sa_sigaction, Ordering::Release);
    }
}

/// What the kernel calls, on the alternate stack.
unsafe extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes valid ones, and so must whoever was installed after us and passes them on.
    unsafe {
        match fault(info).and_then(|address| overflowed(address, stack_pointer(context.cast()))) {
            Some(stack) => {
                message::print(stack);
                die(signal, info);
            }
            None => pass_on(signal, info, context),
        }
    }
}

/// Where the fault was; None if it was none, but a signal that somebody sent.
///
/// # Safety
///
/// `info` must be what the kernel passed.
unsafe fn fault(info: *const libc::siginfo_t) -> Option<usize> {
    // SAFETY: the caller's promise. Positive codes are the kernel's own, and it gives an address with them.
    unsafe { ((*info).si_code > 0).then(|| (*info).si_addr().addr()) }
}

/// Does what would have been done without us.
///
/// # Safety
///
/// The arguments must be those of the signal.
unsafe fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let Some(earlier) = HANDLERS.iter().find(|earlier| earlier.signal == signal) else { return };
    // Pairs with the store in `set`.
    let mut handler = earlier.handler.load(Ordering::Acquire);
    let flags = earlier.flags.load(Ordering::Relaxed);
    if flags & libc::SA_RESETHAND != 0 {
        // Of several threads, one gets it.
        handler = earlier.handler.swap(libc::SIG_DFL, Ordering::Acquire);
    }
    // SAFETY: the caller's promise; a handler is a function of the form that its flags say.
    unsafe {
        match handler {
            libc::SIG_DFL => die(signal, info),
            // A fault is not to be ignored: the kernel kills as well.
            libc::SIG_IGN if fault(info).is_some() => die(signal, info),
            libc::SIG_IGN => {}
            _ if flags & libc::SA_SIGINFO != 0 => transmute::<usize, Handler>(handler)(signal, info, context),
            _ => transmute::<usize, unsafe extern "C" fn(c_int)>(handler)(signal),
        }
    }
}

/// Ends the process by the signal, as soon as the handler returns, where it came.
///
/// # Safety
///
/// The arguments must be those of the signal.
unsafe fn die(signal: c_int, info: *const libc::siginfo_t) {
    // SAFETY: zeroes are the default action. The thread sends itself what it got, which stays blocked until the handler
    // returns: so the registers and all that is said of the signal are in a core dump as they were. A fault would come
    // again by itself, but not a signal that was sent.
    unsafe {
        let default = MaybeUninit::<libc::sigaction>::zeroed();
        libc::sigaction(signal, default.as_ptr(), ptr::null_mut());
        let thread = libc::syscall(libc::SYS_gettid);
        libc::syscall(libc::SYS_rt_tgsigqueueinfo, libc::getpid(), thread, signal, info);
    }
}

/// The stack pointer where the signal came.
///
/// # Safety
///
/// `context` must be what the kernel passed.
unsafe fn stack_pointer(context: *const libc::ucontext_t) -> usize {
    // SAFETY: the caller's promise.
    let registers = unsafe { &(*context).uc_mcontext };
    cfg_select! {
        target_arch = "x86_64" => { registers.gregs[libc::REG_RSP as usize] as usize }
        target_arch = "aarch64" => { registers.sp as usize }
        target_arch = "arm" => { registers.arm_sp as usize }
        // x2 and r3.
        target_arch = "riscv64" => { registers.__gregs[2] as usize }
        target_arch = "loongarch64" => { registers.__gregs[3] as usize }
    }
}
