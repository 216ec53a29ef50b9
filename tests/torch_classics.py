"""VGG, Inception v3 and MobileNetV3 in torch, with the keys of timm and torchvision, beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class VGG(nn.Module):
    """With timm's keys."""

    def __init__(self, stages: Sequence[Sequence[int]], hidden: int, *, normed: bool, labels: int):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for stage in stages:
            for out in stage:
                norm = [nn.BatchNorm2d(out)] if normed else []
                layers += [nn.Conv2d(channels, out, 3, padding=1), *norm, nn.ReLU()]
                channels = out
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.pre_logits = nn.Module()
        self.pre_logits.fc1 = nn.Conv2d(channels, hidden, 7)
        self.pre_logits.fc2 = nn.Conv2d(hidden, hidden, 1)
        self.head = nn.Module()
        self.head.fc = nn.Linear(hidden, labels)

    @torch.no_grad()
    def seen(self, x: torch.Tensor) -> list[torch.Tensor]:
        """What leaves each convolution's activation."""
        found = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                found.append(x)
        if min(x.shape[2:]) < 7:
            x = functional.adaptive_avg_pool2d(x, (max(7, x.shape[2]), max(7, x.shape[3])))
        for layer in (self.pre_logits.fc1, self.pre_logits.fc2):
            x = torch.relu(layer(x))
            found.append(x)
        return found


class Basic(nn.Module):
    def __init__(self, inputs: int, out: int, **options: Any):
        super().__init__()
        self.conv = nn.Conv2d(inputs, out, bias=False, **options)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.bn(self.conv(x)))


class Branches(nn.Module):
    """One block. Convolutions by name: output channels, kernel, stride; what each branch is, in words of these names.

    A branch is names one behind another; a tuple of two stands for both side by side, "mean" and "max" for pooling.
    """

    def __init__(self, inputs: int, convolutions: dict[str, Any], branches: Sequence[Sequence[Any]]):
        super().__init__()
        self.branches, self.out = branches, 0
        for branch in branches:
            channels = inputs
            for step in branch:
                for name in (step,) if isinstance(step, str) else step:
                    if name in convolutions:
                        out, kernel, stride = convolutions[name]
                        padding = (0, 0) if stride > 1 else (kernel[0] // 2, kernel[1] // 2)
                        setattr(self, name, Basic(channels, out, kernel_size=kernel, stride=stride, padding=padding))
                channels = channels if step in ("mean", "max") else convolutions[step if isinstance(step, str) else step[0]][0]
            self.out += channels * (1 if isinstance(branch[-1], str) else 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = []
        for branch in self.branches:
            y = x
            for step in branch:
                if step == "mean":
                    y = functional.avg_pool2d(y, 3, 1, 1)
                elif step == "max":
                    y = functional.max_pool2d(y, 3, 2)
                elif isinstance(step, str):
                    y = getattr(self, step)(y)
                else:
                    y = torch.cat([getattr(self, name)(y) for name in step], 1)
            found.append(y)
        return torch.cat(found, 1)


class Inception(nn.Module):
    """Of so many times the channels."""

    def __init__(self, by: float, labels: int):
        super().__init__()

        def n(channels: int) -> int:
            return max(int(channels * by), 1)

        point, three, five, across, down = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)

        def a(inputs: int, pooled: int) -> Branches:
            named = {"branch1x1": (n(64), point, 1), "branch5x5_1": (n(48), point, 1), "branch5x5_2": (n(64), five, 1)}
            named |= {"branch3x3dbl_1": (n(64), point, 1), "branch3x3dbl_2": (n(96), three, 1)}
            named |= {"branch3x3dbl_3": (n(96), three, 1), "branch_pool": (n(pooled), point, 1)}
            double = ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"]
            return Branches(inputs, named, [["branch1x1"], ["branch5x5_1", "branch5x5_2"], double, ["mean", "branch_pool"]])

        def b(inputs: int) -> Branches:
            named = {"branch3x3": (n(384), three, 2), "branch3x3dbl_1": (n(64), point, 1)}
            named |= {"branch3x3dbl_2": (n(96), three, 1), "branch3x3dbl_3": (n(96), three, 2)}
            return Branches(inputs, named, [["branch3x3"], ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"], ["max"]])

        def c(inputs: int, few: int) -> Branches:
            named = {"branch1x1": (n(192), point, 1), "branch_pool": (n(192), point, 1)}
            single = {"branch7x7_1": (n(few), point, 1), "branch7x7_2": (n(few), across, 1), "branch7x7_3": (n(192), down, 1)}
            double = {"branch7x7dbl_1": (n(few), point, 1), "branch7x7dbl_2": (n(few), down, 1)}
            double |= {"branch7x7dbl_3": (n(few), across, 1), "branch7x7dbl_4": (n(few), down, 1)}
            double |= {"branch7x7dbl_5": (n(192), across, 1)}
            branches = [["branch1x1"], [*single], [*double], ["mean", "branch_pool"]]
            return Branches(inputs, named | single | double, branches)

        def d(inputs: int) -> Branches:
            short = {"branch3x3_1": (n(192), point, 1), "branch3x3_2": (n(320), three, 2)}
            long = {"branch7x7x3_1": (n(192), point, 1), "branch7x7x3_2": (n(192), across, 1)}
            long |= {"branch7x7x3_3": (n(192), down, 1), "branch7x7x3_4": (n(192), three, 2)}
            return Branches(inputs, short | long, [[*short], [*long], ["max"]])

        def e(inputs: int) -> Branches:
            named = {"branch1x1": (n(320), point, 1), "branch_pool": (n(192), point, 1), "branch3x3_1": (n(384), point, 1)}
            named |= {"branch3x3_2a": (n(384), (1, 3), 1), "branch3x3_2b": (n(384), (3, 1), 1)}
            named |= {"branch3x3dbl_1": (n(448), point, 1), "branch3x3dbl_2": (n(384), three, 1)}
            named |= {"branch3x3dbl_3a": (n(384), (1, 3), 1), "branch3x3dbl_3b": (n(384), (3, 1), 1)}
            single = ["branch3x3_1", ("branch3x3_2a", "branch3x3_2b")]
            double = ["branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")]
            return Branches(inputs, named, [["branch1x1"], single, double, ["mean", "branch_pool"]])

        self.Conv2d_1a_3x3 = Basic(3, n(32), kernel_size=3, stride=2)
        self.Conv2d_2a_3x3 = Basic(n(32), n(32), kernel_size=3)
        self.Conv2d_2b_3x3 = Basic(n(32), n(64), kernel_size=3, padding=1)
        self.Conv2d_3b_1x1 = Basic(n(64), n(80), kernel_size=1)
        self.Conv2d_4a_3x3 = Basic(n(80), n(192), kernel_size=3)
        channels = n(192)
        self.mixed = []
        for name, kind, more in (
            *(("5b", a, (32,)), ("5c", a, (64,)), ("5d", a, (64,)), ("6a", b, ()), ("6b", c, (128,)), ("6c", c, (160,))),
            *(("6d", c, (160,)), ("6e", c, (192,)), ("7a", d, ()), ("7b", e, ()), ("7c", e, ())),
        ):
            block = kind(channels, *more)
            setattr(self, f"Mixed_{name}", block)
            self.mixed.append(block)
            channels = block.out
        self.fc = nn.Linear(channels, labels)

    @torch.no_grad()
    def seen(self, x: torch.Tensor) -> list[torch.Tensor]:
        """What leaves each block behind the first convolution."""
        found = [self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))]
        found.append(self.Conv2d_2b_3x3(found[-1]))
        found.append(self.Conv2d_3b_1x1(functional.max_pool2d(found[-1], 3, 2)))
        found.append(self.Conv2d_4a_3x3(found[-1]))
        x = functional.max_pool2d(found[-1], 3, 2)
        for block in self.mixed:
            x = block(x)
            found.append(x)
        return found


class Squeeze(nn.Module):
    def __init__(self, wide: int, few: int, names: tuple[str, str]):
        super().__init__()
        self.names = names
        setattr(self, names[0], nn.Conv2d(wide, few, 1))
        setattr(self, names[1], nn.Conv2d(few, wide, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        reduce, expand = (getattr(self, name) for name in self.names)
        return x * functional.hardsigmoid(expand(torch.relu(reduce(x.mean((2, 3), keepdim=True)))))


def _normed(inputs: int, out: int, kernel: int, act: Any, eps: float, **options: Any) -> nn.Sequential:
    conv = nn.Conv2d(inputs, out, kernel, padding=kernel // 2, bias=False, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(out, eps), *([act()] if act else []))


class Inverted(nn.Module):
    """torchvision's block, from six numbers; `few`: channels between squeeze and excitation."""

    def __init__(self, channels: int, six: Sequence[int], few: int, eps: float):
        super().__init__()
        kernel, wide, out, squeezes, swish, stride = six
        act = nn.Hardswish if swish else nn.ReLU
        layers = [_normed(channels, wide, 1, act, eps)] if wide != channels else []
        layers.append(_normed(wide, wide, kernel, act, eps, stride=stride, groups=wide))
        if squeezes:
            layers.append(Squeeze(wide, few, ("fc1", "fc2")))
        self.block = nn.Sequential(*layers, _normed(wide, out, 1, None, eps))
        self.residual = stride == 1 and channels == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.block(x) if self.residual else self.block(x)


class MobileNetV3(nn.Module):
    """With torchvision's keys."""

    def __init__(
        self, blocks: Sequence[Sequence[int]], stem: int, last: int, head: int, few: dict[int, int], eps: float, labels: int
    ):
        super().__init__()
        layers: list[nn.Module] = [_normed(3, stem, 3, nn.Hardswish, eps, stride=2)]
        channels = stem
        for six in blocks:
            layers.append(Inverted(channels, six, few.get(six[1], 0), eps))
            channels = six[2]
        self.features = nn.Sequential(*layers, _normed(channels, last, 1, nn.Hardswish, eps))
        self.classifier = nn.Sequential(nn.Linear(last, head), nn.Hardswish(), nn.Dropout(), nn.Linear(head, labels))

    @torch.no_grad()
    def seen(self, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """What leaves each block and the last convolution, and what heads read."""
        found = []
        for layer in self.features:
            x = layer(x)
            found.append(x)
        return found[1:], self.classifier[1](self.classifier[0](x.mean((2, 3))))
