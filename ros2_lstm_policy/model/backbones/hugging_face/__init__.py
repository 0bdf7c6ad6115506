"""Backbones on the models of transformers: one base, one module a family."""
