# The memory functions that compiled code calls. SSE2 and string moves only; all run at CPL 3.

.section .text
.global memcpy, memmove, memset, memcmp, bcmp, strlen

# rdi: to, rsi: from, rdx: bytes; returns rdi. Loads precede stores up to 32 bytes, so that
# memmove may use the same code for short blocks.
.balign 16
memcpy:
    mov rax, rdi
    cmp rdx, 32
    ja copy_long
copy_short:
    cmp edx, 16
    jae 2f
    cmp edx, 8
    jae 3f
    cmp edx, 4
    jae 4f
    test edx, edx
    je 1f
    # 1 to 3 bytes: first, middle, last
    movzx ecx, byte ptr [rsi]
    movzx r8d, byte ptr [rsi + rdx - 1]
    mov r9, rdx
    shr r9, 1
    movzx r10d, byte ptr [rsi + r9]
    mov byte ptr [rdi], cl
    mov byte ptr [rdi + r9], r10b
    mov byte ptr [rdi + rdx - 1], r8b
1:  ret
2:  movups xmm0, [rsi]
    movups xmm1, [rsi + rdx - 16]
    movups [rdi], xmm0
    movups [rdi + rdx - 16], xmm1
    ret
3:  mov rcx, qword ptr [rsi]
    mov r8, qword ptr [rsi + rdx - 8]
    mov qword ptr [rdi], rcx
    mov qword ptr [rdi + rdx - 8], r8
    ret
4:  mov ecx, dword ptr [rsi]
    mov r8d, dword ptr [rsi + rdx - 4]
    mov dword ptr [rdi], ecx
    mov dword ptr [rdi + rdx - 4], r8d
    ret

.balign 16
copy_long:
    cmp rdx, 512
    jae 2f
    # 33 to 511 bytes: 32 at a time, then the last 32 again
    movups xmm2, [rsi + rdx - 32]
    movups xmm3, [rsi + rdx - 16]
    lea r8, [rdi + rdx - 32]
1:  movups xmm0, [rsi]
    movups xmm1, [rsi + 16]
    movups [rdi], xmm0
    movups [rdi + 16], xmm1
    add rdi, 32
    add rsi, 32
    cmp rdi, r8
    jb 1b
    movups [r8], xmm2
    movups [r8 + 16], xmm3
    ret
2:  mov rcx, rdx
    rep movsb
    ret

.balign 16
memmove:
    mov rax, rdi
    cmp rdx, 32
    jbe copy_short
    mov rcx, rdi
    sub rcx, rsi
    cmp rcx, rdx
    jae 3f
    # the target begins inside the source: 16 at a time from the end, then the first 16
    movups xmm1, [rsi]
1:  movups xmm0, [rsi + rdx - 16]
    movups [rdi + rdx - 16], xmm0
    sub rdx, 16
    cmp rdx, 16
    ja 1b
    movups [rdi], xmm1
    ret
3:  mov rcx, rdx
    rep movsb
    ret

# rdi: to, esi: byte, rdx: bytes; returns rdi.
.balign 16
memset:
    mov r9, rdi
    movzx eax, sil
    mov rcx, rdx
    cmp rdx, 128
    jae 4f
    mov r8, 0x0101010101010101
    imul rax, r8
    cmp rdx, 8
    jb 2f
    # 8 to 127 bytes: 8 at a time, then the last 8 again
    mov qword ptr [rdi + rdx - 8], rax
1:  mov qword ptr [rdi], rax
    add rdi, 8
    sub rcx, 8
    cmp rcx, 8
    ja 1b
    mov rax, r9
    ret
2:  test ecx, ecx
    jz 5f
3:  mov byte ptr [rdi + rcx - 1], al
    dec ecx
    jnz 3b
    jmp 5f
4:  rep stosb
5:  mov rax, r9
    ret

# rdi, rsi: blocks, rdx: bytes; returns <0, 0 or >0.
.balign 16
bcmp:
memcmp:
    xor ecx, ecx
1:  lea r8, [rcx + 8]
    cmp r8, rdx
    ja 2f
    mov r9, qword ptr [rdi + rcx]
    cmp r9, qword ptr [rsi + rcx]
    jne 2f
    mov rcx, r8
    jmp 1b
2:  cmp rcx, rdx
    je 3f
    movzx eax, byte ptr [rdi + rcx]
    movzx r8d, byte ptr [rsi + rcx]
    inc rcx
    sub eax, r8d
    je 2b
    ret
3:  xor eax, eax
    ret

# rdi: zero-terminated string.
.balign 16
strlen:
    xor eax, eax
1:  cmp byte ptr [rdi + rax], 0
    je 2f
    inc rax
    jmp 1b
2:  ret
