"""Random defects, grids and reward maps, for tests that check a whole class of inputs."""

import numpy as np
import torch
from hypothesis import strategies as st

from sdg import Defect

coordinates = st.lists(st.integers(0, 1000), min_size=2, max_size=2, unique=True).map(sorted)
defects = st.builds(
    lambda xs, ys, type, importance: Defect((xs[0], ys[0], xs[1], ys[1]), type, importance=importance),
    coordinates,
    coordinates,
    st.sampled_from(["artifact", "misalignment"]),
    st.none() | st.integers(1, 100),
)
grids = st.tuples(st.integers(1, 7), st.integers(1, 7))


@st.composite
def batches(draw):
    rows = draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (rows, draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    maps = rng.normal(draw(st.sampled_from([0.0, 3.0, -50.0])), 1.0, shape)
    groups = rng.integers(-(2**40), 2**40, 4)[rng.integers(0, 4, rows)]
    return torch.from_numpy(maps), torch.from_numpy(groups), torch.from_numpy(rng.random(rows) < 0.8)
