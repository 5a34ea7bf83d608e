"""Latent score models (Vahdat et al. 2021); see configs/base.py for all fields, docs/latent.md."""
