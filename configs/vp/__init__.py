"""Experiments with this SDE; see configs/base.py for all fields."""
