/* Prints the logits of images, and how many instructions each took: on the board mps2-an386, emulated with `-icount shift=10`. */

#include <stdio.h>
#include "digits.c"

int main(void)
{
    static uint8_t image[DIGITS_INPUT_SIZE];
    int32_t logits[DIGITS_CLASSES];
    volatile uint32_t *timer = (volatile uint32_t *)0x40000000; /* [0] starts it, [1] is its value, which counts down from [2] */
    timer[1] = timer[2] = UINT32_MAX;
    timer[0] = 1;
    while (fread(image, 1, sizeof image, stdin) == sizeof image) {
        uint32_t ticks = timer[1];
        int c;
        digits_classify(image, logits);
        ticks -= timer[1];
        for (c = 0; c < DIGITS_CLASSES; c++) printf("%ld ", (long)logits[c]);
        /* A tick takes 40 ns, an instruction 2^10 ns. */
        printf("%lu\n", (unsigned long)(((uint64_t)ticks * 5 + 64) / 128));
    }
    return 0;
}
