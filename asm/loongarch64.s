# Entered by the `jirl` of the first resume: a2 points at the link, sp at the resumer's frame (fp, s8, room for the
# return address), ra is the return address. a0 holds the word.
#
# Unwind tables: the caller of a context's entry function is whoever resumed it last, found through the link. The
# canonical frame address is the resumer's sp before its frame. `signal_frame` tells debuggers that the caller's
# frame may lie anywhere.
    .cfi_startproc
    .cfi_signal_frame
    .cfi_def_cfa 3, 32
    .cfi_offset 22, -32
    .cfi_offset 31, -24

    .p2align 3
    nop                         # a landing: 4 bytes past a multiple of 8
    st.d $ra, $sp, 16           # complete the resumer's frame
    .cfi_offset 1, -16
    st.d $sp, $a2, 0            # link.state = parent
    move $a1, $a2               # second argument: the link
    move $sp, $a2               # our stack begins there, 16-byte aligned
    # DW_CFA_def_cfa_expression, 5 bytes: DW_OP_breg3 (sp) 0, DW_OP_deref, DW_OP_plus_uconst 32
    .cfi_escape 0x0f, 5, 0x73, 0, 0x06, 0x23, 32
    ld.d $t0, $a2, 16
    move $fp, $zero             # chains of frame pointers end here
    jirl $ra, $t0, 0            # entry(word, link) -> word
    nop                         # so that the return address lies inside this function for tools that do not step back

    move $a1, $zero             # no link: ended; a0 is the last word
    ld.d $sp, $sp, 0            # back to whoever resumed last
    .cfi_def_cfa 3, 32
    ld.d $ra, $sp, 16
    ret
    .cfi_endproc
