"""GPU kernels in Triton, one file an operation, and `compilation`, which checks them without a GPU."""
