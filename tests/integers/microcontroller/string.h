/* What the program needs of this header, for compilers without a C library. */
#include <stddef.h>
void *memset(void *to, int value, size_t size);
