# Entered by the `call` of the first resume: rdx points at the link, rsp at the resumer's return address with its rbx and
# rbp above it. rdi holds the word.
#
# Unwind tables: the caller of a context's entry function is whoever resumed it last, found through the link. The
# canonical frame address is the resumer's rsp before its three pushes. `signal_frame` tells debuggers that the
# caller's frame may lie anywhere.
    .cfi_startproc
    .cfi_signal_frame
    .cfi_def_cfa rsp, 24
    .cfi_offset rip, -24
    .cfi_offset rbx, -16
    .cfi_offset rbp, -8

    .p2align 3, 0xcc
    .fill 4, 1, 0xcc            # a landing: 4 bytes past a multiple of 8
    mov [rdx], rsp              # link.state = parent
    mov rsi, rdx                # second argument: the link
    mov rsp, rdx                # our stack begins there, 16-byte aligned
    # DW_CFA_def_cfa_expression, 5 bytes: DW_OP_breg7 (rsp) 0, DW_OP_deref, DW_OP_plus_uconst 24
    .cfi_escape 0x0f, 5, 0x77, 0, 0x06, 0x23, 24
    xor ebp, ebp                # chains of frame pointers end here
    call [rdx + 16]             # entry(word, link) -> word
    nop                         # so that the return address lies inside this function for tools that do not step back

    mov rdi, rax                # the last word
    xor esi, esi                # no link: ended
    mov rsp, [rsp]              # back to whoever resumed last
    .cfi_def_cfa rsp, 24
    ret
    .cfi_endproc
