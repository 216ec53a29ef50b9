"""Predicting with many adapters resident."""

from .bank import Bank
from .composition import Average, Composition, Parallel, Split, Stack
from .evaluate import evaluate
from .export import export_merged
from .predictor import Prediction, Predictor

__all__ = [
    "Average",
    "Bank",
    "Composition",
    "Parallel",
    "Prediction",
    "Predictor",
    "Split",
    "Stack",
    "evaluate",
    "export_merged",
]
