"""Tasks on pictures."""

from __future__ import annotations

from ..adapters.task_words import words_for
from .labelled import Classify


class ImageClassify(Classify):
    """One label per picture: softmax cross-entropy."""

    name = "image-classify"
    about = "image"
    words = words_for(name)
