"""Heat maps drawn from detections, for the masked baseline."""

import pytest
import torch

from sdg import Defect
from sdg.alignment.reward_map import heat_maps


def test_heat_is_the_weight_of_a_type_or_the_larger_of_both():
    found = [
        Defect((0, 0, 500, 1000), "artifact", importance=30),
        Defect((0, 0, 1000, 1000), "misalignment", importance=20),
    ]
    torch.testing.assert_close(heat_maps([found], (1, 2)), torch.tensor([[[0.3, 0.0]]]))
    torch.testing.assert_close(heat_maps([found], (1, 2), "misalignment"), torch.tensor([[[0.2, 0.2]]]))
    torch.testing.assert_close(heat_maps([found], (1, 2), "both"), torch.tensor([[[0.3, 0.2]]]))
    assert heat_maps([None], (1, 2)).isnan().all()
    with pytest.raises(ValueError, match="artifact"):
        heat_maps([found], (1, 2), "everything")
