"""Figures of a run: samples with their boxes, spatial rewards and advantages, as in the paper's Figure 2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sdg.alignment.rollout import Purpose, Sampler, gather_rows, group_rows, sde_steps
from sdg.alignment.update import Signal, training_signal
from sdg.defects import Diagnosis
from sdg.images import draw_overlay, save_image
from sdg.runs.log import Panel
from sdg.runs.processes import even_share

TILE = 256
_STRIP = 22


def draw_figure(
    sampler: Sampler, prompts: Sequence[str], rank: int, processes: int, path: Path
) -> list[Panel]:
    """Groups of fixed prompts and noise, with what the method would learn from them, as one figure.

    Returns the pictures with what was found in them, on the main process alone.
    """
    recipe = sampler.recipe
    rows = group_rows(recipe, prompts[: recipe.run.pictures], Purpose.FIGURE, 0)
    own = even_share(len(rows), rank, processes)
    drawn = sampler.draw([rows[index] for index in own], sde_steps(recipe, 0))
    pairs = gather_rows(own, zip(drawn.pictures, drawn.scores(), strict=True), processes)
    if rank:
        return []
    pictures, scores = zip(*pairs, strict=True)
    groups = torch.tensor([row.group for row in rows])
    signal = training_signal(recipe, scores, groups, sampler.policy.grid)
    shown = [index for index, row in enumerate(rows) if row.sample < 2]  # two samples a group
    figure = signal_figure(
        [pictures[index] for index in shown],
        [scores[index].diagnosis for index in shown],
        [_caption(rows[index].prompt, signal, index) for index in shown],
        None if signal.maps is None else signal.maps[shown],
        signal.advantages[shown],
    )
    save_image(figure, path)
    return [
        Panel(picture, row.prompt, score.diagnosis)
        for row, picture, score in zip(rows, pictures, scores, strict=True)
    ]


def signal_figure(
    pictures: Sequence[Image.Image],
    diagnoses: Sequence[Diagnosis | None],
    captions: Sequence[str],
    maps: Tensor | None,
    advantages: Tensor,
) -> Image.Image:
    """One row a sample: picture, boxes, reward map and advantage map, with a caption above.

    maps: (N, H, W) spatial rewards or None; advantages: (N, H, W), or (N,) for scalar methods.
    A reward map is white where nothing is taken off the sample's reward and darker the more is, on one scale
    for all; advantages are blue below 0, red above, to the largest magnitude.
    """
    depth = _depth(maps)
    reach = max(float(advantages.abs().max()), 1e-9) if advantages.numel() else 1.0
    rows = []
    for i, picture in enumerate(pictures):
        height = max(1, round(TILE * picture.height / picture.width))
        size = (TILE, height)
        diagnosis = diagnoses[i]
        boxes = draw_overlay(picture, diagnosis.defects if diagnosis else (), min_side=TILE)
        tiles = [picture.convert("RGB").resize(size, Image.Resampling.LANCZOS), boxes.resize(size)]
        if maps is not None:
            tiles.append(_grey(maps[i], depth).resize(size, Image.Resampling.NEAREST))
        advantage = advantages[i] if advantages.ndim == 3 else advantages[i].reshape(1, 1)
        tiles.append(_signed(advantage, reach).resize(size, Image.Resampling.NEAREST))
        rows.append(_row(tiles, captions[i]))
    return _stack(rows)


def picture_grid(columns: Sequence[tuple[str, Sequence[Image.Image]]], prompts: Sequence[str]) -> Image.Image:
    """Generators side by side: one column each under its name, one row a prompt."""
    rows = []
    for i, prompt in enumerate(prompts):
        tiles = []
        for name, pictures in columns:
            picture = pictures[i].convert("RGB")
            size = (TILE, max(1, round(TILE * picture.height / picture.width)))
            tile = Image.new("RGB", (TILE, size[1] + (_STRIP if i == 0 else 0)), "white")
            if i == 0:
                ImageDraw.Draw(tile).text((4, 4), name, fill="black", font=_font())
            tile.paste(picture.resize(size, Image.Resampling.LANCZOS), (0, tile.height - size[1]))
            tiles.append(tile)
        rows.append(_row(tiles, prompt))
    return _stack(rows)


def _caption(prompt: str, signal: Signal, index: int) -> str:
    reward, advantage = float(signal.rewards[index]), float(signal.advantages[index].mean())
    scored = "" if signal.valid[index] else "   [not scored]"
    return f"{prompt}   R {reward:.3f}   A {advantage:+.2f}{scored}"


def _depth(maps: Tensor | None) -> float:
    """The largest difference within one map."""
    known = [] if maps is None else [m for m in maps if m.isfinite().all()]
    return max((float(m.max() - m.min()) for m in known), default=0.0)


def _grey(values: Tensor, depth: float) -> Image.Image:
    if not values.isfinite().all():  # not scored
        return Image.new("RGB", (1, 1), "white")
    off = (values.max() - values).double().numpy() / max(depth, 1e-9)
    return Image.fromarray((255 * (1 - off)).astype(np.uint8)).convert("RGB")


def _signed(values: Tensor, reach: float) -> Image.Image:
    unit = (values.double().numpy() / reach).clip(-1, 1)  # (H, W)
    fade = 255 * (1 - np.abs(unit))
    red = np.where(unit >= 0, 255, fade)
    blue = np.where(unit <= 0, 255, fade)
    return Image.fromarray(np.stack([red, fade, blue], axis=-1).astype(np.uint8))


def _row(tiles: Sequence[Image.Image], caption: str) -> Image.Image:
    width = sum(tile.width for tile in tiles) + 4 * (len(tiles) - 1)
    row = Image.new("RGB", (width, max(tile.height for tile in tiles) + _STRIP), "white")
    ImageDraw.Draw(row).text((4, 4), caption, fill="black", font=_font())
    x = 0
    for tile in tiles:
        row.paste(tile, (x, _STRIP))
        x += tile.width + 4
    return row


def _stack(rows: Sequence[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    y = 0
    for row in rows:
        sheet.paste(row, (0, y))
        y += row.height
    return sheet


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(13)
