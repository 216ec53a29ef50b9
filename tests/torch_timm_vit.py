"""A Transformer of patches in torch, with the modules and names that timm's has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

D, HEADS, LAYERS = 32, 4, 2
#: As timm's folders have it, of an architecture whose sizes the file says otherwise.
CONFIG: dict[str, Any] = {"architecture": "vit_tiny_patch16_224", "num_classes": 3, "global_pool": "token"}
CONFIG |= {"embed_dim": D, "num_heads": HEADS, "depth": LAYERS, "img_size": 16, "patch_size": 4, "mlp_ratio": 1.5}


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(D, 3 * D), nn.Linear(D, D)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(rows, tokens, 3, HEADS, D // HEADS).permute(2, 0, 3, 1, 4)
        return self.proj(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(rows, tokens, D))


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(D))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma


class Block(nn.Module):
    def __init__(self, scaled: bool) -> None:
        super().__init__()
        self.norm1, self.norm2, self.attn = nn.LayerNorm(D, 1e-6), nn.LayerNorm(D, 1e-6), Attention()
        wide = int(CONFIG["mlp_ratio"] * D)
        self.mlp = nn.Sequential()
        self.mlp.fc1, self.mlp.act, self.mlp.fc2 = nn.Linear(D, wide), nn.GELU(), nn.Linear(wide, D)
        self.ls1, self.ls2 = (Scale() if scaled else nn.Identity() for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    """`blocks` keep what each made last. With registers patches alone have positions."""

    def __init__(self, scaled: bool = False, registers: int = 0) -> None:
        super().__init__()
        self.patch_embed = nn.Sequential()
        self.patch_embed.proj = nn.Conv2d(3, D, 4, 4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, D))
        self.reg_token = nn.Parameter(torch.zeros(1, registers, D)) if registers else None
        self.pos_embed = nn.Parameter(torch.zeros(1, 16 if registers else 17, D))
        self.blocks = nn.Sequential(*(Block(scaled) for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(D, 1e-6), nn.Linear(D, 3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(pixels).flatten(2).transpose(1, 2)
        first = self.cls_token.expand(len(x), -1, -1)
        if self.reg_token is None:
            x = torch.cat([first, x], 1) + self.pos_embed
        else:
            x = torch.cat([first, self.reg_token.expand(len(x), -1, -1), x + self.pos_embed], 1)
        self.states = [x]
        for block in self.blocks:
            self.states.append(block(self.states[-1]))
        return self.head(self.norm(self.states[-1])[:, 0])


def timm_vit(directory: Path, **kind: Any) -> VisionTransformer:
    """A random one, and its folder as timm has them."""
    torch.manual_seed(0)
    model = VisionTransformer(**kind)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    directory.mkdir(parents=True, exist_ok=True)
    said = {"layer_scale": kind.get("scaled", False), "reg_tokens": kind.get("registers", 0)}
    said["no_embed_class"] = bool(said["reg_tokens"])
    (directory / "config.json").write_text(json.dumps(CONFIG | said))
    save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, directory / "model.safetensors")
    return model.eval()
