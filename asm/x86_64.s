# Entered by the `call` of the first resume: rdx points at the link, rsp at the resumer's return address with its rbx
# above it. Entered by the `jmp` of a transfer: four bytes later, rcx points at the resumer's completed frame. rdi holds
# the word.
#
# Unwind tables: the caller of a context's entry function is whoever resumed it last, found through the link. The
# canonical frame address is the resumer's rsp before it pushed anything. `signal_frame` tells debuggers that the
# caller's frame may lie anywhere.
    .cfi_startproc
    .cfi_signal_frame
    .cfi_def_cfa rsp, 16
    .cfi_offset rip, -16
    .cfi_offset rbx, -8

    .p2align 3, 0xcc
    .fill 4, 1, 0xcc            # a landing: 4 bytes past a multiple of 8
    push rbp                    # complete the resumer's frame record
    .cfi_def_cfa rsp, 24
    .cfi_offset rbp, -24
    mov rcx, rsp
    .cfi_def_cfa rcx, 24
    mov [rdx + 16], rcx         # link.state = parent
    mov rsi, rdx                # second argument: the link
    mov rsp, rdx                # our stack begins there, 16-byte aligned
    # DW_CFA_def_cfa_expression, 5 bytes: DW_OP_breg7 (rsp) 16, DW_OP_deref, DW_OP_plus_uconst 24
    .cfi_escape 0x0f, 5, 0x77, 16, 0x06, 0x23, 24
    lea rbp, [rdx + 16]         # the next frame record: link.state and link.entry
    call [rdx + 24]             # entry(word, link) -> word
    nop                         # so that the return address lies inside this function for tools that do not step back

    mov rdi, rax                # the last word
    xor esi, esi                # no link: ended
    mov rsp, [rsp + 16]         # back to whoever resumed last
    .cfi_def_cfa rsp, 24
    pop rbp
    .cfi_def_cfa rsp, 16
    .cfi_restore rbp
    ret
    .cfi_endproc
