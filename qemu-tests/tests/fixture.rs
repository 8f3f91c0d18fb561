//! The fixtures themselves: that they fail when they should, and do no harm when they run inside one another.

use std::panic::{self, AssertUnwindSafe};

use qemu_tests::{
    in_a_child, live_values_kept, lose_the_stack_pointer, registers, registers_kept, registers_kept_by_clobbering,
};

#[test]
fn a_callback_that_keeps_all_registers_is_cleared() {
    assert_eq!(registers_kept(1, || ()), Ok(()));
    assert_eq!(live_values_kept(1, || ()), Ok(()));
}

#[test]
fn each_lost_register_is_reported_by_its_name() {
    assert!(registers().count() >= 7, "the table of registers is empty or cut short");
    for (register, name) in registers().enumerate() {
        assert_eq!(registers_kept_by_clobbering(register, 2), Err(vec![name]));
    }
}

#[test]
fn a_clobber_of_no_register_is_cleared() {
    assert_eq!(registers_kept_by_clobbering(registers().count(), 3), Ok(()));
}

#[test]
fn a_fixture_keeps_the_registers_of_its_own_caller() {
    for register in 0..registers().count() {
        let kept = registers_kept(4, || assert!(registers_kept_by_clobbering(register, 5).is_err()));
        assert_eq!(kept, Ok(()));
    }
}

#[test]
fn a_panic_through_a_fixture_puts_back_the_registers_of_its_caller() {
    let kept = registers_kept(6, || {
        let caught = panic::catch_unwind(AssertUnwindSafe(|| registers_kept(7, || panic::resume_unwind(Box::new(8)))));
        let payload = caught.expect_err("the panic goes through");
        assert_eq!(payload.downcast_ref(), Some(&8));
    });
    assert_eq!(kept, Ok(()));
}

#[test]
fn a_panic_through_live_values_puts_back_the_registers_of_its_caller() {
    let kept = registers_kept(9, || {
        let caught =
            panic::catch_unwind(AssertUnwindSafe(|| live_values_kept(10, || panic::resume_unwind(Box::new(11)))));
        let payload = caught.expect_err("the panic goes through");
        assert_eq!(payload.downcast_ref(), Some(&11));
    });
    assert_eq!(kept, Ok(()));
}

#[test]
fn a_lost_stack_pointer_ends_the_process_with_a_message() {
    let child = in_a_child("a_lost_stack_pointer_ends_the_process_with_a_message", || lose_the_stack_pointer());
    let Some(child) = child else { return };
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(!child.status.success());
    assert!(said.contains("did not keep the stack pointer"), "{said}");
}
