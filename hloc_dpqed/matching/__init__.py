"""Descriptors in, matches out. Matcher names are those of hloc's ``match_features.confs``."""
