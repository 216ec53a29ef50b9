"""A CLIP in torch with the modules and names that open_clip's has, and its folder as open_clip saves it to the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from reference import stirred
from safetensors.torch import save_file
from tiny import tokenizer_json
from torch import nn

VECTOR, SIDE, PATCH, LENGTH, VOCABULARY = 20, 16, 4, 12, 160
#: As `open_clip_config.json` has it.
MODEL: dict[str, Any] = {
    "embed_dim": VECTOR,
    "vision_cfg": {"image_size": SIDE, "patch_size": PATCH, "layers": 3, "width": 32, "head_width": 8, "mlp_ratio": 1.5},
    "text_cfg": {"context_length": LENGTH, "vocab_size": VOCABULARY, "layers": 2, "width": 24, "heads": 4},
}


class QuickGELU(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


class Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma


class Block(nn.Module):
    def __init__(self, width: int, heads: int, ratio: float, activation: type[nn.Module], scaled: bool) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential()
        self.mlp.c_fc, self.mlp.gelu = nn.Linear(width, int(width * ratio)), activation()
        self.mlp.c_proj = nn.Linear(int(width * ratio), width)
        self.ls_1, self.ls_2 = (Scale(width) if scaled else nn.Identity() for _ in range(2))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        y = self.ln_1(x)
        x = x + self.ls_1(self.attn(y, y, y, need_weights=False, attn_mask=mask)[0])
        return x + self.ls_2(self.mlp(self.ln_2(x)))


class Layers(nn.Module):
    def __init__(self, count: int, **kind: Any) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(**kind) for _ in range(count))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> list[torch.Tensor]:
        """What enters each layer, and what leaves the last."""
        states = [x]
        for block in self.resblocks:
            states.append(block(states[-1], mask))
        return states


class Visual(nn.Module):
    def __init__(self, said: dict[str, Any], **kind: Any) -> None:
        super().__init__()
        width, patches = said["width"], (SIDE // PATCH) ** 2
        self.conv1 = nn.Conv2d(3, width, PATCH, PATCH, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn(patches + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        heads = width // said["head_width"]
        self.transformer = Layers(said["layers"], width=width, heads=heads, ratio=said["mlp_ratio"], **kind)
        self.proj = nn.Parameter(torch.randn(width, VECTOR) / 6)

    def forward(self, pixels: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        states = self.transformer(self.ln_pre(x))
        return states, self.ln_post(states[-1][:, 0]) @ self.proj


class OpenCLIP(nn.Module):
    def __init__(self, said: dict[str, Any]) -> None:
        super().__init__()
        vision, text = said["vision_cfg"], said["text_cfg"]
        activation = QuickGELU if said.get("quick_gelu") else nn.GELU
        self.visual = Visual(vision, activation=activation, scaled="ls_init_value" in vision)
        width = text["width"]
        self.token_embedding = nn.Embedding(VOCABULARY, width)
        self.positional_embedding = nn.Parameter(torch.randn(LENGTH, width))
        kind = {"activation": activation, "scaled": "ls_init_value" in text}
        self.transformer = Layers(text["layers"], width=width, heads=text["heads"], ratio=4.0, **kind)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, VECTOR) / 5)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))

    def of_texts(self, ids: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """What enters and leaves the layers, and the vector: that of the largest id, which ends a text."""
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        mask = torch.full((ids.shape[1],) * 2, float("-inf")).triu(1)
        states = self.transformer(x, mask)
        last = self.ln_final(states[-1])
        return states, last[torch.arange(len(ids)), ids.argmax(1)] @ self.text_projection


def said_of(quick: bool = False, scaled: bool = False) -> dict[str, Any]:
    more = {"ls_init_value": 0.1} if scaled else {}
    towers = {name: {**MODEL[name], **more} for name in ("vision_cfg", "text_cfg")}
    return {**MODEL, **towers, **({"quick_gelu": True} if quick else {})}


def open_clip(directory: Path, **kind: bool) -> OpenCLIP:
    """A random one, no weight of which is at the value at which it does nothing, and its folder."""
    torch.manual_seed(0)
    model = stirred(OpenCLIP(said_of(**kind)), 0.05)
    directory.mkdir(parents=True, exist_ok=True)
    preprocessing = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bicubic", "resize_mode": "shortest"}
    whole = {"model_cfg": said_of(**kind), "preprocess_cfg": preprocessing}
    (directory / "open_clip_config.json").write_text(json.dumps(whole))
    (directory / "tokenizer.json").write_text(tokenizer_json())
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    tensors = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    save_file(tensors, directory / "open_clip_model.safetensors")
    return model
