"""GPU kernels in Triton, one file an operation. None has landed yet: on GPUs the operations run on their torch backend."""
