# Entered by the `jirl` of the first resume: a2 points at the link, sp at the resumer's frame (s8, padding, fp, room
# for the return address), ra is the return address. Entered by the `jirl` of a transfer: two instructions later, a3
# points past the resumer's completed frame. a0 holds the word.
#
# Unwind tables: the caller of a context's entry function is whoever resumed it last, found through the link. The
# canonical frame address is the resumer's sp before its frame. `signal_frame` tells debuggers that the caller's
# frame may lie anywhere.
    .cfi_startproc
    .cfi_signal_frame
    .cfi_def_cfa 3, 32
    .cfi_offset 22, -16
    .cfi_offset 31, -32

    .p2align 3
    nop                         # a landing: 4 bytes past a multiple of 8
    st.d $ra, $sp, 24           # complete the resumer's frame, with its frame record at the upper end
    .cfi_offset 1, -8
    addi.d $a3, $sp, 32
    .cfi_def_cfa 7, 0
    st.d $a3, $a2, 16           # link.state = parent
    move $a1, $a2               # second argument: the link
    move $sp, $a2               # our stack begins there, 16-byte aligned
    # DW_CFA_def_cfa_expression, 3 bytes: DW_OP_breg3 (sp) 16, DW_OP_deref
    .cfi_escape 0x0f, 3, 0x73, 16, 0x06
    ld.d $t0, $a2, 24
    addi.d $fp, $a2, 32         # the next frame record: link.state and link.entry
    jirl $ra, $t0, 0            # entry(word, link) -> word
    nop                         # so that the return address lies inside this function for tools that do not step back

    move $a1, $zero             # no link: ended; a0 is the last word
    ld.d $t0, $sp, 16           # back to whoever resumed last
    addi.d $sp, $t0, -32
    .cfi_def_cfa 3, 32
    ld.d $ra, $sp, 24
    ret
    .cfi_endproc
