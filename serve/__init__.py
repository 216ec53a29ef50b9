"""Predicting with many adapters resident."""

from .bank import Bank
from .predictor import Prediction, Predictor

__all__ = ["Bank", "Prediction", "Predictor"]
