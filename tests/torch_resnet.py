"""ResNet for CIFAR in torch, with the keys of its original, beside ours; and small backbones of pictures in both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from conftest import PICTURES
from safetensors.torch import save_file
from torch.nn import functional

RESNET = PICTURES["cifar_resnet"] | {"num_labels": 3, "id2label": {"0": "a", "1": "b", "2": "c"}}
MOBILENET = PICTURES["mobilenet_v2"] | {"num_labels": 3}


class Block(torch.nn.Module):
    def __init__(self, channels: int, out: int, stride: int, eps: float):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(out, eps)
        self.conv2 = torch.nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(out, eps)
        self.more = (out - channels) // 2
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return functional.relu(y + functional.pad(shortcut, (0, 0, 0, 0, self.more, self.more)))


class ResNet(torch.nn.Module):
    """From a config of ours; `stages` is what each stage made of the last pictures."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        eps, channels = config["batch_norm_eps"], config["stage_channels"][0]
        self.conv1 = torch.nn.Conv2d(3, channels, 3, 1, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(channels, eps)
        for stage, out in enumerate(config["stage_channels"], 1):
            blocks = []
            for index in range(config["blocks_per_stage"]):
                blocks.append(Block(channels, out, 2 if stage > 1 and not index else 1, eps))
                channels = out
            setattr(self, f"layer{stage}", torch.nn.Sequential(*blocks))
        self.linear = torch.nn.Linear(channels, config["num_labels"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        self.blocks = []
        for stage in (self.layer1, self.layer2, self.layer3):
            for block in stage:
                x = block(x)
                self.blocks.append(x)
        return self.linear(x.mean((2, 3)))


def shaken(model: Any, seed: int = 0) -> Any:
    """With every weight and statistic random, so that none is at the value at which it does nothing."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.uniform_(-0.3, 0.3)
    return model.eval()


def resnet(directory: Path) -> ResNet:
    """A small one, and its checkpoint in a directory."""
    torch.manual_seed(0)
    model = shaken(ResNet(RESNET))
    (directory / "config.json").write_text(json.dumps(RESNET))
    tensors = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    save_file(tensors, directory / "model.safetensors")
    return model


def mobilenet(directory: Path, **config: Any) -> Any:
    """Hugging Face's, likewise."""
    torch.manual_seed(0)
    model = shaken(transformers.MobileNetV2ForImageClassification(transformers.MobileNetV2Config(**{**MOBILENET, **config})))
    model.save_pretrained(directory)
    return model


def pictures(rows: int = 2, height: int = 18, width: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, height, width, 3), np.float32)
