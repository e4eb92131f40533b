"""PyTorch's accelerator: graphs of calls, fused time loops, and loops in C++."""
