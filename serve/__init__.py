"""Predicting, and continuing texts, with many adapters resident."""

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .bank import Bank
    from .composition import Average, Composition, Parallel, Split, Stack
    from .confusion import Confusion
    from .continuation import Continuation
    from .evaluation import Measured, evaluate, evaluate_generation, evaluate_language, measure
    from .explaining.explainer import explain
    from .explaining.explanation import Explanation
    from .explaining.explanations import Explanations
    from .export import export_merged
    from .few_pictures import clip_adapter, tip_adapter
    from .generator import Generator
    from .named_classes import zero_shot
    from .other_tower import across
    from .predictor import Prediction, Predictor
    from .report.evaluation_report import Report
    from .report.reporter import report_on
    from .sampling import Sampling

__all__ = [
    "Average",
    "Bank",
    "Composition",
    "Confusion",
    "Continuation",
    "Explanation",
    "Explanations",
    "Generator",
    "Measured",
    "Parallel",
    "Prediction",
    "Predictor",
    "Report",
    "Sampling",
    "Split",
    "Stack",
    "across",
    "clip_adapter",
    "evaluate",
    "evaluate_generation",
    "evaluate_language",
    "explain",
    "export_merged",
    "measure",
    "report_on",
    "tip_adapter",
    "zero_shot",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        ".other_tower": "across",
        ".bank": "Bank",
        ".composition": "Average Composition Parallel Split Stack",
        ".confusion": "Confusion",
        ".evaluation": "Measured evaluate evaluate_generation evaluate_language measure",
        ".explaining.explainer": "explain",
        ".explaining.explanation": "Explanation",
        ".explaining.explanations": "Explanations",
        ".export": "export_merged",
        ".generator": "Generator",
        ".predictor": "Prediction Predictor",
        ".report.evaluation_report": "Report",
        ".report.reporter": "report_on",
        ".sampling": "Sampling",
        ".continuation": "Continuation",
        ".named_classes": "zero_shot",
        ".few_pictures": "clip_adapter tip_adapter",
    },
)
