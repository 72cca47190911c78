"""Compiled kernels for the CPU. They know tensors and whole numbers, no modules and no files."""
