"""What lies in each cell of a scene, against a count of pixels."""

import numpy as np
import pytest
import torch

from sdg.testbed.models.generator.cells import CELLS, CellHead, cell_loss, cell_targets
from sdg.testbed.world.layout import sample_scene
from sdg.testbed.world.scene import COLOURS, SHAPES, Scene, Thing


@pytest.mark.parametrize("seed", range(8))
def test_a_cell_shows_the_object_whose_square_covers_most_of_it(seed):
    scene = sample_scene(np.random.default_rng(seed))[2]
    targets = cell_targets([scene])
    fine = (np.arange(128 * 4) + 0.5) / 4
    squares = np.stack(
        [
            np.outer(abs(fine - t.y) < t.radius, abs(fine - t.x) < t.radius)
            .reshape(CELLS, 64, CELLS, 64)
            .mean((1, 3))
            .ravel()
            for t in scene.things
        ]
    )
    for cell in range(CELLS * CELLS):
        share = np.sort(squares[:, cell])
        if abs(share[-1] - 0.1) < 0.03 or (len(share) > 1 and share[-1] - share[-2] < 0.03):
            continue  # too close to call by counting
        colour, shape, place = (targets[name][0, cell] for name in ("colour", "shape", "place"))
        if share[-1] < 0.1:
            assert (int(colour), int(shape)) == (0, 0)
            assert not place.any()
            continue
        thing = scene.things[squares[:, cell].argmax()]
        assert list(COLOURS)[colour - 1] == thing.colour
        assert SHAPES[shape - 1] == thing.shape
        x, y = 16 * (cell % CELLS) + 8, 16 * (cell // CELLS) + 8
        np.testing.assert_allclose(
            [x + 16 * place[0], y + 16 * place[1], 16 * place[2]], [thing.x, thing.y, thing.radius], atol=0.05
        )


def test_the_loss_is_zero_for_what_is_true_and_the_head_can_learn_it():
    scene = Scene((Thing("star", "red", 40.0, 40.0, 20.0),), "white")
    targets = cell_targets([scene])
    told = torch.zeros(1, CELLS * CELLS, len(COLOURS) + len(SHAPES) + 5)
    told[0].scatter_(1, targets["colour"][0, :, None].long(), 100.0)
    told[0].scatter_(1, len(COLOURS) + 1 + targets["shape"][0, :, None].long(), 100.0)
    told[..., -3:] = targets["place"]
    assert float(cell_loss(told, targets)) == pytest.approx(0, abs=1e-6)

    torch.manual_seed(0)
    head, tokens = CellHead(64), torch.randn(1, CELLS * CELLS, 64)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    losses = []
    for _ in range(60):
        losses.append(cell_loss(head(tokens), targets))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert float(losses[-1]) < 0.1 * float(losses[0])
