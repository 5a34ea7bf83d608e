"""Preconditioned networks (Karras et al. 2022)."""
