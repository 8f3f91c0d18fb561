// Preloaded by `.ci/branch-protection`: guards the pages of the program's own code (PROT_BTI) while its `main` runs.
//
// The loader does so for programs that are marked, but only if the C library and its start files are marked too, which
// those of current distributions are not. They stay unguarded here.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifndef PROT_BTI
#define PROT_BTI 0x10
#endif

static int protect(struct dl_phdr_info *object, size_t size, void *guard) {
    (void)size;
    uintptr_t page = 4096;
    for (int n = 0; n < object->dlpi_phnum; n++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[n];
        if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_X))
            continue;
        uintptr_t start = (object->dlpi_addr + segment->p_vaddr) & -page;
        uintptr_t end = object->dlpi_addr + segment->p_vaddr + segment->p_memsz;
        if (mprotect((void *)start, end - start, PROT_READ | PROT_EXEC | *(int *)guard) != 0) {
            perror("guard");
            _Exit(101);
        }
    }
    // The program comes first; no other object is wanted.
    return 1;
}

static void protect_program(int guard) {
    dl_iterate_phdr(protect, &guard);
}

// The destructors that gcc's start files bring have no landing pads.
static void unguard(void) {
    protect_program(0);
}

typedef int program_main(int, char **, char **);
static program_main *program;

static int guarded_main(int argc, char **argv, char **envp) {
    atexit(unguard);
    protect_program(PROT_BTI);
    // Calls program(argc, argv, envp) by a return, which may land anywhere: rustc does not always give the C main it makes a
    // landing pad.
    register long x0 __asm__("x0") = argc;
    register char **x1 __asm__("x1") = argv;
    register char **x2 __asm__("x2") = envp;
    __asm__ volatile("adr x30, 1f\n\tret %3\n1:"
                     : "+r"(x0), "+r"(x1), "+r"(x2)
                     : "r"(program)
                     : "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16", "x17",
                       "x18", "x30", "memory", "cc");
    return (int)x0;
}

int __libc_start_main(program_main *main, int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*rtld_fini)(void), void *stack_end) {
    program = main;
    __typeof__(&__libc_start_main) start = dlsym(RTLD_NEXT, "__libc_start_main");
    return start(guarded_main, argc, argv, init, fini, rtld_fini, stack_end);
}
