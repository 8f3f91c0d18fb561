@ Entered by the `blx` of the first resume: r2 points at the link, sp at two registers of the resumer's (r6 and r7, in Thumb
@ state r6 and r11), lr is the return address. Entered by the `bx` of a transfer: two instructions later, r3 points at the
@ resumer's completed frame. r0 holds the word.
@
@ Unwind tables: the caller of a context's entry function is whoever resumed it last, found through the link. EHABI
@ has no expressions, but its pop instructions load from memory: with sp at the link,
@   0x01        vsp = vsp + 8             now at link.state
@   0x80 0x01   pop {r4}                  r4 = link.state, the parent (r4 is a clobber of the resumer's, it may be lost)
@   0x94        vsp = r4                  now on the resumer's stack
@   0x84 0x80   pop {r11, lr}             its frame record
@   0x80 0x0c   pop {r6, r7}              what it had saved
@ In Thumb state r7 and r11 change places: 0x84 0x08, 0x80 0x84.
    .fnstart
    .p2align 3
    nop                         @ a landing: 4 bytes past a multiple of 8
    .p2align 2
    .if .Lthumb
    push {r7, lr}               @ the resumer's frame record
    .else
    push {r11, lr}              @ the resumer's frame record
    .endif
    mov r3, sp
    str r3, [r2, #8]            @ link.state = parent
    mov r1, r2                  @ second argument: the link
    mov sp, r2                  @ our stack begins there, 8-byte aligned
    ldr r12, [r2, #12]
    add r7, r2, #8              @ the next frame record, link.state and link.entry: Thumb's
    add r11, r2, #8             @ and ARM's
    blx r12                     @ entry(word, link) -> word
    nop                         @ so that the return address lies inside this function for tools that do not step back

    mov r1, #0                  @ no link: ended; r0 is the last word
    ldr sp, [sp, #8]            @ back to whoever resumed last
    .if .Lthumb
    pop {r7, pc}
    .unwind_raw 0, 0x01, 0x80, 0x01, 0x94, 0x84, 0x08, 0x80, 0x84
    .else
    pop {r11, pc}
    .unwind_raw 0, 0x01, 0x80, 0x01, 0x94, 0x84, 0x80, 0x80, 0x0c
    .endif
    .fnend
