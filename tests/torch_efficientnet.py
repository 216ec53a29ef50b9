"""EfficientNet in torch, with the keys of efficientnet_pytorch and of timm, beside ours."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

#: Names of the modules of a block that widens, and of one that does not, in the order in which they are used.
PYTORCH = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
TIMM = (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))
TIMM_BARE = (("", ""), ("conv_dw", "bn1"), ("conv_pw", "bn2"))


class Conv(torch.nn.Conv2d):
    """Padded as TensorFlow does, or alike on both sides."""

    def __init__(self, *args: Any, tensorflow: bool, **options: Any):
        super().__init__(*args, **options)
        self.tensorflow = tensorflow

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sides = []
        for side, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            whole = max((-(-side // stride) - 1) * stride + kernel - side, 0) if self.tensorflow else kernel // 2 * 2
            sides += [whole // 2, whole - whole // 2]
        return super().forward(functional.pad(x, sides))


class Block(torch.nn.Module):
    """Its modules are called as the names say; `squeezes` are those of squeeze and excitation."""

    def __init__(self, six: tuple[int, ...], names: Any, squeezes: tuple[str, str], act: Any, tensorflow: bool, eps: float):
        super().__init__()
        _, kernel, stride, expand, inputs, out = six
        wide = inputs * expand
        shapes = ((inputs, wide, 1), (wide, wide, kernel, stride), (wide, out, 1))
        self.steps = names if expand != 1 else names[1:]
        self.act, self.residual, self.squeezes = act, stride == 1 and inputs == out, squeezes
        for (conv, norm), shape in zip(names, shapes, strict=True):
            if (conv, norm) in self.steps:
                groups = wide if len(shape) == 4 else 1
                setattr(self, conv, Conv(*shape, groups=groups, bias=False, tensorflow=tensorflow))
                setattr(self, norm, torch.nn.BatchNorm2d(shape[1], eps))
        if squeezes[0]:
            few = max(1, inputs // 4)
            *holder, squeeze = squeezes[0].split(".")
            gate: Any = self
            if holder:
                self.add_module(holder[0], torch.nn.Module())
                gate = self.get_submodule(holder[0])
            setattr(gate, squeeze, torch.nn.Conv2d(wide, few, 1))
            setattr(gate, squeezes[1].rpartition(".")[2], torch.nn.Conv2d(few, wide, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for conv, norm in self.steps[:-1]:
            y = self.act(getattr(self, norm)(getattr(self, conv)(y)))
        if self.squeezes[0]:
            squeeze, excite = map(self.get_submodule, self.squeezes)
            y = y * torch.sigmoid(excite(self.act(squeeze(y.mean((2, 3), keepdim=True)))))
        conv, norm = self.steps[-1]
        y = getattr(self, norm)(getattr(self, conv)(y))
        return x + y if self.residual else y


class EfficientNet(torch.nn.Module):
    """Of these groups: repeats, kernel, stride, expansion, channels in and out."""

    def __init__(self, groups: Any, head: int, *, timm: bool, lite: bool, tensorflow: bool, eps: float, labels: int):
        super().__init__()
        self.act = functional.relu6 if lite else functional.silu
        stem, last, squeezes = ("_conv_stem", "_bn0"), ("_conv_head", "_bn1"), ("_se_reduce", "_se_expand")
        if timm:
            stem, last, squeezes = ("conv_stem", "bn1"), ("conv_head", "bn2"), ("se.conv_reduce", "se.conv_expand")
        self.stem, self.last, squeezes = stem, last, ("", "") if lite else squeezes
        setattr(self, stem[0], Conv(3, groups[0][4], 3, 2, bias=False, tensorflow=tensorflow))
        setattr(self, stem[1], torch.nn.BatchNorm2d(groups[0][4], eps))
        stages = []
        for repeats, kernel, stride, expand, inputs, out in groups:
            names = PYTORCH if not timm else TIMM if expand != 1 else TIMM_BARE
            sixes = [(1, kernel, 1 if i else stride, expand, out if i else inputs, out) for i in range(repeats)]
            stages.append([Block(six, names, squeezes, self.act, tensorflow, eps) for six in sixes])
        self.every = [block for stage in stages for block in stage]
        if timm:
            self.blocks = torch.nn.Sequential(*(torch.nn.Sequential(*stage) for stage in stages))
        else:
            self._blocks = torch.nn.Sequential(*self.every)
        setattr(self, last[0], torch.nn.Conv2d(groups[-1][5], head, 1, bias=False))
        setattr(self, last[1], torch.nn.BatchNorm2d(head, eps))
        setattr(self, "classifier" if timm else "_fc", torch.nn.Linear(head, labels))

    @torch.no_grad()
    def seen(self, x: torch.Tensor) -> list[torch.Tensor]:
        """What leaves each block, and the last convolution."""
        x = self.act(getattr(self, self.stem[1])(getattr(self, self.stem[0])(x)))
        found = []
        for block in self.every:
            x = block(x)
            found.append(x)
        return [*found, self.act(getattr(self, self.last[1])(getattr(self, self.last[0])(x)))]
