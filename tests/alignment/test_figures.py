"""Figures: their tiles, colours and order."""

from __future__ import annotations

import torch
from PIL import Image

from sdg import Defect, Diagnosis
from sdg.alignment.figures import picture_grid, signal_figure

LEFT = Defect((0, 0, 500, 1000), "artifact", importance=50)


def test_a_figure_shows_four_tiles_a_sample_and_advantages_by_colour() -> None:
    pictures = [Image.new("RGB", (24, 16), "grey")] * 2
    advantages = torch.tensor([[[1.0, -1.0]], [[0.0, 0.0]]])
    figure = signal_figure(pictures, [Diagnosis((LEFT,)), None], ["a", "b"], advantages, advantages)
    assert figure.width == 4 * 256 + 3 * 4
    x, y = 3 * 260, 22 + 80
    assert figure.getpixel((x + 20, y)) == (255, 0, 0)
    assert figure.getpixel((x + 236, y)) == (0, 0, 255)
    assert figure.getpixel((x + 20, figure.height - 80)) == (255, 255, 255)
    # The reward map is white where nothing is taken off, black where most is.
    assert figure.getpixel((520 + 20, y)) == (255, 255, 255)
    assert figure.getpixel((520 + 236, y)) == (0, 0, 0)
    assert figure.getpixel((520 + 236, figure.height - 80)) == (255, 255, 255)
    scalar = signal_figure(pictures, [None, None], ["a", "b"], None, torch.tensor([1.0, -1.0]))
    assert scalar.width == 3 * 256 + 2 * 4


def test_a_grid_has_a_column_a_generator_and_a_row_a_prompt() -> None:
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    grid = picture_grid([("base", [red, red]), ("x", [blue, blue])], ["one", "two"])
    assert grid.width == 2 * 256 + 4
    assert grid.getpixel((128, 200)) == (255, 0, 0)
    assert grid.getpixel((388, grid.height - 100)) == (0, 0, 255)
