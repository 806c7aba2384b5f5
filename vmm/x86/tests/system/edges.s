# More kernels, behind those of kernels.s: edges that the kvm-unit-tests found.

# The bases of FS and GS stay when a return to CPL 3 takes their selectors.
system_hidden:
    mov eax, 0x10
    mov gs, eax
    mov ecx, 0xc0000101
    mov eax, 0x6000
    xor edx, edx
    wrmsr
    mov qword ptr ds:[0x6010], 77
    user 1f
1:  mov rbx, gs:[0x10]
    mov esi, gs
    try ud2
    mov rdi, gs:[0x10]
    hlt

# An LDT and a TSS whose bases are not canonical.
system_bases:
    mov dword ptr ds:[0x1050], 0xffaaaa
    mov eax, 0x48
    try lldt ax
    mov byte ptr ds:[0x101d], 0x89
    mov dword ptr ds:[0x1020], 0x800000
    mov eax, 0x18
    try ltr ax
    mov dword ptr ds:[0x1020], 0
    ltr ax
    hlt

# MOV SS keeps the trap of its own single step away; LSS and STI do not.
system_quiet:
    mov eax, ss
    pushf
    or qword ptr [rsp], 0x100
    lea r15, [rip + 1f]
    popf
    mov ss, eax
    nop
system_quiet_trap:
    nop
1:  pushf
    or qword ptr [rsp], 0x100
    lea r15, [rip + 2f]
    popf
    sti
system_quiet_sti:
    nop
2:  cli
    hlt

# With DR7.GD set, debug registers raise #DB before they are read or written, and GD is clear afterwards.
system_general_detect:
    mov rax, dr7
    or rax, 0x2000
    mov dr7, rax
system_general_detect_at:
    try mov rbx, dr0
    mov rcx, dr7
    mov rax, dr7
    or rax, 0x2000
    mov dr7, rax
    try mov dr1, rax
    mov rdx, dr1
    hlt

system_end:
    .popsection
