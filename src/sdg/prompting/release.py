"""The authors' own wording, `profile=release`: read from their published code, parsed and never executed.

The text itself is theirs and no part of this package. It comes from a clone that SDG_RELEASE names, from the
cache, or from one file of their repository at a pinned commit, whose digest is checked.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sdg.errors import SdgError, path_end
from sdg.io.download import pinned_file
from sdg.io.files import cache_folder, is_folder, read_bytes
from sdg.prompting.constants import MAX_BYTES, read_constant
from sdg.prompting.profile import Generation, ImageLimits, PromptProfile

CLONE: Final = "SDG_RELEASE"
"""The environment variable that names a clone of the release."""
REPOSITORY: Final = "nianbai006/SDG"
COMMIT: Final = "23745709975315b3cf86a589629e28ed3525d35a"
_REWARDS: Final = "boxflow_grpo/src/flow_factory/rewards"
_LOG = logging.getLogger("sdg.prompting")


@dataclass(frozen=True, slots=True)
class ReleasedText:
    """A constant of a Python file of the release: path within it, name, SHA-256 of the file's bytes."""

    path: str
    constant: str
    sha256: str
    address: str = f"https://raw.githubusercontent.com/{REPOSITORY}/{COMMIT}"

    def read(self) -> str:
        """The text; raises SdgError, saying what to put where, if it can be had from nowhere."""
        return read_constant(self._clone() or self._cached(), self.constant)

    def _clone(self) -> Path | None:
        """The file in the clone that SDG_RELEASE names, None where that is not set."""
        folder = os.environ.get(CLONE)
        if not folder:
            return None
        file = Path(folder) / self.path
        if not is_folder(folder) or not file.is_file():
            raise SdgError(
                f"{CLONE} is {path_end(folder)}, where {self.path} is not; "
                f"name a clone of github.com/{REPOSITORY}, or unset it."
            )
        if not self._is_pinned(read_bytes(file, MAX_BYTES)):
            _LOG.warning(
                "%s differs from that of commit %s, with which the released models are known to work.",
                path_end(str(file)),
                COMMIT[:8],
            )
        return file

    def _cached(self) -> Path:
        """The file in the cache, fetched where it is not there or is another than the pinned one."""
        file = cache_folder() / "release" / COMMIT[:8] / Path(self.path).name
        otherwise = f"clone github.com/{REPOSITORY} and set {CLONE} to it, or put that file to {file}"
        return pinned_file(f"{self.address}/{self.path}", file, self._is_pinned, otherwise, MAX_BYTES)

    def _is_pinned(self, content: bytes) -> bool:
        lines = content.replace(b"\r\n", b"\n")  # as a clone on Windows has them
        return hashlib.sha256(lines).hexdigest() == self.sha256


DETECTOR: Final = ReleasedText(
    f"{_REWARDS}/dense_grpo_rewards.py",
    "SFT_THINKPE_IMP_TEMPLATE",
    "818ca6911b9d512ab0a1de017a0a35f6a049fa588523505af5ea741c647da08e",
)
"""What the released detectors were trained with."""
UNIFIED_REWARD: Final = ReleasedText(
    f"{_REWARDS}/ur2_scalar.py",
    "UR2_QUESTION",
    "c241f78a00416f187489e707911a6eaba8f5440cc455bcafd71347023f23a182",
)
"""How the release asks UnifiedReward-2.0 for the base reward."""


def detector_profile() -> PromptProfile:
    """The profile of the released detectors: wording, system turn and limits of their training."""
    return PromptProfile(
        name="release",
        system="You are a helpful assistant. ",
        template=DETECTOR.read(),
        doubled_braces=True,
        image=ImageLimits(min_pixels=200704, max_pixels=1280000),
        generation=Generation(max_new_tokens=4096),
    )


def unified_reward_profile() -> PromptProfile:
    """How the release asks UnifiedReward-2.0: no system turn, pictures of up to 512 pixels a side."""
    return PromptProfile(
        name="unified-reward-release",
        system="",
        template=UNIFIED_REWARD.read(),
        placeholder="{prompt}",
        doubled_braces=True,
        image=ImageLimits(longest_side=512),
        generation=Generation(max_new_tokens=512),
    )
