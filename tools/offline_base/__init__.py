"""The offline base: a small text-to-image model in the layout of Stable Diffusion 1.4, trained on drawn pictures."""
