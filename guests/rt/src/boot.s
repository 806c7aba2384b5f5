# From the guest's first instruction to Rust code at CPL 3, and the tables that the CPU needs for it.
#
# Some hosts emulate the instructions at CPL 0, so this code is short and plain.
# At entry (see lockstep-abi): long mode, CPL 0, IF = 0, paging on, RAM one to one.

.section .text.boot, "ax", @progbits
.global _start
_start:
    lea rsp, [rip + kernel_stack_top]

    # IDT: interrupt gates to the stubs, which lie 16 bytes apart (Intel SDM 3A, 7.14.1).
    lea rdi, [rip + idt]
    lea rsi, [rip + interrupt_stubs]
    mov ecx, 48
1:  mov rax, rsi
    mov word ptr [rdi], ax
    mov dword ptr [rdi + 2], 0x8e000008
    shr rax, 16
    mov word ptr [rdi + 6], ax
    add rdi, 16
    add rsi, 16
    dec ecx
    jnz 1b

    # Vector 3 is the way to `hlt` from CPL 3: a gate of DPL 3.
    lea rax, [rip + halt_stub]
    lea rdi, [rip + idt + 3 * 16]
    mov word ptr [rdi], ax
    mov word ptr [rdi + 4], 0xee00
    shr rax, 16
    mov word ptr [rdi + 6], ax

    # The TSS descriptor's base (Intel SDM 3A, 8.2.3).
    lea rax, [rip + tss]
    lea rdi, [rip + gdt_tss]
    mov word ptr [rdi + 2], ax
    shr rax, 16
    mov byte ptr [rdi + 4], al
    mov byte ptr [rdi + 7], ah

    lgdt [rip + gdt_pointer]
    lidt [rip + idt_pointer]
    mov eax, 0x28
    ltr ax
    mov eax, 0x1b
    mov ds, ax
    mov es, ax
    xor eax, eax
    mov fs, ax
    mov gs, ax

    # To CPL 3 with interrupts enabled (every line is masked at the 8259 pair). IOPL stays 0: not every
    # KVM keeps another value, so the flags that an interrupt pushes would depend on the host. The TSS
    # allows port I/O instead.
    push 0x1b
    lea rax, [rip + user_stack_top]
    push rax
    push 0x202
    push 0x23
    lea rax, [rip + user_entry]
    push rax
    iretq

user_entry:
    xor ebp, ebp
    call guest_rt_entry
    ud2

.section .data
.balign 16
gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 08: CPL 0 code
    .quad 0x00cf93000000ffff    # 10: CPL 0 data
    .quad 0x00cff3000000ffff    # 18: CPL 3 data (selector 1b)
    .quad 0x00affb000000ffff    # 20: CPL 3 code (selector 23)
gdt_tss:
    .word tss_end - tss - 1     # 28: TSS
    .word 0
    .byte 0
    .byte 0x89
    .byte 0
    .byte 0
    .quad 0
gdt_end:

.balign 8
    .skip 6
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
.balign 8
    .skip 6
idt_pointer:
    .word 48 * 16 - 1
    .quad idt

.balign 16
tss:
    .long 0
    .quad kernel_stack_top      # RSP0
    .skip 0x66 - 12
    .word tss_ports - tss
tss_ports:
    .skip 8192                  # every port allowed at CPL 3
    .byte 0xff
tss_end:

.section .bss
.balign 16
.global idt
idt:
    .skip 48 * 16
.balign 4096
    .skip 4096
kernel_stack_top:

.section .stack, "aw", @nobits
.balign 4096
    .skip 256 * 1024
user_stack_top:
