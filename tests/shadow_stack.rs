//! Where the processor checks returns against a shadow stack, a coroutine is refused with a sentence.
//!
//! A shadow stack is turned on here as the C library would. Where processor, kernel or emulator have none (QEMU has
//! aarch64's since 10.2, x86_64's not at all), what is left to see is that nobody is refused for nothing.
#![cfg(feature = "std")]

mod common;

use switchback::context::{Context, Running};
use switchback::stack::Mapped;
use switchback::{Coroutine, Resumed, Yielder, on_stack, scoped};

/// Gives this thread a shadow stack, which is empty: the function that calls this must not return. False if the system
/// has none.
#[inline(always)]
fn turn_on() -> bool {
    #[allow(unused_mut, unused_assignments, reason = "not every architecture has one")]
    let mut answer = -1_isize;
    // SAFETY: a system call, inline because a call of a function would return without an entry on the new stack.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        // arch_prctl(ARCH_SHSTK_ENABLE, ARCH_SHSTK_SHSTK)
        std::arch::asm!("syscall", inout("rax") 158_isize => answer, in("rdi") 0x5001, in("rsi") 1, out("rcx") _, out("r11") _)
    };
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        // prctl(PR_SET_SHADOW_STACK_STATUS, PR_SHADOW_STACK_ENABLE, 0, 0, 0)
        std::arch::asm!("svc #0", in("x8") 167, inout("x0") 75_isize => answer, in("x1") 1, in("x2") 0, in("x3") 0, in("x4") 0)
    };
    answer == 0
}

unsafe extern "C" fn unreached(_: *mut (), _: Running) -> *mut () {
    unreachable!()
}

#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes")]
fn a_coroutine_is_refused_just_where_the_thread_has_a_shadow_stack() {
    let child = common::in_a_child("a_coroutine_is_refused_just_where_the_thread_has_a_shadow_stack", || {
        let [first, second, third] = [(); 3].map(|()| Mapped::new(64 * 1024).expect("a stack"));
        let mut earlier = Coroutine::new(|_: &Yielder<(), ()>, ()| ()).expect("a coroutine");
        let on = turn_on();

        let coroutine = Coroutine::with_stack(first, |_: &Yielder<(), ()>, ()| ());
        // SAFETY: never entered.
        let context = unsafe { Context::new(&second, unreached) };
        let lent = scoped(third, |_: &Yielder<(), ()>, ()| (), |_| ());
        let said = [coroutine.err(), context.err(), lent.err()];
        // A call on another stack is a call to both stacks.
        let mut stack = Mapped::new(64 * 1024).expect("a stack");
        let sum = on_stack(&mut stack, || 20 + 1);
        for said in &said {
            println!("on: {on}, sum: {sum}, said: {}", said.map_or("nothing".to_string(), |error| error.to_string()));
        }
        if !on {
            assert_eq!(earlier.resume(()), Resumed::Returned(()));
        }
        // To return would be an error where there is one.
        std::process::exit(if said.iter().all(|said| said.is_some() == on) && sum == 21 { 0 } else { 9 });
    });
    let Some(child) = child else { return };
    let said = String::from_utf8_lossy(&child.stdout);
    assert_eq!(child.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&child.stderr));
    if said.contains("on: true") {
        assert_eq!(said.matches("this thread has a shadow stack").count(), 3, "{said}");
        assert_eq!(said.matches("GLIBC_TUNABLES=glibc.cpu.").count(), 3, "{said}");
    } else {
        assert_eq!(said.matches("said: nothing").count(), 3, "{said}");
    }
}
