"""What the spatial part of BoxFlow-GRPO costs: reward maps, advantages and the per-location loss, in ms.

    python benchmarks/bench_alignment_math.py [--images 768] [--boxes 5] [--threads 1] [--image-ms MS]

768 images are one epoch of the released configuration (48 prompts × 16). The whole cost is counted, also
what a scalar method would pay, against one image's share of an optimiser step: given by --image-ms, or,
for FLUX.1-dev, from the arithmetic below. Roll-outs and scoring, which take longer, are left out of it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from sdg import Defect
from sdg.alignment.advantages import scalar_advantages, spatial_advantages
from sdg.alignment.losses import boxflow_loss, flow_grpo_loss
from sdg.alignment.reward_map import alphas, spatial_rewards

GRIDS = ((8, 8), (16, 16), (32, 32))
GROUP = 16
MAP_BUDGET_MS = 50.0

# FLUX.1-dev at 512²: 1024 image and 512 text tokens of width 3072 through 19 double and 38 single blocks,
# each 12·width² multiplications a token (attention 4, MLP 8), and attention itself. Forward, recomputed
# forward (checkpointing) and the backward pass through activations, at 40 % of an H100's 989 TFLOP/s.
TOKENS, WIDTH, BLOCKS = 1024 + 512, 3072, 19 + 38
FORWARD_FLOP = BLOCKS * (2 * 12 * WIDTH**2 * TOKENS + 4 * TOKENS**2 * WIDTH)
FLUX_IMAGE_MS = 1e3 * 3 * FORWARD_FLOP / (0.4 * 989e12)


def milliseconds(function: Callable[[], object], repeats: int) -> float:
    """Median wall-clock time of a call."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def random_defects(rng: np.random.Generator, count: int) -> list[Defect]:
    defects = []
    for _ in range(count):
        x0, x1 = sorted(rng.choice(1001, 2, replace=False).tolist())
        y0, y1 = sorted(rng.choice(1001, 2, replace=False).tolist())
        type = ("artifact", "misalignment")[rng.integers(2)]
        defects.append(Defect((x0, y0, x1, y1), type, importance=int(rng.integers(1, 101))))
    return defects


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=768)
    parser.add_argument("--boxes", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--image-ms", type=float, help="measured time of an optimiser step, per image")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    image_ms = options.image_ms or FLUX_IMAGE_MS
    model = "as given" if options.image_ms else "FLUX.1-dev by arithmetic"
    print(f"{options.images} images × {options.boxes} boxes, groups of {GROUP}, {options.threads} thread(s)")
    print(f"one image's share of an optimiser step: {image_ms:.1f} ms ({model})\n")

    rng = np.random.default_rng(0)
    sets = [random_defects(rng, options.boxes) for _ in range(options.images)]
    rewards = torch.from_numpy(rng.random(options.images)).float()
    groups = torch.arange(options.images) // GROUP
    valid = torch.ones(options.images, dtype=torch.bool)

    header = ("grid", "maps", "of 50 ms", "advantages", "loss", "sum", "of a step", "scalar", "sum/scalar")
    print(" ".join(f"{name:>11}" for name in header))
    for grid in GRIDS:
        log_prob = torch.randn(options.images, *grid, requires_grad=True)
        old = log_prob.detach() + 1e-4 * torch.randn(options.images, *grid)
        artifact, misalignment = alphas(rewards, groups, valid)
        maps = spatial_rewards(sets, rewards, grid, artifact, misalignment)
        spatial, scalar = spatial_advantages(maps, groups, valid), scalar_advantages(rewards, groups, valid)

        def build(grid: tuple[int, int] = grid) -> object:
            return spatial_rewards(sets, rewards, grid, *alphas(rewards, groups, valid))

        def advantages(maps: torch.Tensor = maps) -> object:
            return spatial_advantages(maps, groups, valid)

        def loss(log_prob=log_prob, old=old, spatial=spatial) -> object:  # type: ignore[no-untyped-def]
            return torch.autograd.grad(boxflow_loss(log_prob, old, spatial, 1e-4, valid), log_prob)

        def flow_grpo(log_prob=log_prob, old=old, scalar=scalar) -> object:  # type: ignore[no-untyped-def]
            scalar_advantages(rewards, groups, valid)
            return torch.autograd.grad(
                flow_grpo_loss(log_prob, old, scalar, 1e-4, valid, ratio="image"), log_prob
            )

        costs = [milliseconds(piece, options.repeats) for piece in (build, advantages, loss)]
        baseline = milliseconds(flow_grpo, options.repeats)
        total = sum(costs)
        row = (
            f"{grid[0]}×{grid[1]}",
            f"{costs[0]:.1f} ms",
            f"{100 * costs[0] / MAP_BUDGET_MS:.0f} %",
            f"{costs[1]:.1f} ms",
            f"{costs[2]:.1f} ms",
            f"{total:.1f} ms",
            f"{100 * total / (options.images * image_ms):.3f} %",
            f"{baseline:.1f} ms",
            f"{total / baseline:.1f}",
        )
        print(" ".join(f"{cell:>11}" for cell in row))


if __name__ == "__main__":
    main()
