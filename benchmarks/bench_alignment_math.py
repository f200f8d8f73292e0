"""What the spatial part of BoxFlow-GRPO costs: reward maps, advantages and the per-location loss, in ms.

    python benchmarks/bench_alignment_math.py [--images 768] [--boxes 5] [--threads 1] [--repeats 15]

First beside an optimizer step measured in the same run: the shipped testbed generator with the adapter of
recipes/align/boxflow-testbed.yaml, one batch of that recipe. Then for an epoch of the released configuration
(48 prompts × 16 = 768 images) on three grids, and against FLUX.1-dev's step by arithmetic. The whole cost is
counted, also what a scalar method would pay. Roll-outs and scoring, which take longer, are left out of it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from sdg import Defect
from sdg.alignment.advantages import scalar_advantages, spatial_advantages
from sdg.alignment.losses import boxflow_loss, flow_grpo_loss
from sdg.alignment.policies import load_policy
from sdg.alignment.recipe import AlignRecipe
from sdg.alignment.reward_map import alphas, spatial_rewards
from sdg.alignment.update import Learner
from sdg.io.uri import read_prompts
from sdg.recipes import load_recipe

RECIPE = Path(__file__).resolve().parents[1] / "recipes/align/boxflow-testbed.yaml"
GRIDS = ((8, 8), (16, 16), (32, 32))
GROUP = 16
MAP_BUDGET_MS = 50.0
STEP_BUDGET = 0.03

# FLUX.1-dev at 512²: 1024 image and 512 text tokens of width 3072 through 19 double and 38 single blocks,
# each 12·width² multiplications a token (attention 4, MLP 8), and attention itself. Forward, recomputed
# forward (checkpointing) and the backward pass through activations, at 40 % of an H100's 989 TFLOP/s.
TOKENS, WIDTH, BLOCKS = 1024 + 512, 3072, 19 + 38
FORWARD_FLOP = BLOCKS * (2 * 12 * WIDTH**2 * TOKENS + 4 * TOKENS**2 * WIDTH)
PASSES, USE, PEAK_FLOPS = 3, 0.4, 989e12
FLUX_IMAGE_MS = 1e3 * PASSES * FORWARD_FLOP / (USE * PEAK_FLOPS)


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


def spatial_costs(images: int, boxes: int, grid: tuple[int, int], repeats: int) -> tuple[list[float], float]:
    """Milliseconds for maps, advantages and loss of all images, and for Flow-GRPO's scalar counterpart."""
    rng = np.random.default_rng(0)
    sets = [random_defects(rng, boxes) for _ in range(images)]
    rewards = torch.from_numpy(rng.random(images)).float()
    groups = torch.arange(images) // GROUP
    valid = torch.ones(images, dtype=torch.bool)
    log_prob = torch.randn(images, *grid, requires_grad=True)
    old = log_prob.detach() + 1e-4 * torch.randn(images, *grid)
    maps = spatial_rewards(sets, rewards, grid, *alphas(rewards, groups, valid))
    spatial, scalar = spatial_advantages(maps, groups, valid), scalar_advantages(rewards, groups, valid)

    def build() -> object:
        return spatial_rewards(sets, rewards, grid, *alphas(rewards, groups, valid))

    def advantages() -> object:
        return spatial_advantages(maps, groups, valid)

    def loss() -> object:
        return torch.autograd.grad(boxflow_loss(log_prob, old, spatial, 1e-4, valid), log_prob)

    def flow_grpo() -> object:
        scalar_advantages(rewards, groups, valid)
        return torch.autograd.grad(flow_grpo_loss(log_prob, old, scalar, 1e-4, valid), log_prob)

    costs = [milliseconds(piece, repeats) for piece in (build, advantages, loss)]
    return costs, milliseconds(flow_grpo, repeats)


def testbed_step(boxes: int, repeats: int) -> None:
    """Print the spatial part of one batch beside the generator's own forward, backward and AdamW."""
    recipe = load_recipe(AlignRecipe, RECIPE)
    images = recipe.sampling.batch_size
    policy = load_policy(recipe.policy, "cpu", recipe.precision, recipe.seed)
    learner = Learner(recipe, Accelerator(cpu=True), policy)
    optimizer, parameters = learner.optimizer, list(learner.parameters.values())
    prompts = read_prompts(recipe.prompts.train)[:images]
    sampling = recipe.sampling
    transitions = policy.sample(
        prompts,
        range(images),
        steps=sampling.steps,
        sde_steps=sampling.sde_steps[:1],
        noise_level=sampling.noise_level,
        kind=sampling.sde,
    ).transitions

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        policy.score(transitions, 0).log_prob.mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, recipe.optimizer.grad_norm)
        optimizer.step()

    whole = milliseconds(step, max(3, repeats // 3))  # long enough for fewer
    costs, _ = spatial_costs(images, boxes, policy.grid, repeats)
    lora, size = recipe.policy.lora, f"{recipe.policy.width}×{recipe.policy.height}"
    print(f"testbed generator, LoRA r {lora.r}, {recipe.precision}, {images} × {size}, {boxes} boxes each")
    print(f"  optimizer step (forward, backward, AdamW)  {whole:8.1f} ms")
    print(f"  maps + advantages + loss, grid {policy.grid[0]}×{policy.grid[1]}       {sum(costs):8.2f} ms")
    print(f"  ratio {100 * sum(costs) / whole:.2f} % (at most {100 * STEP_BUDGET:g} %)\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=768)
    parser.add_argument("--boxes", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.threads} thread(s), medians of {options.repeats}\n")
    testbed_step(options.boxes, options.repeats)

    print(f"{options.images} images × {options.boxes} boxes, groups of {GROUP}")
    header = ("grid", "maps", "of 50 ms", "advantages", "loss", "sum", "scalar", "sum/scalar")
    print(" ".join(f"{name:>11}" for name in header))
    for grid in GRIDS:
        costs, scalar = spatial_costs(options.images, options.boxes, grid, options.repeats)
        total = sum(costs)
        row = (
            f"{grid[0]}×{grid[1]}",
            f"{costs[0]:.1f} ms",
            f"{100 * costs[0] / MAP_BUDGET_MS:.0f} %",
            f"{costs[1]:.1f} ms",
            f"{costs[2]:.1f} ms",
            f"{total:.1f} ms",
            f"{scalar:.1f} ms",
            f"{total / scalar:.1f}",
        )
        print(" ".join(f"{cell:>11}" for cell in row))

    image = total / options.images  # of the last grid, which is FLUX's at 512²
    tera = f"{FORWARD_FLOP / 1e12:.1f} TFLOP at {100 * USE:g} % of an H100's {PEAK_FLOPS / 1e12:g} TFLOP/s"
    print(f"\nFLUX.1-dev at 512², by arithmetic, grid {GRIDS[-1][0]}×{GRIDS[-1][1]}, for one image:")
    print(f"  {PASSES} passes (forward, recomputed, backward) over {TOKENS} tokens, each")
    print(f"  {tera}: {FLUX_IMAGE_MS:.0f} ms")
    print(f"  maps + advantages + loss, measured above on this CPU and not overlapped: {image:.3f} ms")
    print(f"  ratio {100 * image / FLUX_IMAGE_MS:.3f} %")


if __name__ == "__main__":
    main()
