# Preemption: from a task to the scheduler and on to a task.
#
# The timer's handler runs at CPL 0, which some hosts emulate without most SSE instructions: it only
# points the interrupted frame at preempt and returns. So a task's state is saved at CPL 3, on its
# own stack, below the 128 bytes under RSP that its code may still use (the red zone).
#
# While preemption_off is set (from the handler or threads_run to the end of resume) a tick only
# sets switch_due: the scheduler, and what it calls, is never entered twice. resume looks at
# switch_due after it has cleared preemption_off, so a tick is late but never lost.
#
# A saved task ("context"), from its address upwards: r15 to r8, rbp, rdi, rsi, rdx, rcx, rbx, rax,
# flags, RIP; below it, at the next lower multiple of 16, 512 bytes of FXSAVE.

.section .text
.balign 16
threads_tick:
    inc qword ptr [rip + ticks]
    cmp qword ptr [rip + preemption_off], 0
    jne 1f
    test byte ptr [rsp + 8], 3      # CS: a task, and not CPL 0
    jz 1f
    mov qword ptr [rip + preemption_off], 1
    push rax
    mov rax, [rsp + 8]
    mov [rip + preempted_rip], rax
    lea rax, [rip + preempt]
    mov [rsp + 8], rax
    pop rax
    iretq
1:  mov qword ptr [rip + switch_due], 1
    iretq

# fn(): saves its caller as if it had been preempted on return, and asks the scheduler.
.balign 16
threads_run:
    cmp al, al                      # no flag is left undefined, as each kind of CPU has its own then
    mov qword ptr [rip + preemption_off], 1
    mov rax, [rsp]
    lea rsp, [rsp + 8 - 128]
    push rax
    jmp save_flags

# Nothing here may change the flags before they are saved.
.balign 16
preempt:
    lea rsp, [rsp - 128]
    push qword ptr [rip + preempted_rip]
save_flags:
    pushfq
    # OF, DF, SF, ZF, AF, PF, CF are the task's. The rest is the same for every task but IOPL,
    # which hosts show differently.
    and qword ptr [rsp], 0xcd5
    or qword ptr [rsp], 0x202
save:
    push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    mov rbx, rsp
    sub rsp, 512
    and rsp, -16
    # On some hosts FXSAVE does not write all of its first 160 bytes: clear them before.
    cld
    mov rdi, rsp
    mov ecx, 160 / 8
    xor eax, eax
    rep stosq
    fxsave64 [rsp]
    mov dword ptr [rsp + 28], 0     # MXCSR_MASK, which is the host's; FXRSTOR ignores it
    mov rdi, rbx
    call threads_schedule           # rdi: context left; returns the context to go on with
    lea rcx, [rax - 512]
    and rcx, -16
    fxrstor64 [rcx]
    mov rsp, rax
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rbp
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rbx
    pop rax
    mov qword ptr [rip + preemption_off], 0
    cmp qword ptr [rip + switch_due], 0
    jne 2f
    # A tick from here on preempts the task inside these two instructions, which is as good as any.
    popfq
    ret 128
2:  mov qword ptr [rip + preemption_off], 1
    jmp save

.section .bss
.balign 8
ticks:
    .skip 8
switch_due:
    .skip 8
preempted_rip:
    .skip 8

.section .data
.balign 8
# Set until the first task runs: a tick may already be pending when the line is unmasked.
preemption_off:
    .quad 1
