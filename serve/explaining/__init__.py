"""Explanations: what in an input made a model with an adapter answer as it did, and what the adapter changed."""
