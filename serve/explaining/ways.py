"""The ways to explain there are, by name, and which one fits a backbone best."""

from __future__ import annotations

from ...errors import GraftaxError
from ...models.backbone import Backbone
from .attribution import Way
from .grad_cam import GradCAM
from .integrated_gradients import IntegratedGradients
from .picture_tokens import has_tokens
from .rollout import Rollout

NAMES = (IntegratedGradients.name, Rollout.name, GradCAM.name)


def way_for(backbone: Backbone, name: str | None, steps: int) -> Way:
    """The one of that name, or for None the usual one: of texts integrated gradients, of patches rollout, of maps Grad-CAM.

    Raises GraftaxError: there is none of that name, or it does not fit the backbone.
    """
    if name is None:
        of_pictures = Rollout.name if has_tokens(backbone) else GradCAM.name
        name = of_pictures if backbone.family.processor.kind == "image" else IntegratedGradients.name
    if name not in NAMES:
        raise GraftaxError(f"unknown way to explain {name!r}; there are {', '.join(NAMES)}.")
    ways: dict[str, Way] = {
        IntegratedGradients.name: IntegratedGradients(steps),
        Rollout.name: Rollout(),
        GradCAM.name: GradCAM(),
    }
    if (why := ways[name].unfit(backbone)) is not None:
        raise GraftaxError(f"{name} {why} ({backbone.name}).")
    return ways[name]
