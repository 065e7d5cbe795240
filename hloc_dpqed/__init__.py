"""Small visual-localization maps for hloc: select points, quantize descriptors, localize."""

__version__ = "0.1.0"
