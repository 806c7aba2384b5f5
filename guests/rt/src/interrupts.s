# Exception and interrupt stubs, all at CPL 0 with IF = 0.
#
# An interrupt is only counted: the 8259 pair ends it by itself, so it costs no exit. An exception ends
# the guest: it is recorded here, and reported by Rust code at CPL 3 on a separate stack.

.section .text
.macro exception vector, error_code=0
    .balign 16
    .if \error_code == 0
    push 0
    .endif
    push \vector
    jmp exception_common
.endm

.balign 16
interrupt_stubs:
    exception 0
    exception 1
    exception 2
    exception 3
    exception 4
    exception 5
    exception 6
    exception 7
    exception 8, 1
    exception 9
    exception 10, 1
    exception 11, 1
    exception 12, 1
    exception 13, 1
    exception 14, 1
    exception 15
    exception 16
    exception 17, 1
    exception 18
    exception 19
    exception 20
    exception 21, 1
    exception 22
    exception 23
    exception 24
    exception 25
    exception 26
    exception 27
    exception 28
    exception 29, 1
    exception 30, 1
    exception 31
.set line, 0
.rept 16
    .balign 16
    inc qword ptr [rip + irq_counts + 8 * line]
    iretq
    .set line, line + 1
.endr

# Stack: vector, error code, RIP, CS, RFLAGS, RSP, SS.
.balign 16
exception_common:
    cmp byte ptr [rip + exception_seen], 0
    jne exception_again
    mov byte ptr [rip + exception_seen], 1
    pop rax
    mov [rip + exception_record], rax
    pop rax
    mov [rip + exception_record + 8], rax
    pop rax
    mov [rip + exception_record + 16], rax
    mov rax, [rsp + 16]
    mov [rip + exception_record + 24], rax
    mov rax, cr2
    mov [rip + exception_record + 32], rax
    push 0x1b
    lea rax, [rip + exception_stack_top]
    push rax
    push 0x202
    push 0x23
    lea rax, [rip + exception_entry]
    push rax
    iretq

exception_entry:
    xor ebp, ebp
    call guest_rt_exception
    ud2

# An exception during that report: only the exit port can still be trusted.
exception_again:
    mov rax, [rip + exception_record]
    add eax, 128
    out 0xf4, eax
    jmp exception_again

.balign 16
halt_stub:
    sti
    hlt
    iretq

.section .bss
.balign 64
.global irq_counts
irq_counts:
    .skip 16 * 8
.global exception_record
exception_record:
    .skip 5 * 8
exception_seen:
    .skip 8
.balign 16
    .skip 16 * 1024
exception_stack_top:
