# Small kernels, each of which does something that only a system does, and halts. They lie at 0x200000 and
# use nothing but addresses relative to RIP and fixed ones below 2 MiB; main.rs says what is there.

# Rust names them.
    .irp name, begin, stubs, exceptions, double, triple, single_step, user, syscall
    .globl system_\name
    .endr
    .irp name, segments, compatibility, paging, registers, far, tells, hidden, bases
    .globl system_\name
    .endr
    .irp name, quiet, quiet_trap, quiet_sti, general_detect, general_detect_at, end
    .globl system_\name
    .endr

    .pushsection .text
system_begin:

# Goes on behind the instruction, whether it faults or not.
    .macro try insn:vararg
    lea r15, [rip + 771f]
    \insn
771:
    .endm

# The gates of the IDT lead here: 16 bytes each.
    .balign 16
system_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17)
    push 0
    .endif
    push vector
    jmp 770f
    .set vector, vector + 1
    .endr

# Writes down what came, and goes on where R15 says, as the supervisor. R8 and R13 are lost.
    .balign 16
770:
    mov r13, ds:[0x5000]
    .irp offset, 0, 8, 16, 24, 32, 40, 48
    pop r8
    mov [r13 + \offset], r8
    .endr
    mov r8, cr2
    mov [r13 + 56], r8
    mov r8, dr6
    mov [r13 + 64], r8
    mov [r13 + 72], rsp
    add r13, 80
    mov ds:[0x5000], r13
    mov rsp, 0x170000
    push 0x10
    push 0x170000
    push 2
    push 8
    push r15
    iretq

# To CPL 3, where R15 says.
    .macro user where
    lea r15, [rip + \where]
    push 0x33
    push 0x160000
    push 0x202
    push 0x3b
    push r15
    iretq
    .endm

system_exceptions:
    try ud2
    xor ecx, ecx
    mov eax, 1
    xor edx, edx
    try div ecx
    mov rax, 0x8000000000000000
    try mov rbx, [rax]
    try mov [rax], rbx
    mov rbp, rax
    try mov rbx, [rbp]
    try int3
    try int 0x80
    try .byte 0xf1
    # Not present; read-only with WP; the same without; no execution; a reserved bit.
    try mov rax, ds:[0x80000]
    try mov ds:[0x80ff8], rax
    try mov ds:[0x81000], rax
    try add qword ptr ds:[0x81008], 1
    try mov rax, ds:[0x81ffc]
    mov rax, cr0
    btr rax, 16
    mov cr0, rax
    try mov qword ptr ds:[0x81010], 77
    bts rax, 16
    mov cr0, rax
    lea rax, ds:[0x82000]
    mov byte ptr [rax], 0xc3
    try jmp rax
    try mov rax, ds:[0x83000]
    # Across two pages, the second of which is missing.
    try mov rax, ds:[0x7fffc]
    try mov ds:[0x7fffc], rax
    # Selectors.
    mov eax, 0x7f8
    try mov ds, eax
    try mov ss, eax
    mov eax, 0x18
    try mov es, eax
    mov eax, 0x50
    try mov fs, eax
    # Control registers and MSRs.
    mov rax, -1
    try mov cr4, rax
    try mov cr0, rax
    mov rax, 1
    try mov cr8, rax
    mov ecx, 0x12345678
    try rdmsr
    try wrmsr
    mov ecx, 0xc0000100
    mov edx, 0x80000000
    try wrmsr
    # A stack that is not canonical.
    mov rsp, 0x8000000000000000
    try push rax
    hlt

# Exceptions while one is delivered.
system_double:
    lea rsp, ds:[0x80800]
    try ud2
    # The gate of vector 0x21 is not present, that of 0x22 is none, that of 0x23 is the supervisor's.
    try int 0x21
    try int 0x22
    try int 0x23
    # On the stack of IST 1.
    try int 0x24
    hlt

# Nothing catches it: shutdown.
system_triple:
    push 0
    push 0
    lidt [rsp]
    ud2
    hlt

system_single_step:
    pushf
    or qword ptr [rsp], 0x100
    lea r15, [rip + 1f]
    popf
    nop
    nop
1:  mov eax, 1
    pushf
    or qword ptr [rsp], 0x100
    lea r15, [rip + 2f]
    popf
    # A repeated instruction traps after each iteration.
    mov ecx, 3
2:  lea r15, [rip + 3f]
    pushf
    or qword ptr [rsp], 0x100
    lea rsi, ds:[0x6000]
    lea rdi, ds:[0x6100]
    mov ecx, 3
    popf
    rep movsb
3:  hlt

system_user:
    user 1f
1:  mov rax, 5
    try cli
    user 2f
2:  try hlt
    user 3f
3:  try mov rax, cr0
    user 4f
4:  try mov rax, ds:[0x84000]
    user 5f
5:  try mov ds:[0x81000], rax
    user 6f
6:  try int 0x80
    user 7f
7:  try int 0x23
    user 8f
8:  try in al, 0x80
    user 9f
9:  lea r15, [rip + 10f]
    # The port map of the TSS allows 0x70.
    in al, 0x70
    ud2
10: user 11f
11: lea r15, [rip + 12f]
    mov eax, 0x33
    mov ds, eax
    mov es, eax
    xor eax, eax
    mov fs, eax
    ud2
12: user 13f
13: try sysretq
    user 14f
14: lea r15, [rip + 15f]
    syscall
15: hlt

# SYSCALL and SYSRET, with what they make of the flags and segments.
system_syscall:
    mov ecx, 0xc0000081
    xor eax, eax
    mov edx, 0x00280008
    wrmsr
    mov ecx, 0xc0000082
    lea rax, [rip + 2f]
    xor edx, edx
    wrmsr
    mov ecx, 0xc0000084
    mov eax, 0x4700
    wrmsr
    mov ecx, 0xc0000080
    rdmsr
    or eax, 1
    wrmsr
    xor ebx, ebx
    user 1f
1:  add ebx, 1
    std
    stc
    syscall
    cmp ebx, 3
    jb 1b
    try ud2
    hlt
2:  pushf
    pop qword ptr ds:[0x6000 + rbx * 8]
    mov ds:[0x6100 + rbx * 8], r11
    mov ds:[0x6200 + rbx * 8], rcx
    mov eax, ss
    mov ds:[0x6300 + rbx * 8], eax
    mov eax, cs
    mov ds:[0x6304 + rbx * 8], eax
    sysretq

system_segments:
    mov eax, 0x28
    .irp selector, 0, 3, 8, 0x10, 0x13, 0x18, 0x2b, 0x33, 0x3b, 0x40, 0x48, 0x58, 0x4c, 0x7f8
    mov ecx, \selector
    mov rax, -1
    lar rax, ecx
    pushf
    mov rdx, -1
    lsl edx, ecx
    pushf
    verr cx
    pushf
    verw cx
    pushf
    push rax
    push rdx
    .endr
    mov eax, 0x48
    lldt ax
    sldt rbx
    str rdx
    mov eax, 4
    mov fs, eax
    mov gs, eax
    .byte 0x0f, 0xa0
    pop r9
    mov ecx, 0xc0000100
    rdmsr
    mov r10, rax
    mov r11, rdx
    mov ecx, 0xc0000101
    mov eax, 0x6000
    xor edx, edx
    wrmsr
    mov ecx, 0xc0000102
    mov eax, 0x6800
    wrmsr
    mov qword ptr ds:[0x6010], 11
    mov qword ptr ds:[0x6810], 22
    mov rsi, gs:[0x10]
    swapgs
    mov rdi, gs:[0x10]
    lss esp, ds:[0x6400]
    xor eax, eax
    mov ds, eax
    mov ss, eax
    mov eax, 0x2b
    mov es, eax
    smsw r12
    sgdt ds:[0x6500]
    sidt ds:[0x6510]
    # LTR of one that is busy.
    mov eax, 0x18
    try ltr ax
    hlt

# A 32-bit code segment, there and back.
system_compatibility:
    lea rax, [rip + 1f]
    mov ds:[0x6000], eax
    mov dword ptr ds:[0x6004], 0x40
    mov eax, 0x10
    mov ds, eax
    mov ss, eax
    mov rbx, 0x1122334455667788
    jmp fword ptr ds:[0x6000]
    .code32
1:  mov eax, 0x12345678
    inc ecx
    push eax
    push 5
    pop edx
    call 2f
    mov dword ptr ds:[0x6100], eax
    lea esi, [eax + ecx * 4 + 7]
    mov edi, 0x6200
    mov ecx, 3
    rep stosd
    # LES EDI, LDS ESI and LES DI, LDS SI from 0x6500 and 0x6510.
    mov dword ptr ds:[0x6500], 0x12345678
    mov dword ptr ds:[0x6504], 0x10
    mov dword ptr ds:[0x6510], 0x10abcd
    .byte 0xc4, 0x3d, 0, 0x65, 0, 0
    .byte 0xc5, 0x35, 0, 0x65, 0, 0
    .byte 0x66, 0xc4, 0x3d, 0x10, 0x65, 0, 0
    .byte 0x66, 0xc5, 0x35, 0x10, 0x65, 0, 0
    pushad
    popad
    .byte 0xea
    .long 0x200000 + (3f - system_begin)
    .word 8
2:  push ebp
    mov ebp, esp
    add eax, 1
    leave
    ret
    .code64
3:  hlt

# Accessed and dirty bits in the tables, INVLPG, and 2 MiB and 1 GiB pages.
system_paging:
    mov rax, ds:[0x85000]
    mov ds:[0x86000], rax
    add qword ptr ds:[0x87000], 1
    cmp qword ptr ds:[0x88000], 1
    mov qword ptr ds:[0x600000], 5
    mov rax, ds:[0x800000]
    mov rbx, 0x40000000
    mov rcx, [rbx + 0x6000]
    mov [rbx + 0x6008], rcx
    # Another page at 0x89000: what was translated holds until INVLPG.
    mov rdx, ds:[0x89000]
    mov rax, ds:[0x13000 + 0x89 * 8]
    add rax, 0x1000
    mov ds:[0x13000 + 0x89 * 8], rax
    invlpg ds:[0x89000]
    mov rsi, ds:[0x89000]
    mov rax, cr3
    mov cr3, rax
    mov rdi, ds:[0x89000]
    hlt

system_registers:
    mov rax, 0x1122334455667788
    mov dr0, rax
    mov dr3, rax
    mov rbx, dr3
    mov rcx, cr4
    mov rdx, cr0
    mov rsi, cr8
    mov rax, 0x123
    try mov dr7, rax
    mov rdi, dr7
    mov rbp, dr6
    mov r9, cr3
    mov rax, -1
    try mov dr7, rax
    clts
    mov eax, 1
    lmsw ax
    smsw r10
    sti
    pushf
    pop r11
    cli
    pushf
    pop r12
    hlt

# Far returns and IRET of each operand size: with 16 bits they lead to JMP R15 at 0x6f00.
system_far:
    mov dword ptr ds:[0x6f00], 0xe7ff41
    lea r14, [rip + 2f]
    lea r15, [rip + 1f]
    # RETFW.
    push 0x86f00
    .byte 0x66, 0xcb
1:  pop rax
    sub rsp, 4
    lea r15, [rip + 1f]
    push 0x86f00
    # RETFW 12
    .byte 0x66, 0xca, 12, 0
1:  mov ds:[0x6000], rsp
    mov rsp, 0x170000
    mov rax, 0x800000000
    lea rbx, [rip + 1f]
    or rax, rbx
    push rax
    # RETFD.
    .byte 0xcb
1:  lea rbx, [rip + 1f]
    mov rax, 0x800000000
    or rax, rbx
    push rax
    # RETFD 16
    .byte 0xca, 16, 0
1:  mov ds:[0x6008], rsp
    mov rsp, 0x170000
    push 8
    lea rbx, [rip + 1f]
    push rbx
    # RETFQ.
    .byte 0x48, 0xcb
1:  push 8
    lea rbx, [rip + 1f]
    push rbx
    # RETFQ 24
    .byte 0x48, 0xca, 24, 0
1:  mov ds:[0x6010], rsp
    mov rsp, 0x170000
    # IRETD.
    sub rsp, 20
    lea rbx, [rip + 1f]
    mov [rsp], ebx
    mov dword ptr [rsp + 4], 8
    mov dword ptr [rsp + 8], 0x8d7
    mov dword ptr [rsp + 12], 0x160000
    mov dword ptr [rsp + 16], 0x10
    .byte 0xcf
1:  mov ds:[0x6018], rsp
    pushf
    pop qword ptr ds:[0x6020]
    # IRETW.
    lea r15, [rip + 1f]
    sub rsp, 10
    mov word ptr [rsp], 0x6f00
    mov word ptr [rsp + 2], 8
    mov word ptr [rsp + 4], 0x46
    mov word ptr [rsp + 6], 0x6e00
    mov word ptr [rsp + 8], 0x10
    .byte 0x66, 0xcf
1:  mov ds:[0x6028], rsp
    pushf
    pop qword ptr ds:[0x6030]
    mov rsp, 0x170000
    # Selectors that far returns refuse: null, data, not there.
    push 0
    push rbx
    try .byte 0x48, 0xcb
    push 0x10
    push rbx
    try .byte 0x48, 0xcb
    push 0x7f8
    push rbx
    try .byte 0x48, 0xcb
    # Far pointers: LFS and LGS with offsets of 2, 4 and 8 bytes.
    mov rax, -1
    mov rcx, -1
    mov rdx, -1
    mov rsi, -1
    mov rdi, -1
    mov rbp, -1
    mov dword ptr ds:[0x6500], 0x101234
    lfs ax, ds:[0x6500]
    lgs cx, ds:[0x6500]
    mov dword ptr ds:[0x6510], 0x12345678
    mov dword ptr ds:[0x6514], 0x10
    lfs edx, ds:[0x6510]
    lgs esi, ds:[0x6510]
    mov dword ptr ds:[0x6524], 0x9abcdef0
    mov dword ptr ds:[0x6528], 0x10
    # LFS RDI and LGS RBP from 0x6520.
    .byte 0x48, 0x0f, 0xb4, 0x3c, 0x25, 0x20, 0x65, 0, 0
    .byte 0x48, 0x0f, 0xb5, 0x2c, 0x25, 0x20, 0x65, 0, 0
    mov dword ptr ds:[0x6514], 0x7f8
    try lfs edx, ds:[0x6510]
    # UD0 and UD1 with operands; INT1.
    try .byte 0x0f, 0xff, 0xc1
    try .byte 0x0f, 0xb9, 0xc1
    try .byte 0xf1
2:  hlt

# What tells of the processor.
system_tells:
    mov eax, 0
    cpuid
    mov ds:[0x6000], ebx
    mov ds:[0x6004], edx
    mov ds:[0x6008], ecx
    mov eax, 0x80000001
    cpuid
    mov ds:[0x6010], edx
    rdtsc
    mov esi, eax
    nop
    nop
    rdtsc
    sub eax, esi
    mov ds:[0x6018], eax
    xor ecx, ecx
    try rdpmc
    hlt
