"""Solvers of the reverse-time SDE and its probability-flow ODE, one subject a file.

A solver is a frozen value. It gets a `Process`, and knows of no network, config or file.
"""
