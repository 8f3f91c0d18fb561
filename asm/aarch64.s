// Entered by the `blr` of the first resume: x2 points at the link, sp at the resumer's x19, lr is the return address. x0
// holds the word.
//
// Unwind tables: the caller of a context's entry function is whoever resumed it last, found through the link. The
// canonical frame address is the resumer's sp before it stored anything. `signal_frame` tells debuggers that the caller's
// frame may lie anywhere.
    .cfi_startproc
    .cfi_signal_frame
    .cfi_def_cfa sp, 16
    .cfi_offset x19, -16

    .p2align 3
    nop                         // a landing: 4 bytes past a multiple of 8
    hint #34                    // bti c: a landing pad
    stp x29, lr, [sp, #-16]!    // the resumer's frame record
    .cfi_def_cfa sp, 32
    .cfi_offset x29, -32
    .cfi_offset lr, -24
    mov x9, sp
    str x9, [x2, #16]           // link.state = parent
    mov x1, x2                  // second argument: the link
    mov sp, x2                  // our stack begins there, 16-byte aligned
    // DW_CFA_def_cfa_expression, 5 bytes: DW_OP_breg31 (sp) 16, DW_OP_deref, DW_OP_plus_uconst 32
    .cfi_escape 0x0f, 5, 0x8f, 16, 0x06, 0x23, 32
    ldr x9, [x2, #24]
    add x29, x2, #16            // the next frame record: link.state and link.entry
    blr x9                      // entry(word, link) -> word
    nop                         // so that the return address lies inside this function for tools that do not step back

    mov x1, #0                  // no link: ended; x0 is the last word
    ldr x9, [sp, #16]           // back to whoever resumed last
    mov sp, x9
    .cfi_def_cfa sp, 32
    ldp x29, lr, [sp], #16
    .cfi_def_cfa sp, 16
    .cfi_restore x29
    .cfi_restore lr
    ret
    .cfi_endproc
