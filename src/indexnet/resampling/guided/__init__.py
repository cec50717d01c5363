"""Operators whose upsampling is guided by the encoder map itself or by kernels made of it."""
