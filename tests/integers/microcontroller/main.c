/* Classifies an image on a bare Cortex-M, and prints its logits and the ticks of the clock that they took. */

#include "net.c"
#include "image.h"

extern uint32_t stack_top, data_from, data_begin, data_end, bss_begin, bss_end;

static void ask_host(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static void print(int32_t number)
{
    char text[16], *at = text + 15;
    uint32_t rest = number < 0 ? 0u - (uint32_t)number : (uint32_t)number;
    *at = 0;
    *--at = '\n';
    do *--at = (char)('0' + rest % 10); while (rest /= 10);
    if (number < 0) *--at = '-';
    ask_host(0x04, at); /* SYS_WRITE0 */
}

void *memset(void *to, int value, size_t size)
{
    volatile uint8_t *byte = to;
    while (size--) *byte++ = (uint8_t)value;
    return to;
}

void start(void);

void start(void)
{
    volatile uint32_t *clock = (uint32_t *)0xE000E010;
    static int32_t logits[NET_CLASSES];
    uint32_t *from = &data_from, *to, ticks;
    int c;
    for (to = &data_begin; to < &data_end;) *to++ = *from++;
    for (to = &bss_begin; to < &bss_end;) *to++ = 0;
    clock[1] = 0xFFFFFF; /* counts down from here */
    clock[2] = 0;
    clock[0] = 5;
    net_classify(image, logits);
    ticks = 0xFFFFFF - clock[2];
    for (c = 0; c < NET_CLASSES; c++) print(logits[c]);
    print((int32_t)ticks);
    ask_host(0x18, (void *)0x20026); /* SYS_EXIT */
}

__attribute__((section(".vectors"), used)) static const void *const vectors[] = {&stack_top, (const void *)start};
