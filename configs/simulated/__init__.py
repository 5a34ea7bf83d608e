"""SDEs without a Gaussian kernel; see configs/base.py for all fields, and docs/energies.md."""
