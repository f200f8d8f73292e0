"""`PromptProfile`: what a model is told, what it is to answer, and the limits on pixels and tokens."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from sdg.errors import SdgError, path_end, shortened
from sdg.io.files import atomic_writer, is_folder, read_text
from sdg.prompting.constants import read_constant
from sdg.prompting.wording import STEPS, default_template
from sdg.recipes import MAX_BYTES, MAX_DEPTH, parse_recipe, to_document

_KEY: Final = r"""(?:(?<![A-Za-z0-9_-])[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY: Final = re.compile(rf"{_KEY}(?:[ \t]*+\.[ \t]*+{_KEY}){{{MAX_DEPTH}}}")
_CAPTION: Final = "\0caption\0"
"""What no template holds: where it is put in, any caption is."""

MOST_PIXELS: Final = 2**26
"""To so many pixels may a profile enlarge: it comes with a checkpoint, whoever made that."""

PROFILE_FILE: Final = "sdg_profile.toml"
"""Name of the profile in a checkpoint's folder."""

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AnswerParts:
    """What the response is asked to hold; the ablations of SDG Table 7 are these switches.

    Raises ValueError for steps other than 1, 2, 3 in ascending order.
    """

    think: bool = True  # the think block
    steps: tuple[int, ...] = STEPS  # which of its three steps; none without `think`
    description: bool = True  # of each defect: its reason
    importance: bool = True  # of each defect

    def __post_init__(self) -> None:
        steps = tuple(self.steps) if self.think else ()
        if steps != tuple(step for step in STEPS if step in steps) or (self.think and not steps):
            raise ValueError(f"steps is a choice of 1, 2, 3 in this order, not {list(self.steps)}.")
        object.__setattr__(self, "steps", steps)

    def rendering(self) -> dict[str, bool]:
        """Keyword arguments for `render_response` that leave out what is not asked for."""
        return {"think": self.think, "description": self.description, "importance": self.importance}

    def gate(self) -> dict[str, bool]:
        """Keyword arguments for `format_fault` and `composite_rewards` that demand what is asked for."""
        return {f"require_{part}": wanted for part, wanted in self.rendering().items()}


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits in pixels before the model's own processor; None is no limit.

    Raises ValueError for a limit below 1 and for min_pixels above max_pixels or above MOST_PIXELS.
    """

    min_pixels: int | None = None  # smaller pictures are enlarged to this area
    max_pixels: int | None = None  # larger pictures are reduced to this area
    longest_side: int | None = None  # longer ones are reduced to it

    def __post_init__(self) -> None:
        for name in ("min_pixels", "max_pixels", "longest_side"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise ValueError(f"{name} is at least 1, not {limit}.")
        if self.min_pixels and self.min_pixels > MOST_PIXELS:
            raise ValueError(f"min_pixels is at most {MOST_PIXELS}, not {self.min_pixels}.")
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is above max_pixels {self.max_pixels}.")

    def fit(self, width: int, height: int) -> tuple[int, int]:
        """Width and height within the limits, the aspect ratio kept up to whole pixels.

        The upper limits hold always (but no side is below 1); the lower one up to a pixel a side, and only
        as far as the upper ones let it.
        """
        area = width * height
        upper = math.inf
        if self.longest_side:
            upper = min(upper, self.longest_side / max(width, height))
        if self.max_pixels:
            upper = min(upper, math.sqrt(self.max_pixels / area))
        lower = math.sqrt(self.min_pixels / area) if self.min_pixels else 0.0
        scale = min(max(1.0, lower), upper)
        if scale == 1:
            return width, height
        # Up to whole pixels from below, down from above; the hair keeps 1024.0 from becoming 1023.
        w, h = math.ceil(width * scale - 1e-9), math.ceil(height * scale - 1e-9)
        if scale < upper and w * h <= (self.max_pixels or math.inf):
            return w, h
        return max(1, math.floor(width * scale + 1e-9)), max(1, math.floor(height * scale + 1e-9))


@dataclass(frozen=True, slots=True)
class Generation:
    """How a response is sampled: greedy at temperature 0, as everywhere but in roll-outs (SDG App. D.5)."""

    max_new_tokens: int = 4096  # of a response
    temperature: float = 0.0  # 0 is greedy
    top_p: float = 1.0  # share of the probability that is sampled from
    seed: int = 0  # of sampling

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is at least 1, not {self.max_new_tokens}.")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature is a number of at least 0, not {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is above 0 and at most 1, not {self.top_p}.")
        if self.seed < 0:
            raise ValueError(f"seed is at least 0, not {self.seed}.")


@dataclass(frozen=True, slots=True)
class PromptProfile:
    """All that a detector checkpoint needs beside its weights to be asked as it was trained.

    Without a template the default wording is composed from `answer`; so build an ablation with its `answer`
    (`dataclasses.replace` would keep the composed text). Raises ValueError for a template without its
    placeholder.
    """

    name: str = "default"  # of the profile
    system: str = "You are a helpful assistant."  # text of the system turn; "" leaves that turn out
    template: str | None = None  # text of the user turn; null is the default wording for `answer`
    placeholder: str = "{caption}"  # what the caption replaces in the template
    doubled_braces: bool = False  # the template is one for `str.format`: "{{" stands for "{"
    answer: AnswerParts = field(default_factory=AnswerParts)
    image: ImageLimits = field(default_factory=lambda: ImageLimits(longest_side=1024))
    generation: Generation = field(default_factory=Generation)

    def __post_init__(self) -> None:
        if not self.placeholder:
            raise ValueError("placeholder is the text that the caption replaces; it cannot be empty.")
        if self.template is None:
            text = default_template(**asdict(self.answer))
            for name, value in (("template", text), ("placeholder", "{caption}"), ("doubled_braces", False)):
                object.__setattr__(self, name, value)
        elif _CAPTION not in self.user_text(_CAPTION):  # in braces that are undone, it is not put in
            raise ValueError(
                f"the template does not say where the caption goes: it has no {self.placeholder}."
            )

    def user_text(self, caption: str) -> str:
        """Text of the user turn for one caption, put in as it is, whatever braces it holds."""
        assert self.template is not None
        if not self.doubled_braces:
            return self.template.replace(self.placeholder, caption)
        marks = {"{{": "{", "}}": "}", self.placeholder: caption}
        pattern = "|".join(map(re.escape, marks))  # one pass: nothing put in is looked at again
        return re.sub(pattern, lambda mark: marks[mark[0]], self.template)

    def render(self, caption: str, image: Message | None = None) -> list[Message]:
        """Chat messages for one picture: the system turn, then the image and the text of the user turn.

        image: the part that stands first in the user turn, by default `{"type": "image"}` as a placeholder;
        an `<image>` that a template begins with means just that and is dropped. Raises SdgError for a
        caption that is not text.
        """
        if not isinstance(caption, str):
            raise SdgError(f"A prompt is text, not {type(caption).__name__}.")
        parts = [image or {"type": "image"}, {"type": "text", "text": self._text_of_turn(caption)}]
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": parts}]

    def caption_in(self, text: str) -> str | None:
        """The caption in a user turn's text; None where the text is not of this profile's template."""
        pieces = self._text_of_turn(_CAPTION).split(_CAPTION)
        length, rest = divmod(len(text) - sum(map(len, pieces)), len(pieces) - 1)
        caption = text[len(pieces[0]) : len(pieces[0]) + max(0, length)]
        return caption if rest == 0 and self._text_of_turn(caption) == text else None

    def _text_of_turn(self, caption: str) -> str:
        text = self.user_text(caption)
        if self.template and self.template.startswith("<image>"):
            text = text.removeprefix("<image>")
        return text

    @property
    def digest(self) -> str:
        """SHA-256 over everything in the profile, in hexadecimal, for run manifests."""
        text = json.dumps(to_document(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the profile, its text included, as `sdg_profile.toml` into a folder; returns the path.

        Raises SdgError where it cannot be written.
        """
        import tomli_w  # late: only training writes profiles

        path = Path(folder) / PROFILE_FILE
        document = _without_none(to_document(self))
        # Several lines are easier to read, but would lose carriage returns.
        multiline = "\r" not in self.system + str(self.template)
        try:
            content = tomli_w.dumps(document, multiline_strings=multiline).encode()
        except UnicodeEncodeError:
            raise SdgError(
                f"{path} cannot be written: the profile's text has half a character in it."
            ) from None
        with atomic_writer(path) as file:
            file.write(content)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PromptProfile:
        """Read a profile from a TOML file, or from the `sdg_profile.toml` of a checkpoint's folder.

        Instead of `template` a file may have `template_from = {file = "prepare.py", constant = "PROMPT"}`:
        the text is read out of that Python file (relative to the profile), which is parsed, not executed.
        In an `[image]` section a limit that is not given is none. Raises SdgError naming every fault, an
        unknown key with the nearest known one, and for a file larger than any profile.
        """
        path = Path(path)
        if is_folder(path):
            path /= PROFILE_FILE
            if not path.exists():
                raise SdgError(
                    f"{path_end(str(path.parent))} holds no {PROFILE_FILE}; put the profile there that the "
                    "detector was trained with, or give one: it only works with its own wording."
                )
        name, text = path_end(str(path)), read_text(path, MAX_BYTES)
        if _LONG_KEY.search(text):  # tomllib takes quadratic time for these
            raise SdgError(f"{name} is no profile: it has a key of more than {MAX_DEPTH} parts.")
        try:
            document = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # of numbers of thousands of digits, too
            raise SdgError(f"{name} is not valid TOML: {shortened(str(error), 150)}.") from None
        if "template_from" in document:
            if "template" in document:
                raise SdgError(f"{name} has both template and template_from; keep one.")
            source = parse_recipe(
                _TemplateSource, {"template_from": document.pop("template_from")}, str(path)
            )
            where = source.template_from
            document["template"] = read_constant(path.parent / where.file, where.constant)
        return parse_recipe(cls, document, str(path))


@dataclass(frozen=True)
class _Constant:
    file: Path
    constant: str


@dataclass(frozen=True)
class _TemplateSource:
    template_from: _Constant


def _without_none(document: dict[str, Any]) -> dict[str, Any]:
    """TOML has no null; an absent limit reads back as none."""
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in document.items()
        if value is not None
    }
