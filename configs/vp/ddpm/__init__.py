"""DDPM (Ho et al. 2020)."""
