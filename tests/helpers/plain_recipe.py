"""A recipe of six groups of four, of which nothing is ever loaded."""

from sdg.alignment.recipe import (
    AlignRecipe,
    GroupsRecipe,
    PolicyRecipe,
    PromptsRecipe,
    RewardRecipe,
    SamplingRecipe,
)
from sdg.scorers.weighted import ScorerRecipe

REWARD = RewardRecipe(scorers=(ScorerRecipe("a", "clip:x"),), detector="testbed", c_artifact=1.0)
RECIPE = AlignRecipe(
    policy=PolicyRecipe("flux", "x"),
    prompts=PromptsRecipe("x"),
    reward=REWARD,
    groups=GroupsRecipe(prompts=6, size=4),
    sampling=SamplingRecipe(batch_size=2),
)
