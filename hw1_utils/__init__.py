"""hw1: a small CNN from scratch, or a linear head on a frozen, pretrained ViT? See README.md."""

__version__ = "0.1.0"
