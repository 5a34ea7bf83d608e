"""Latent score models of digits at the size of a laptop; docs/latent.md has what they come to."""
