@ Entered by the `blx` of the first resume: r2 points at the link, sp at the resumer's frame (r6, r7, r11, room for the
@ return address), lr is the return address. r0 holds the word.
@
@ Unwind tables: the caller of a context's entry function is whoever resumed it last, found through the link. EHABI
@ has no expressions, but its pop instructions load from memory: with sp at the link,
@   0x80 0x01   pop {r4}                  r4 = link.state, the parent (r4 is a clobber of the resumer's, it may be lost)
@   0x94        vsp = r4                  now on the resumer's stack
@   0x84 0x8c   pop {r6, r7, r11, lr}     its frame
    .fnstart
    .p2align 3
    nop                         @ a landing: 4 bytes past a multiple of 8
    .p2align 2
    str lr, [sp, #12]           @ complete the resumer's frame
    str sp, [r2]                @ link.state = parent
    mov r1, r2                  @ second argument: the link
    mov sp, r2                  @ our stack begins there, 8-byte aligned
    ldr r12, [r2, #8]
    mov r7, #0                  @ chains of frame pointers end here: Thumb's
    mov r11, #0                 @ and ARM's
    blx r12                     @ entry(word, link) -> word
    nop                         @ so that the return address lies inside this function for tools that do not step back

    mov r1, #0                  @ no link: ended; r0 is the last word
    ldr sp, [sp]                @ back to whoever resumed last
    ldr lr, [sp, #12]
    bx lr
    .unwind_raw 0, 0x80, 0x01, 0x94, 0x84, 0x8c
    .fnend
