"""Predicting with many adapters resident."""

from .bank import Bank
from .evaluate import evaluate
from .export import export_merged
from .predictor import Prediction, Predictor

__all__ = ["Bank", "Prediction", "Predictor", "evaluate", "export_merged"]
