"""NCSNv2 (Song & Ermon 2020)."""
