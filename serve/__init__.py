"""Predicting, and continuing texts, with many adapters resident."""

from .bank import Bank
from .composition import Average, Composition, Parallel, Split, Stack
from .evaluate import evaluate, evaluate_generation, evaluate_language
from .export import export_merged
from .generator import Continuation, Generator
from .predictor import Prediction, Predictor
from .sampling import Sampling

__all__ = [
    "Average",
    "Bank",
    "Composition",
    "Continuation",
    "Generator",
    "Parallel",
    "Prediction",
    "Predictor",
    "Sampling",
    "Split",
    "Stack",
    "evaluate",
    "evaluate_generation",
    "evaluate_language",
    "export_merged",
]
