"""The in-memory localizer: a compressed map and a query's features in, a pose out."""

from .localizer import Correspondences, Localization, Localizer

__all__ = ["Correspondences", "Localization", "Localizer"]
