/* Kernels of one kind of work each, in C by a stock compiler, for `lockstep bench cpu FILE` and for QEMU.
 *
 *     cc -O2 -ffreestanding -fno-stack-protector -fno-pie -mno-red-zone -nostdlib -static \
 *        -o kernels tests/bench/kernels.c
 *
 * One file for each machine: Lockstep enters at _start, QEMU (-kernel) at pvh. It prints when a kernel begins
 * and when it has ended, with what it computed. tests/bench/qemu.sh takes the time of both. With -DPROCESS it
 * is a program for Linux, built without the options above, which times itself.
 */
#include <stdint.h>
#include <stddef.h>

static void line_of(const char *name, const char *what, uint64_t value, int has_value);

/* ---- The kernels. ---- */

enum { NUMBERS = 500000, WORDS = 1 << 17, BELOW = 4000000, COPIED = 1 << 16, HASHED = 4 << 20 };

static union {
    uint64_t words[1 << 20];
    uint8_t bytes[8 << 20];
} room;

/* The next of a sequence of pseudo-random numbers. */
static uint64_t next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 11;
}

static void swap(uint64_t *a, uint64_t *b)
{
    uint64_t old = *a;
    *a = *b;
    *b = old;
}

static void quicksort(uint64_t *from, uint64_t *to)
{
    while (to - from > 16) {
        uint64_t pivot = from[(to - from) / 2], *low = from, *high = to - 1;
        while (low <= high) {
            while (*low < pivot)
                low++;
            while (*high > pivot)
                high--;
            if (low <= high)
                swap(low++, high--);
        }
        /* The smaller part first: the stack stays small. */
        if (high + 1 - from < to - low) {
            quicksort(from, high + 1);
            from = low;
        } else {
            quicksort(low, to);
            to = high + 1;
        }
    }
    for (uint64_t *at = from; at < to; at++)
        for (uint64_t *back = at; back > from && back[-1] > back[0]; back--)
            swap(back - 1, back);
}

static uint64_t sort(void)
{
    uint64_t state = 1;
    for (size_t i = 0; i < NUMBERS; i++)
        room.words[i] = next(&state);
    quicksort(room.words, room.words + NUMBERS);
    return room.words[NUMBERS / 2];
}

static uint64_t hash(void)
{
    uint64_t state = 1, sum = 0;
    for (size_t i = 0; i < WORDS; i++)
        room.words[i] = next(&state);
    for (int round = 0; round < 200; round++)
        for (size_t i = 0; i < WORDS; i++) {
            sum = (sum ^ room.words[i]) * 0x9e3779b97f4a7c15u;
            sum = sum << 29 | sum >> 35;
        }
    return sum;
}

static uint64_t floating(void)
{
    union {
        double number;
        uint64_t bits;
    } sum = {.number = 0};
    double x = 0.5;
    for (int i = 0; i < 10000000; i++) {
        x = 3.9 * x * (1 - x);
        sum.number += x / (1.0 + i);
    }
    return sum.bits;
}

static uint64_t sieve(void)
{
    uint64_t count = 0;
    for (size_t i = 2; i < BELOW; i++)
        room.bytes[i] = 1;
    for (size_t i = 2; i * i < BELOW; i++)
        if (room.bytes[i])
            for (size_t multiple = i * i; multiple < BELOW; multiple += i)
                room.bytes[multiple] = 0;
    for (size_t i = 2; i < BELOW; i++)
        count += room.bytes[i];
    return count;
}

/* Word by word: volatile, so that no call of memcpy comes of it. */
static uint64_t copy(void)
{
    volatile uint64_t *from = room.words, *to = room.words + COPIED;
    for (size_t i = 0; i < COPIED; i++)
        from[i] = i;
    for (int round = 0; round < 300; round++)
        for (size_t i = 0; i < COPIED; i++)
            to[i] = from[i];
    return to[1000];
}

/* Sums, products and brackets: a recursive descent over text. */
static const uint8_t *at, *text_end;

static uint64_t sum_of(void);

static uint64_t factor(void)
{
    uint64_t value = 0;
    if (at < text_end && *at == '(') {
        at++;
        value = sum_of();
        at++;
        return value;
    }
    while (at < text_end && *at >= '0' && *at <= '9')
        value = value * 10 + (*at++ - '0');
    return value;
}

static uint64_t product(void)
{
    uint64_t value = factor();
    while (at < text_end && *at == '*') {
        at++;
        value *= factor();
    }
    return value;
}

static uint64_t sum_of(void)
{
    uint64_t value = product();
    while (at < text_end && *at == '+') {
        at++;
        if (at == text_end)
            break;
        value += product();
    }
    return value;
}

static uint64_t parser(void)
{
    static const char text[] = "(12+34)*(5+6*(7+8))+9*(1+2)*3+(((4)))+56*7+(8+9)*(10+11*12)+";
    enum { LEN = sizeof text - 1 };
    uint64_t total = 0;
    for (size_t i = 0; i < LEN * 4000; i++)
        room.bytes[i] = text[i % LEN];
    for (int round = 0; round < 20; round++) {
        at = room.bytes;
        text_end = room.bytes + LEN * 4000;
        while (at < text_end) {
            total = (total << 1 | total >> 63) + sum_of();
            at++;
        }
    }
    return total;
}

/* SHA-256 (FIPS 180-4). */
static uint32_t constants[64];

static uint32_t right(uint32_t value, int by)
{
    return value >> by | value << (32 - by);
}

/* The first 32 bits of the fractional part of the cube root, with integers. */
static uint32_t cube_root_fraction(uint64_t number)
{
    uint64_t root = 0;
    for (int bit = 35; bit >= 0; bit--) {
        unsigned __int128 trial = root | (uint64_t)1 << bit;
        if (trial * trial * trial <= (unsigned __int128)number << 96)
            root = trial;
    }
    return root;
}

static void make_constants(void)
{
    int found = 0;
    for (uint64_t number = 2; found < 64; number++) {
        uint64_t divisor = 2;
        while (divisor * divisor <= number && number % divisor)
            divisor++;
        if (divisor * divisor > number)
            constants[found++] = cube_root_fraction(number);
    }
}

static void block(uint32_t *state, const uint8_t *bytes)
{
    uint32_t w[64], s[8];
    for (int t = 0; t < 16; t++)
        w[t] = (uint32_t)bytes[4 * t] << 24 | bytes[4 * t + 1] << 16 | bytes[4 * t + 2] << 8 | bytes[4 * t + 3];
    for (int t = 16; t < 64; t++) {
        uint32_t a = w[t - 15], b = w[t - 2];
        w[t] = w[t - 16] + (right(a, 7) ^ right(a, 18) ^ a >> 3) + w[t - 7]
             + (right(b, 17) ^ right(b, 19) ^ b >> 10);
    }
    for (int i = 0; i < 8; i++)
        s[i] = state[i];
    for (int t = 0; t < 64; t++) {
        uint32_t e = s[4], a = s[0];
        uint32_t t1 = s[7] + (right(e, 6) ^ right(e, 11) ^ right(e, 25)) + ((e & s[5]) ^ (~e & s[6]))
                    + constants[t] + w[t];
        uint32_t t2 = (right(a, 2) ^ right(a, 13) ^ right(a, 22))
                    + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
        for (int i = 7; i > 0; i--)
            s[i] = s[i - 1];
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        state[i] += s[i];
}

static uint64_t sha256(void)
{
    uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint8_t last[64] = {0x80};
    uint64_t random = 1;
    make_constants();
    for (size_t i = 0; i < HASHED; i++)
        room.bytes[i] = next(&random);
    for (size_t i = 0; i < HASHED; i += 64)
        block(state, room.bytes + i);
    for (int i = 0; i < 8; i++)
        last[56 + i] = (uint64_t)HASHED * 8 >> (56 - 8 * i);
    block(state, last);
    return (uint64_t)state[0] << 32 | state[1];
}

static void run(const char *name, uint64_t (*kernel)(void))
{
    line_of(name, "begins", 0, 0);
    line_of(name, "gives", kernel(), 1);
}

static void run_all(void)
{
    run("sort", sort);
    run("hash", hash);
    run("float", floating);
    run("sieve", sieve);
    run("copy", copy);
    run("parser", parser);
    run("sha256", sha256);
}

#ifdef PROCESS

#include <stdio.h>
#include <time.h>

/* As the others, with nanoseconds of processor time in place of the value. */
static void line_of(const char *name, const char *what, uint64_t value, int has_value)
{
    static uint64_t began;
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    uint64_t ns = now.tv_sec * 1000000000u + now.tv_nsec;
    if (has_value)
        printf("mips: %s gives %016llx in %llu\n", name, (unsigned long long)value,
               (unsigned long long)(ns - began));
    (void)what;
    began = ns;
}

int main(void)
{
    run_all();
}

#else

enum { COM1 = 0x3f8, END = 0xf4, BOOT_INFO = 0x6000, PREEMPTS = 71 };

static void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static void print(const char *text)
{
    while (*text)
        out8(COM1, *text++);
}

static void line_of(const char *name, const char *what, uint64_t value, int has_value)
{
    print("mips: ");
    print(name);
    print(" ");
    print(what);
    if (has_value) {
        print(" ");
        for (int shift = 60; shift >= 0; shift -= 4)
            out8(COM1, "0123456789abcdef"[value >> shift & 15]);
    }
    print("\n");
}

/* Calls from CPL 3 to CPL 0 and back: a GDT with a user's segments, a TSS with a stack, two gates. */
enum { CALLS = 2000000 };
struct __attribute__((packed)) pointer {
    uint16_t limit;
    uint64_t base;
};
static uint64_t gdt[7] = {0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff};
static uint64_t idt[2 * 0x82];
static uint32_t tss[26];
static uint8_t user_stack[4096], call_stack[4096];
void call_stub(void);
void user_calls(void);
void enter_user(uint64_t calls, void *stack);
__asm__(".text\n"
        /* Leaves by INT 0x81 with the count in RAX. */
        "user_calls: xor %eax, %eax\n"
        "1: int $0x80\n"
        "cmp %rdi, %rax\n"
        "jb 1b\n"
        "int $0x81\n"
        "call_stub: inc %rax\n"
        "iretq\n"
        /* RDI calls on the stack RSI; goes on behind itself at INT 0x81. */
        "enter_user: push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "mov %rsp, kept(%rip)\n"
        "push $0x1b; push %rsi; push $2; push $0x23\n"
        "lea user_calls(%rip), %rax\n"
        "push %rax\n"
        "iretq\n"
        "left_user: mov kept(%rip), %rsp\n"
        "mov $0x10, %ecx\n"
        "mov %ecx, %ss\n"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "ret\n"
        ".bss\n"
        ".balign 8\n"
        "kept: .quad 0\n"
        ".text\n");
void left_user(void);

static void gate(int vector, void (*handler)(void))
{
    uint64_t to = (uint64_t)handler;
    idt[2 * vector] = (to & 0xffff) | 8 << 16 | (uint64_t)0xee00 << 32 | (to >> 16 & 0xffff) << 48;
    idt[2 * vector + 1] = to >> 32;
}

static uint64_t made;

static uint64_t calls(void)
{
    uint64_t base = (uint64_t)tss, stack = (uint64_t)(call_stack + sizeof call_stack);
    struct pointer gdtr = {sizeof gdt - 1, (uint64_t)gdt}, idtr = {sizeof idt - 1, (uint64_t)idt};
    tss[1] = stack;
    tss[2] = stack >> 32;
    gdt[5] = (sizeof tss - 1) | (base & 0xffffff) << 16 | (uint64_t)0x89 << 40 | (base >> 24 & 0xff) << 56;
    gdt[6] = base >> 32;
    gate(0x80, call_stub);
    gate(0x81, left_user);
    __asm__ volatile("lgdt %0; lidt %1; ltr %w2" : : "m"(gdtr), "m"(idtr), "r"(0x28));
    __asm__ volatile("call enter_user"
                     : "=a"(made)
                     : "D"((uint64_t)CALLS), "S"(user_stack + sizeof user_stack)
                     : "rcx", "rdx", "r8", "r9", "r10", "r11", "memory");
    return made;
}

void *memset(void *to, int value, size_t len)
{
    for (volatile uint8_t *byte = to; len--; byte++)
        *byte = value;
    return to;
}

/* Not every KVM takes INT from CPL 3; a machine that makes exits by itself does. QEMU has no such word. */
void begin(const uint8_t *info)
{
    run_all();
    if (!info || info[PREEMPTS])
        run("syscalls", calls);
    print("mips: done\n");
    /* QEMU is looked at once more, and then ended. */
    if (info)
        __asm__ volatile("outl %0, %1" : : "a"(0), "Nd"((uint16_t)END));
    for (;;)
        __asm__ volatile("hlt");
}

/* Lockstep enters here, in 64-bit mode. */
__asm__(".globl _start\n"
        "_start: lea stack_end(%rip), %rsp\n"
        "call begin\n"
        ".bss\n"
        ".balign 4096\n"
        ".skip 65536\n"
        "stack_end:\n"
        ".text\n");

/* QEMU enters here, in 32-bit protected mode without paging. It is no code for Lockstep: it lies with the data. */
__asm__(".section .note.pvh, \"a\", @note\n"
        ".long 4, 4, 18\n"
        ".asciz \"Xen\"\n"
        ".long pvh\n"
        ".data\n"
        ".code32\n"
        "pvh: lgdt pvh_pointer\n"
        "mov $0x620, %eax\n"
        "mov %eax, %cr4\n"
        "mov $pvh_pml4, %eax\n"
        "mov %eax, %cr3\n"
        "mov $0xc0000080, %ecx\n"
        "rdmsr\n"
        "or $0x100, %eax\n"
        "wrmsr\n"
        "mov $0x80010033, %eax\n"
        "mov %eax, %cr0\n"
        "ljmp $8, $pvh_long\n"
        ".code64\n"
        "pvh_long: mov $0x10, %eax\n"
        "mov %eax, %ds; mov %eax, %es; mov %eax, %ss\n"
        "xor %edi, %edi\n"
        "jmp _start\n"
        ".balign 8\n"
        "pvh_gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff\n"
        "pvh_pointer: .word 23; .long pvh_gdt\n"
        ".balign 4096\n"
        "pvh_pml4: .quad pvh_pdpt + 7; .skip 4088\n"
        "pvh_pdpt: .quad pvh_pd + 7; .skip 4088\n"
        "pvh_pd: .set entry, 0x87\n"
        ".rept 512\n"
        ".quad entry\n"
        ".set entry, entry + 0x200000\n"
        ".endr\n"
        ".text\n");

#endif
