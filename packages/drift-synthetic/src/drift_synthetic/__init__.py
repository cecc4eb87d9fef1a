"""Checkerboard and swiss roll on the plane, the sphere and the hyperboloid."""
