"""The compact backbone (EfficientNet-Lite, MiniLM, a fusion transformer) and its acting forms."""
