"""Rows of the paper's Tables 3, 5, 6 and 7; those of Table 2 are in `sdg.evaluation.published`."""

from __future__ import annotations

from typing import Final

from sdg.evaluation.published import PublishedRow, published_row

TABLE3: Final = {
    "ImageDoctor@0.10": ((0.965, 0.939, 0.952), (0.983, 0.143, 0.250)),
    "ImageDoctor@0.33": ((0.977, 0.762, 0.856), (1.000, 0.004, 0.007)),
    "SDG": ((0.970, 0.698, 0.812), (0.951, 0.500, 0.655)),
}
"""Precision, recall and F1 of the image-level question, artifact then misalignment; RichHF-18K."""

TABLE5_SCORERS: Final = ("PickScore", "CLIPScore", "HPSv3", "DeQA", "P(real)")
TABLE5: Final = {
    "base": (22.84, 0.912, 11.75, 0.876, 0.211, None),
    "Flow-GRPO + UnifiedReward-2.0": (22.78, 0.908, 11.27, 0.882, 0.149, -0.067),
    "Flow-GRPO + ImageDoctor": (23.17, 0.937, 12.23, 0.857, 0.201, 0.003),
    "DenseFlow-GRPO": (22.88, 0.945, 11.57, 0.864, 0.199, -0.010),
    "BoxFlow-GRPO": (22.91, 0.915, 12.14, 0.877, 0.228, 0.024),
}
"""Means of the five scorers on DrawBench, then Avg; FLUX.1-dev."""

TABLE6: Final = {
    "SDG against ImageDoctor": (0.1100, 0.8511, 0.0390),
    "SDG against Fixed": (0.1031, 0.8694, 0.0275),
}
"""Shares of Good, Same and Bad over 873 results of two annotators."""

TABLE7: Final[dict[str, PublishedRow]] = {
    "no-step-1": published_row(
        "SFT without step 1",
        (0.719, 0.793, 0.357, 0.218, 0.894, 0.880),
        (0.597, 0.798, 0.436, 0.329, 0.875, 0.892),
    ),
    "no-step-3": published_row(
        "SFT without step 3",
        (0.731, 0.537, 0.387, 0.253, 0.897, 0.884),
        (0.496, 0.840, 0.364, 0.281, 0.846, 0.878),
    ),
    "grpo-no-think": published_row(
        "GRPO without think",
        (0.776, 0.640, 0.417, 0.288, 0.899, 0.881),
        (0.640, 0.677, 0.487, 0.352, 0.879, 0.883),
    ),
    "no-description": published_row(
        "SFT without description",
        (0.757, 0.718, 0.386, 0.250, None, 0.884),
        (0.609, 0.782, 0.468, 0.358, None, 0.894),
    ),
    "no-importance": published_row(
        "SFT without importance",
        (0.761, 0.745, 0.402, 0.254, 0.898, None),
        (0.594, 0.793, 0.448, 0.357, 0.870, None),
    ),
    "unfrozen-vision": published_row(
        "SFT with the vision encoder trained",
        (0.659, 0.638, 0.329, 0.203, 0.894, 0.880),
        (0.584, 0.799, 0.427, 0.305, 0.856, 0.880),
    ),
    "no-jitter": published_row(
        "SFT without jitter",
        (0.751, 0.684, 0.396, 0.253, 0.898, 0.884),
        (0.611, 0.786, 0.462, 0.360, 0.878, 0.894),
    ),
}
"""Name of an ablation -> its row; it ablates "SDG (SFT)" of Table 2, `grpo-no-think` "SDG (GRPO)"."""
