"""Differential equations (Bullwinkel et al. 2022); all fields: configs/base.py, docs/deqgan.md."""
