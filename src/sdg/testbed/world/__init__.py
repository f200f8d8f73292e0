"""The testbed's world: scenes of coloured shapes, the prompts that ask for them, and how they are drawn."""

from sdg.testbed.world.layout import sample_scene
from sdg.testbed.world.renderer import render

__all__ = ["render", "sample_scene"]
