//! Stepping a process of this machine: ptrace.

use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::ptr;

use super::{MARK, Stepper};

/// A process with a thread that this thread traces. Ended when dropped.
pub struct Process {
    child: Child,
    /// The thread, once it is known.
    thread: libc::pid_t,
}

/// Where the stack pointer stands among the kernel's general registers, in words.
///
/// Linux has no single steps for the architectures that are not named.
const STACK_POINTER: Option<usize> = cfg_select! {
    target_arch = "x86_64" => { Some(19) }
    target_arch = "aarch64" => { Some(31) }
    target_arch = "loongarch64" => { Some(3) }
    _ => { None }
};

/// Makes the parent process the tracer of the calling thread.
pub fn have_this_thread_traced() {
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0_usize, 0_usize) }, 0);
}

impl Process {
    pub fn start(program: &Path, arguments: &[&str], variable: &str) -> Process {
        // A group of its own, so that `wait` hears of its threads alone.
        let child =
            Command::new(program).args(arguments).env(variable, "1").process_group(0).stdout(Stdio::null()).spawn();
        Process { child: child.expect("the program starts"), thread: 0 }
    }

    /// Its process group, as `waitpid` takes it.
    fn group(&self) -> libc::pid_t {
        -libc::pid_t::try_from(self.child.id()).expect("a process number")
    }

    /// The signal with which the thread stops next.
    fn wait(&mut self) -> libc::c_int {
        let mut status = 0;
        // SAFETY: the place is valid.
        self.thread = unsafe { libc::waitpid(self.group(), &mut status, libc::__WALL | libc::__WNOTHREAD) };
        assert!(self.thread > 0, "{}", std::io::Error::last_os_error());
        assert!(libc::WIFSTOPPED(status), "it ended with status {status:#x}");
        libc::WSTOPSIG(status)
    }

    fn request(&mut self, request: libc::c_uint) {
        // SAFETY: no pointers; it acts on the traced thread alone.
        assert_eq!(unsafe { libc::ptrace(request, self.thread, 0_usize, 0_usize) }, 0);
    }
}

impl Stepper for Process {
    fn run_to_mark(&mut self) {
        assert_eq!(self.wait(), MARK);
        // SAFETY: no pointers.
        unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, self.thread, 0_usize, libc::PTRACE_O_EXITKILL as usize) };
    }

    fn step(&mut self) -> bool {
        self.request(libc::PTRACE_SINGLESTEP);
        match self.wait() {
            libc::SIGTRAP => false,
            MARK => true,
            signal => panic!("it got signal {signal}"),
        }
    }

    fn finish(&mut self) -> bool {
        self.request(libc::PTRACE_DETACH);
        self.child.wait().expect("it ends").success()
    }

    fn stack_pointer(&mut self) -> u64 {
        let which = STACK_POINTER.expect("Linux steps processes on this architecture; where not, an emulator does");
        let mut registers = [MaybeUninit::<u64>::uninit(); 64];
        let mut place = libc::iovec { iov_base: registers.as_mut_ptr().cast(), iov_len: size_of_val(&registers) };
        // SAFETY: the kernel writes at most that many bytes, and says how many.
        unsafe {
            assert_eq!(libc::ptrace(libc::PTRACE_GETREGSET, self.thread, libc::NT_PRSTATUS, &raw mut place), 0);
            assert!(place.iov_len > 8 * which);
            registers[which].assume_init()
        }
    }

    fn write(&mut self, address: u64, bytes: &[u8]) {
        let from = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let to = libc::iovec { iov_base: ptr::without_provenance_mut(address as usize), iov_len: bytes.len() };
        // SAFETY: reads `bytes`, writes to the other process.
        let written = unsafe { libc::process_vm_writev(self.thread, &from, 1, &to, 1, 0) };
        assert_eq!(usize::try_from(written), Ok(bytes.len()), "{}", std::io::Error::last_os_error());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It does not matter if it has ended. The process is not over before its traced thread is waited for.
        let _ = self.child.kill();
        // SAFETY: no place is given.
        while unsafe { libc::waitpid(self.group(), ptr::null_mut(), libc::__WALL) } > 0 {}
    }
}
