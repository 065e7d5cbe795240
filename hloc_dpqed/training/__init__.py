"""Losses, gradient estimators and batches that fit a differentiable codec."""
