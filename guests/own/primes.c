/* A guest of a user's own: C, a stock compiler, no runtime and no instrumentation.
 *
 *     cc -O2 -ffreestanding -fno-stack-protector -fno-pie -mno-red-zone -nostdlib -static \
 *        -o primes guests/own/primes.c
 *     lockstep run ./primes
 *
 * It counts primes in loops without an exit, again and again, while a timer interrupts it. From time to time
 * it prints how far it has come, which depends on where every interrupt came.
 */
#include <stdint.h>

enum { COM1 = 0x3f8, PIC = 0x20, PIT = 0x40, END = 0xf4 };
enum { BELOW = 3000, PRIMES = 430 };
enum { TICKS = 500, TICKS_PER_LINE = 25 };
/* 1 ms, in counts of the 8254. */
enum { COUNTS = 1193 };

static void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static void print(const char *text)
{
    while (*text)
        out8(COM1, *text++);
}

static void print_number(uint64_t number)
{
    char digits[21];
    char *at = digits + 20;
    *at = 0;
    do
        *--at = '0' + number % 10;
    while (number /= 10);
    print(at);
}

/* The timer's handler counts, and ends the interrupt at the 8259. */
volatile uint64_t ticks;
void tick(void);
__asm__(".text\n"
        "tick: incq ticks(%rip)\n"
        "push %rax\n"
        "mov $0x20, %al\n"
        "outb %al, $0x20\n"
        "pop %rax\n"
        "iretq\n");

/* The machine enters here with interrupts off and a stack of 4 KiB. */
__asm__(".globl _start\n"
        "_start: call run\n");

/* Interrupt gates (Intel SDM vol. 3, 7.14.1); the machine's GDT has the code segment 8. */
static struct {
    uint16_t low, selector, kind, middle;
    uint32_t high, reserved;
} idt[33];

static void install(void)
{
    uint64_t handler = (uint64_t)tick;
    idt[32].low = handler;
    idt[32].selector = 8;
    idt[32].kind = 0x8e00;
    idt[32].middle = handler >> 16;
    idt[32].high = handler >> 32;
    struct __attribute__((packed)) {
        uint16_t limit;
        uint64_t base;
    } pointer = {sizeof idt - 1, (uint64_t)idt};
    __asm__ volatile("lidt %0" : : "m"(pointer));
    /* The master 8259: vectors from 32, only line 0 heard. */
    out8(PIC, 0x11);
    out8(PIC + 1, 32);
    out8(PIC + 1, 4);
    out8(PIC + 1, 1);
    out8(PIC + 1, 0xfe);
    /* Counter 0 of the 8254: mode 2. */
    out8(PIT + 3, 0x34);
    out8(PIT, COUNTS & 0xff);
    out8(PIT, COUNTS >> 8);
    __asm__ volatile("sti");
}

static uint32_t primes_below(uint32_t limit)
{
    uint32_t count = 0;
    for (uint32_t number = 2; number < limit; number++) {
        uint32_t factor = 2;
        while (factor * factor <= number && number % factor)
            factor++;
        count += factor * factor > number;
    }
    return count;
}

void run(void)
{
    uint64_t rounds = 0, wrong = 0, next = TICKS_PER_LINE;
    install();
    while (ticks < TICKS) {
        wrong += primes_below(BELOW) != PRIMES;
        rounds++;
        if (ticks >= next) {
            next += TICKS_PER_LINE;
            print("primes: tick ");
            print_number(ticks);
            print(", round ");
            print_number(rounds);
            print("\n");
        }
    }
    print(wrong ? "primes: WRONG\n" : "primes: done\n");
    __asm__ volatile("outl %0, %1" : : "a"((uint32_t)(wrong != 0)), "Nd"((uint16_t)END));
    for (;;)
        __asm__ volatile("hlt");
}
