# Entered by the `jalr` of the first resume: a2 points at the link, sp at the resumer's frame (s0, s1, room for the
# return address), ra is the return address. a0 holds the word.
#
# Unwind tables: the caller of a context's entry function is whoever resumed it last, found through the link. The
# canonical frame address is the resumer's sp before its frame. `signal_frame` tells debuggers that the caller's
# frame may lie anywhere.
    .cfi_startproc
    .cfi_signal_frame
    .cfi_def_cfa sp, 32
    .cfi_offset s0, -32
    .cfi_offset s1, -24

    .p2align 3
    .option push
    .option norvc
    nop                         # a landing: 4 bytes past a multiple of 8
    .option pop
    sd ra, 16(sp)               # complete the resumer's frame
    .cfi_offset ra, -16
    sd sp, 0(a2)                # link.state = parent
    mv a1, a2                   # second argument: the link
    mv sp, a2                   # our stack begins there, 16-byte aligned
    # DW_CFA_def_cfa_expression, 5 bytes: DW_OP_breg2 (sp) 0, DW_OP_deref, DW_OP_plus_uconst 32
    .cfi_escape 0x0f, 5, 0x72, 0, 0x06, 0x23, 32
    ld t1, 16(a2)
    li s0, 0                    # chains of frame pointers end here
    jalr t1                     # entry(word, link) -> word
    nop                         # so that the return address lies inside this function for tools that do not step back

    li a1, 0                    # no link: ended; a0 is the last word
    ld sp, 0(sp)                # back to whoever resumed last
    .cfi_def_cfa sp, 32
    ld ra, 16(sp)
    ret
    .cfi_endproc
