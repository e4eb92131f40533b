/* What runs before `main` on a Cortex-M. Input and output are those of the emulator or the debugger (semihosting). */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

extern uint8_t stack_top, data_begin, data_end, data_in_flash, bss_begin, bss_end;
void initialise_monitor_handles(void);
int main(void);
void start(void);

void start(void)
{
    memcpy(&data_begin, &data_in_flash, (size_t)(&data_end - &data_begin));
    memset(&bss_begin, 0, (size_t)(&bss_end - &bss_begin));
    initialise_monitor_handles();
    exit(main());
}

/* The first two words of the flash. */
__attribute__((section(".vectors"), used)) static const void *const vectors[] = {&stack_top, (const void *)start};
