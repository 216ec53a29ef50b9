"""Predicting, and continuing texts, with many adapters resident."""

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .bank import Bank
    from .composition import Average, Composition, Parallel, Split, Stack
    from .confusion import Confusion
    from .evaluation import Measured, evaluate, evaluate_generation, evaluate_language, measure
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

__getattr__, __dir__ = lazily(
    __name__,
    {
        ".bank": "Bank",
        ".composition": "Average Composition Parallel Split Stack",
        ".confusion": "Confusion",
        ".evaluation": "Measured evaluate evaluate_generation evaluate_language measure",
        ".export": "export_merged",
        ".generator": "Continuation Generator",
        ".predictor": "Prediction Predictor",
        ".sampling": "Sampling",
    },
)
