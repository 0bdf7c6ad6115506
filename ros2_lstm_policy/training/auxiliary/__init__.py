"""Auxiliary losses: forward prediction, latent, language; no checkpoint holds their weights."""
