"""Solvers of the reverse-time SDE and its probability-flow ODE, one subject a file.

Every one of them is a pure function of keys, a score function and a shape, and runs under `jit`.
"""
