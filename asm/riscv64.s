# Entered by the `jalr` of the first resume: a2 points at the link, sp at the resumer's frame (s1, padding, s0, room for
# the return address), ra is the return address. Entered by the `jr` of a transfer: two instructions later, a3 points
# past the resumer's completed frame. a0 holds the word.
#
# Unwind tables: the caller of a context's entry function is whoever resumed it last, found through the link. The
# canonical frame address is the resumer's sp before its frame. `signal_frame` tells debuggers that the caller's
# frame may lie anywhere.
    .cfi_startproc
    .cfi_signal_frame
    .cfi_def_cfa sp, 32
    .cfi_offset s0, -16
    .cfi_offset s1, -32

    .p2align 3
    .option push
    .option norvc
    nop                         # a landing: 4 bytes past a multiple of 8
    sd ra, 24(sp)               # complete the resumer's frame, with its frame record at the upper end
    .cfi_offset ra, -8
    addi a3, sp, 32
    .cfi_def_cfa a3, 0
    .option pop
    sd a3, 16(a2)               # link.state = parent
    mv a1, a2                   # second argument: the link
    mv sp, a2                   # our stack begins there, 16-byte aligned
    # DW_CFA_def_cfa_expression, 3 bytes: DW_OP_breg2 (sp) 16, DW_OP_deref
    .cfi_escape 0x0f, 3, 0x72, 16, 0x06
    ld t1, 24(a2)
    addi s0, a2, 32             # the next frame record: link.state and link.entry
    jalr t1                     # entry(word, link) -> word
    nop                         # so that the return address lies inside this function for tools that do not step back

    li a1, 0                    # no link: ended; a0 is the last word
    ld t1, 16(sp)               # back to whoever resumed last
    addi sp, t1, -32
    .cfi_def_cfa sp, 32
    ld ra, 24(sp)
    ret
    .cfi_endproc
