"""Predicting, and continuing texts, with many adapters resident."""

from .bank import Bank
from .composition import Average, Composition, Parallel, Split, Stack
from .confusion import Confusion
from .evaluate import Measured, evaluate, evaluate_generation, evaluate_language, measure
from .export import export_merged
from .generator import Continuation, Generator
from .predictor import Prediction, Predictor
from .sampling import Sampling

__all__ = [
    "Average",
    "Bank",
    "Composition",
    "Confusion",
    "Continuation",
    "Generator",
    "Measured",
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
    "measure",
]
