"""Dense targets against the pixels they speak of, and patches against the processor's."""

import numpy as np
import torch
from PIL import Image

from sdg.defects import BOX_SCALE, DefectType
from sdg.testbed.injection import ARTIFACTS, sample
from sdg.testbed.models.detector.build import new_processor, new_tokenizer
from sdg.testbed.models.detector.dense import CELLS, dense_targets, patchify
from sdg.testbed.world.scene import COLOURS, SHAPES

STEP = 128 // CELLS


def cells():
    return [(row, column) for row in range(CELLS) for column in range(CELLS)]


def test_patches_are_those_of_the_processor():
    pictures = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    processor = new_processor(new_tokenizer(["a word"]))
    theirs = processor.image_processor(
        [Image.fromarray(picture) for picture in pictures], return_tensors="pt"
    )["pixel_values"]
    torch.testing.assert_close(patchify(torch.from_numpy(pictures)), theirs, atol=1e-5, rtol=0)


def test_a_cell_names_the_object_that_covers_most_of_it():
    one = sample(np.random.default_rng(3), kind="clean")
    targets = dense_targets(one)
    named = 0
    for number, (row, column) in enumerate(cells()):
        owners = one.object_map[row * STEP : (row + 1) * STEP, column * STEP : (column + 1) * STEP]
        counts = [int((owners == index).sum()) for index in range(len(one.objects))]
        if max(counts) <= 0.1 * STEP**2:
            assert targets["colour"][number] == targets["shape"][number] == 0
            continue
        thing = one.objects[int(np.argmax(counts))]
        assert list(COLOURS)[targets["colour"][number] - 1] == thing.colour
        assert list(SHAPES)[targets["shape"][number] - 1] == thing.shape
        centre = np.array([column + 0.5, row + 0.5, column + 0.5, row + 0.5]) * STEP
        assert np.abs(targets["box"][number] * 32 + centre - thing.box).max() < 2
        named += 1
    assert named >= 4


def test_tampered_quarters_and_kinds_lie_where_the_artifact_is():
    one = sample(np.random.default_rng(5), kind="artifact")
    targets = dense_targets(one)
    half = STEP // 2
    for number, (row, column) in enumerate(cells()):
        for quarter in range(4):
            top, left = row * STEP + quarter // 2 * half, column * STEP + quarter % 2 * half
            share = one.artifact_mask[top : top + half, left : left + half].mean()
            assert targets["tampered"][number, quarter] == (share > 0.12)
    flaws = one.diagnosis.of_type(DefectType.ARTIFACT)
    hurt = targets["artifact"] > 0
    assert hurt.any()
    assert {ARTIFACTS["core"][kind - 1] for kind in targets["artifact"][hurt]} <= {
        flaw.subtype for flaw in flaws
    }
    boxes = {tuple(round(value * 128 / BOX_SCALE) for value in flaw.box) for flaw in flaws}
    for number in np.flatnonzero(hurt):
        row, column = divmod(int(number), CELLS)
        centre = np.array([column + 0.5, row + 0.5, column + 0.5, row + 0.5]) * STEP
        box = targets["artifact_box"][number] * 32 + centre
        assert any(np.abs(box - known).max() < 1 for known in boxes)
