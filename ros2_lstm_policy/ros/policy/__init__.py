"""The policy node: what it hears, decides and sends."""
