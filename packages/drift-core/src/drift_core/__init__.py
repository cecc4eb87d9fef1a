"""Kernels, manifolds and the kernel-gradient drift field."""
