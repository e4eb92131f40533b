"""Networks of integers: kernels of few bits, inference in integers alone, and programs for devices."""
