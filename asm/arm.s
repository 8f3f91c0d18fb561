@ Entered by the `blx` of the first resume: r2 points at the InitialFrame, sp at the resumer's frame (r6, r7, r11, room
@ for the return address), lr is the return address. r0 and r1 hold the word and the signal.
@
@ Unwind tables: the caller of a coroutine's entry function is whoever resumed it last, found through the link. EHABI
@ has no expressions, but its pop instructions load from memory: with sp at the link,
@   0x80 0x01   pop {r4}                  r4 = link.parent (r4 is a clobber of the resumer's, it may be lost)
@   0x94        vsp = r4                  now on the resumer's stack
@   0x84 0x8c   pop {r6, r7, r11, lr}     its frame
    .fnstart
    str lr, [sp, #12]           @ complete the resumer's frame
    str sp, [r2, #8]            @ link.parent = resumer
    add r3, r2, #8              @ fourth argument: the link
    mov sp, r3                  @ our stack begins there, 8-byte aligned
    ldr r12, [r2, #4]
    mov r11, #0                 @ chains of frame pointers end here
    blx r12                     @ entry(word, signal, frame, link) -> word
    nop                         @ so that the return address lies inside this function for tools that do not step back

    mov r2, #0                  @ no stack pointer: returned; r0 is the last word
    ldr sp, [sp]                @ back to whoever resumed last
    ldr lr, [sp, #12]
    bx lr
    .unwind_raw 0, 0x80, 0x01, 0x94, 0x84, 0x8c
    .fnend
