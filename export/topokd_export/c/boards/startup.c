/* From reset to the program, on any Arm core without an operating system. No interrupt is used. */
#include <stdint.h>

/* Of the linker script. Arrays: a compiler may take two variables for never being at the same place. */
extern uint32_t _stack_top[];
extern uint32_t _data_load[];
extern uint32_t _data_start[];
extern uint32_t _data_end[];
extern uint32_t _bss_start[];
extern uint32_t _bss_end[];

void start(void);
void boot(void);
void bench(void);

static void stuck(void)
{
    for (;;) {
    }
}

void boot(void)
{
    uintptr_t to;
    uintptr_t from = (uintptr_t)_data_load;
    for (to = (uintptr_t)_data_start; to < (uintptr_t)_data_end; to += 4U) {
        *(volatile uint32_t *)to = *(const volatile uint32_t *)from;
        from += 4U;
    }
    for (to = (uintptr_t)_bss_start; to < (uintptr_t)_bss_end; to += 4U) {
        *(volatile uint32_t *)to = 0U;
    }
    bench();
}

/* Code for a floating-point unit needs it on (CPACR: ARMv7-M Architecture Reference Manual, B3.2.20). */
#ifdef __ARM_FP
#define FPU_ON                  \
    "ldr r0, =0xE000ED88\n\t"   \
    "ldr r1, [r0]\n\t"          \
    "orr r1, r1, #0xF00000\n\t" \
    "str r1, [r0]\n\t"          \
    "dsb\n\t"                   \
    "isb\n\t"
#else
#define FPU_ON ""
#endif

/* Also the very first code of an image in RAM, where nobody has set the stack. */
__attribute__((__naked__, __section__(".first"), __used__)) void start(void)
{
    __asm__ volatile("ldr r0, =_stack_top\n\t"
                     "mov sp, r0\n\t" FPU_ON
                     "ldr r0, =boot\n\t"
                     "bx r0\n\t"
                     ".ltorg\n\t");
}

/* Stack, reset and the 14 faults and system calls of the core. */
__attribute__((__section__(".vectors"), __used__)) void (*const vectors[16])(void) = {
    (void (*)(void))_stack_top, start, stuck, stuck, stuck, stuck, stuck, stuck,
    stuck, stuck, stuck, stuck, stuck, stuck, stuck, stuck};
