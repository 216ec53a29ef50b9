"""Pictures for `graftax demo --vision`: six things that people inspect, drawn by this file, so that nobody else's are needed.

Each kind of thing is a function of a class, such as `scratch`, and of a random generator, from which everything else follows:
light, grain, position, size and colour. Two pictures of a class are as unlike as two photographs from one place would be; what
tells a class is often small (a hole of a few threads, a turned part), as it is in such work. A picture is RGB, 224 x 224.

    picture = drawn("fabric", "hole", numpy.random.default_rng(7))

Fabric and metal also come with masks (`drawn_with_mask`). A flaw there is drawn last, on what the same random numbers have made
without it, so it is where the two differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 224
MASKED = ("fabric", "metal")
_FELT = 12  # of 255: by how much a pixel of a flaw differs

Colour = tuple[int, int, int]


def drawn(kind: str, label: str, random: np.random.Generator) -> Image:
    """A picture of a class of a kind of things."""
    draw, labels = KINDS[kind]
    assert label in labels
    return _photographed(draw(label, random), random)


def _photographed(thing: Image, random: np.random.Generator) -> Image:
    """What a camera makes of it: a little blurred, in light from one side, with noise."""
    from PIL import Image, ImageFilter

    picture = thing.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 1.0)))
    pixels = np.asarray(picture, np.float64)
    across, down = np.meshgrid(np.linspace(-1, 1, SIDE), np.linspace(-1, 1, SIDE))
    turned = random.uniform(0, 2 * math.pi)
    light = 1 + random.uniform(0.05, 0.25) * (across * math.cos(turned) + down * math.sin(turned))
    pixels = pixels * (light * random.uniform(0.75, 1.15))[..., None] + random.normal(0, random.uniform(2, 7), pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_pictures(kind: str, folder: Path, each: int, seed: int) -> Path:
    """A folder with a folder for each class, and in it so many pictures."""
    for number, label in enumerate(KINDS[kind][1]):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for index in range(each):
            random = np.random.default_rng([seed, sorted(KINDS).index(kind), number, index])
            drawn(kind, label, random).save(folder / label / f"{index:03}.jpg", quality=92)
    return folder


def drawn_with_mask(kind: str, label: str, seed: Sequence[int]) -> tuple[Image, np.ndarray]:
    """A picture of one of the kinds `MASKED`, and uint8 `[SIDE, SIDE]`: where the flaw is its class's number, elsewhere 0."""
    draw, labels = KINDS[kind]
    assert kind in MASKED
    random = np.random.default_rng(seed)
    thing, without = draw(label, random), draw(labels[0], np.random.default_rng(seed))
    apart = np.abs(np.asarray(thing, np.int16) - np.asarray(without, np.int16)).max(-1) > _FELT
    return _photographed(thing, random), (apart * labels.index(label)).astype(np.uint8)


def write_pictures_with_masks(kind: str, folder: Path, each: int, seed: int) -> Path:
    """A folder with so many pictures of each class in `images`, their masks in `masks`, and the classes' names."""
    from PIL import Image

    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    labels = KINDS[kind][1]
    for number, label in enumerate(labels):
        for index in range(each):
            picture, mask = drawn_with_mask(kind, label, [seed, sorted(KINDS).index(kind), number, index])
            picture.save(folder / "images" / f"{label}-{index:03}.jpg", quality=92)
            Image.fromarray(mask).save(folder / "masks" / f"{label}-{index:03}.png")
    (folder / "classes.txt").write_text("".join(f"{label}\n" for label in labels))
    return folder


# -- what all are drawn with ----------------------------------------------------------------------------------------------


def _plain(colour: Sequence[float], grain: np.ndarray | float = 0.0) -> Image:
    """A picture of one colour, with a grain `[SIDE, SIDE]` that is added to it."""
    from PIL import Image

    pixels = np.ones((SIDE, SIDE, 3)) * np.asarray(colour) + np.asarray(grain)[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _varied(random: np.random.Generator, colour: Colour, by: int = 18) -> Colour:
    red, green, blue = (int(np.clip(value + random.integers(-by, by + 1), 0, 255)) for value in colour)
    return red, green, blue


def _blob(random: np.random.Generator, x: float, y: float, size: float) -> list[tuple[float, float]]:
    """The outline of a spot that is no circle."""
    angles = np.linspace(0, 2 * math.pi, 16, endpoint=False)
    radii = size * random.uniform(0.65, 1.25, 16)
    return [(x + r * math.cos(a), y + r * math.sin(a)) for a, r in zip(angles, radii, strict=True)]


def _somewhere(random: np.random.Generator, margin: int = 40) -> tuple[float, float]:
    x, y = random.uniform(margin, SIDE - margin, 2)
    return float(x), float(y)


# -- the things -----------------------------------------------------------------------------------------------------------


def _metal(label: str, random: np.random.Generator) -> Image:
    """Brushed sheet metal."""
    from PIL import Image, ImageDraw, ImageFilter

    lines = random.normal(0, 9, (SIDE, 1)) * np.ones((1, SIDE)) + random.normal(0, 4, (SIDE, SIDE))
    picture = _plain(_varied(random, (158, 162, 168)), lines if random.random() < 0.5 else lines.T)
    draw = ImageDraw.Draw(picture)
    x, y = _somewhere(random)
    if label == "scratch":
        turned, length = random.uniform(0, math.pi), random.uniform(30, 85)
        end = (x + length * math.cos(turned), y + length * math.sin(turned))
        draw.line([(x, y), end], fill=_varied(random, (225, 228, 232)), width=int(random.integers(1, 4)))
    elif label == "dent":
        size, where = random.uniform(10, 22), Image.new("L", (SIDE, SIDE))
        ImageDraw.Draw(where).ellipse((x - size, y - size, x + size, y + size), fill=200)
        shade = _plain((112, 115, 120))
        ImageDraw.Draw(shade).ellipse((x - size * 0.4, y - size * 0.4, x + size * 1.2, y + size * 1.2), fill=(205, 208, 213))
        soft = ImageFilter.GaussianBlur(4)
        picture.paste(shade.filter(soft), mask=where.filter(soft))
    elif label == "rust":
        for _ in range(int(random.integers(2, 6))):
            spot = _blob(random, x + random.normal(0, 14), y + random.normal(0, 14), random.uniform(4, 11))
            draw.polygon(spot, fill=_varied(random, (136, 84, 48)))
    return picture


def _fabric(label: str, random: np.random.Generator) -> Image:
    """A weave of threads in two directions."""
    from PIL import Image, ImageDraw

    step = random.uniform(4.0, 6.5)
    across = np.sin(np.arange(SIDE) * 2 * math.pi / step)
    weave = 14 * (across[None] + across[:, None])
    picture = _plain(_varied(random, (148, 122, 96), 45), weave + random.normal(0, 5, (SIDE, SIDE)))
    draw = ImageDraw.Draw(picture)
    x, y = _somewhere(random)
    if label == "hole":
        draw.polygon(_blob(random, x, y, random.uniform(6, 13)), fill=_varied(random, (28, 26, 26), 10))
    elif label == "stain":
        stain = picture.copy()
        spot = _blob(random, x, y, random.uniform(16, 30))
        ImageDraw.Draw(stain).polygon(spot, fill=_varied(random, (96, 72, 44)))
        picture = Image.blend(picture, stain, 0.45)
    elif label == "pulled thread":
        sides = random.normal(0, 2.5, 24).cumsum()
        draw.line([(x - 60 + 5 * i, y + side) for i, side in enumerate(sides)], fill=_varied(random, (214, 200, 178)), width=2)
    return picture


def _board(label: str, random: np.random.Generator) -> Image:
    """A circuit board with six parts."""
    from PIL import ImageDraw

    picture = _plain(_varied(random, (26, 92, 58)), random.normal(0, 4, (SIDE, SIDE)))
    draw = ImageDraw.Draw(picture)
    for _ in range(7):
        place = int(random.integers(8, SIDE - 8))
        line = [(0, place), (SIDE, place)] if random.random() < 0.5 else [(place, 0), (place, SIDE)]
        draw.line(line, fill=(54, 128, 86), width=2)
    chosen, (left, top) = int(random.integers(6)), random.integers(-8, 9, 2)
    for part in range(6):
        x, y = 44 + 68 * (part % 3) + left, 72 + 80 * (part // 3) + top
        pads = [(x + dx, y + dy) for dx in (-18, -6, 6, 18) for dy in (-21, 21)]
        for px, py in pads:
            draw.rectangle((px - 3, py - 5, px + 3, py + 5), fill=(196, 186, 140))
        if part == chosen and label == "missing part":
            continue
        turned = random.uniform(14, 32) * random.choice([-1, 1]) if part == chosen and label == "turned part" else 0.0
        cos, sin = math.cos(math.radians(turned)), math.sin(math.radians(turned))
        corners = [(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in ((-24, -16), (24, -16), (24, 16), (-24, 16))]
        draw.polygon(corners, fill=_varied(random, (34, 34, 38), 8))
        if part == chosen and label == "burnt part":
            draw.polygon(_blob(random, x, y, random.uniform(9, 15)), fill=_varied(random, (92, 66, 50), 12))
    return picture


def _dial(label: str, random: np.random.Generator) -> Image:
    """A gauge, whose needle is in the green, below it or above it."""
    from PIL import ImageDraw

    picture = _plain(_varied(random, (92, 96, 102), 35), random.normal(0, 4, (SIDE, SIDE)))
    draw = ImageDraw.Draw(picture)
    x, y = (SIDE / 2 + random.uniform(-12, 12, 2)).tolist()
    size = random.uniform(74, 92)
    box = (x - size, y - size, x + size, y + size)
    draw.ellipse(box, fill=_varied(random, (232, 230, 222), 14), outline=(30, 30, 30), width=4)
    inner = (x - size * 0.82, y - size * 0.82, x + size * 0.82, y + size * 0.82)
    for begin, end, colour in ((135, 225, (70, 110, 190)), (225, 315, (60, 150, 80)), (315, 405, (196, 60, 50))):
        draw.arc(inner, begin, end, fill=colour, width=9)
    begin = {"low": 142, "normal": 232, "high": 322}[label]
    turned = math.radians(begin + random.uniform(0, 76))
    tip = (x + size * 0.7 * math.cos(turned), y + size * 0.7 * math.sin(turned))
    draw.line([(x, y), tip], fill=_varied(random, (24, 24, 28), 10), width=int(random.integers(3, 6)))
    draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=(24, 24, 28))
    return picture


def _leaf(label: str, random: np.random.Generator) -> Image:
    """A leaf on soil."""
    from PIL import ImageDraw

    soil = _varied(random, (96, 76, 58))
    picture = _plain(soil, random.normal(0, 16, (SIDE, SIDE)))
    draw = ImageDraw.Draw(picture)
    x, y = (SIDE / 2 + random.uniform(-14, 14, 2)).tolist()
    turned, length, width = random.uniform(0, 2 * math.pi), random.uniform(74, 96), random.uniform(30, 44)
    cos, sin = math.cos(turned), math.sin(turned)

    def on_leaf(along: float, aside: float) -> tuple[float, float]:
        return x + along * length * cos - aside * width * sin, y + along * length * sin + aside * width * cos

    along = np.linspace(-1, 1, 40)
    rim = [(a, math.cos(a * math.pi / 2) ** 0.8) for a in along]
    colour = _varied(random, (74, 128, 58)) if label != "yellowing" else _varied(random, (168, 164, 66))
    draw.polygon([on_leaf(a, b) for a, b in rim] + [on_leaf(a, -b) for a, b in reversed(rim)], fill=colour)
    vein = (int(colour[0] * 0.8), int(colour[1] * 0.85), int(colour[2] * 0.8))
    draw.line([on_leaf(-1, 0), on_leaf(1, 0)], fill=vein, width=3)
    for a in np.linspace(-0.7, 0.6, 6):
        for side in (-1, 1):
            draw.line([on_leaf(a, 0), on_leaf(a + 0.2, side * 0.8 * math.cos(a * math.pi / 2))], fill=vein, width=1)
    if label == "spots":
        for _ in range(int(random.integers(4, 11))):
            px, py = on_leaf(random.uniform(-0.7, 0.7), random.uniform(-0.45, 0.45))
            draw.polygon(_blob(random, px, py, random.uniform(3, 6.5)), fill=_varied(random, (92, 62, 38)))
    elif label == "eaten":
        for _ in range(int(random.integers(2, 5))):
            a = random.uniform(-0.6, 0.6)
            px, py = on_leaf(a, random.choice([-1, 1]) * 0.9 * math.cos(a * math.pi / 2))
            draw.polygon(_blob(random, px, py, random.uniform(8, 14)), fill=soil)
    return picture


def _bottle(label: str, random: np.random.Generator) -> Image:
    """A bottle on a belt."""
    from PIL import ImageDraw

    picture = _plain(_varied(random, (206, 208, 210), 25), random.normal(0, 4, (SIDE, SIDE)))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 196, SIDE, SIDE), fill=_varied(random, (70, 70, 74)))
    x, width = SIDE / 2 + random.uniform(-30, 30), random.uniform(28, 36)
    glass, filled = _varied(random, (176, 204, 196)), _varied(random, (140, 88, 40), 30)
    draw.rounded_rectangle((x - width, 84, x + width, 198), 12, fill=glass)
    draw.rectangle((x - 11, 46, x + 11, 92), fill=glass)
    level = random.uniform(134, 158) if label == "underfilled" else random.uniform(92, 104)
    draw.rounded_rectangle((x - width + 4, level, x + width - 4, 194), 9, fill=filled)
    if label != "no cap":
        draw.rectangle((x - 13, 34, x + 13, 50), fill=_varied(random, (186, 44, 40), 30))
    across, tilt = width - 3, math.tan(math.radians(random.uniform(9, 18) * random.choice([-1, 1])))
    tilt = tilt if label == "crooked label" else 0.0
    corners = [(dx, 150 + dy + dx * tilt) for dx, dy in ((-across, -17), (across, -17), (across, 17), (-across, 17))]
    draw.polygon([(x + dx, y) for dx, y in corners], fill=_varied(random, (240, 236, 220), 10))
    half = across - 8
    draw.line([(x - half, 150 - half * tilt), (x + half, 150 + half * tilt)], fill=(60, 60, 90), width=4)
    return picture


#: How each kind of thing is drawn, and its classes.
KINDS: dict[str, tuple[Callable[[str, np.random.Generator], Image], tuple[str, ...]]] = {
    "board": (_board, ("good", "missing part", "turned part", "burnt part")),
    "bottle": (_bottle, ("good", "underfilled", "no cap", "crooked label")),
    "dial": (_dial, ("low", "normal", "high")),
    "fabric": (_fabric, ("good", "hole", "stain", "pulled thread")),
    "leaf": (_leaf, ("healthy", "spots", "yellowing", "eaten")),
    "metal": (_metal, ("good", "scratch", "dent", "rust")),
}
