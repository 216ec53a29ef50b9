"""Reinforcement learning in one process: an adapter samples completions, and is trained on what they are worth (GRPO)."""

from typing import TYPE_CHECKING

from ...lazy import lazily

if TYPE_CHECKING:
    from .grpo_result import GrpoResult
    from .grpo_run import grpo
    from .grpo_settings import GrpoSettings

__all__ = ["GrpoResult", "GrpoSettings", "grpo"]

__getattr__, __dir__ = lazily(__name__, {".grpo_result": "GrpoResult", ".grpo_run": "grpo", ".grpo_settings": "GrpoSettings"})
