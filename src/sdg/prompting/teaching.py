"""What a teacher is asked to write about a picture whose defects are known (SDG App. B).

It answers in the wire format of a detector, so that its answers are read by the same reader.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final, Literal, get_args

from sdg.defects import SUBTYPES, Defect, DefectType, Diagnosis
from sdg.prompting.profile import AnswerParts, Generation, ImageLimits, PromptProfile
from sdg.prompting.wording import BLOCKS, CAPTION, THINK_STEPS, TIERS, TYPES
from sdg.response.strict import write_defect

Job = Literal["reasons", "think", "importance"]
"""reasons: expand each short reason; think: write the three-step trace; importance: score each defect."""
JOBS: Final[tuple[Job, ...]] = get_args(Job)

WORDS: Final = (18, 45)
"""Words of an expanded reason, from and to (SDG §3.1)."""
MOST_OF_AN_ANSWER: Final = 6000
"""Characters of an answer that are shown again to who gave it."""

_ROLE: Final = (
    "You write training data for a model that finds defects in pictures of text-to-image models. People have "
    "looked at this picture and marked its defects. You are shown what they marked, and you {tasks}."
)
_TASKS: Final[dict[Job, str]] = {
    "reasons": "expand each short note into evidence",
    "think": "write down how an inspector who sees only picture and caption would get there",
    "importance": "score how much each defect hurts the picture",
}
_GIVEN: Final = """The defects, as a JSON list. A box is left, top, right, bottom, as whole numbers from 0 \
to 1000 across the width and down the height of the picture:
{defects}"""
_CLEAN: Final = "The picture has no defect: the list is empty, and stays so."
_KEEP: Final = (
    "Keep every box and every label exactly as it is, in this order. Leave none out and add none, even where "
    "you see it otherwise."
)
_REASONS: Final = (
    '"description" says in one plain English sentence of {least} to {most} words what is wrong: it names the '
    "part, says where on the subject it is, and gives the concrete evidence that the picture shows. Its "
    "meaning is that of the note. It does not guess at causes and holds no coordinates."
)
_THINK: Final = (
    "Inside <think>, in English, under these headings. Write as one who finds the defects by looking: never "
    "mention notes, annotations, labels that were given, or that anything was known before. No coordinates."
)
_NO_BOX: Final = (
    "As the picture has no defect, step 2 says that everything fits, and step 3 says only: No box."
)
_TIER_KEY: Final = '"tier" is the name of the tier that the importance lies in.'
_AGAIN: Final = """Your last answer was:
{answer}

It cannot be used. {fault} Answer again, in whole, with this put right."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a teacher: which jobs, in one answer, and how many words a reason has."""

    jobs: tuple[Job, ...] = JOBS
    words: tuple[int, int] = WORDS

    @property
    def profile(self) -> PromptProfile:
        """The profile of a detector that is used as a teacher: `text` takes the place of its caption."""
        parts = AnswerParts("think" in self.jobs, description=self._describes, importance=self._scores)
        return PromptProfile(
            name=f"teacher-{'-'.join(self.jobs)}",
            template="{caption}",
            answer=parts,
            image=ImageLimits(longest_side=1024),
            generation=Generation(max_new_tokens=8192),
        )

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits of the whole wording, for provenance and manifests."""
        some = Diagnosis((Defect((0, 0, 1, 1), DefectType.ARTIFACT),))
        texts = [self.text("", some), self.text("", Diagnosis()), self.text("", some, ("", ""))]
        return hashlib.sha256(json.dumps([*texts, self.profile.digest]).encode()).hexdigest()[:12]

    def text(self, caption: str, given: Diagnosis, again: tuple[str, str] | None = None) -> str:
        """The text of the user turn for a picture; again: the answer before this one, and its fault."""
        tasks = [_TASKS[job] for job in self.jobs]
        listed = ", ".join(tasks[:-1]) + (" and " if tasks[1:] else "") + tasks[-1]
        sections = [_ROLE.format(tasks=listed), TYPES, CAPTION.replace("{caption}", caption)]
        sections.append(_GIVEN.replace("{defects}", self._listed(given)) if given.defects else _CLEAN)
        if given.defects:
            sections.append(_KEEP)
        sections.append(BLOCKS["think" in self.jobs])
        if "think" in self.jobs:
            sections.append("\n".join([_THINK, *THINK_STEPS.values()]))
            if not given.defects:
                sections.append(_NO_BOX)
        if given.defects:
            sections.append(self._answer())
        if again is not None:
            answer = again[0][:MOST_OF_AN_ANSWER] or "(nothing)"
            sections.append(_AGAIN.replace("{fault}", again[1]).replace("{answer}", answer))
        return "\n\n".join(sections)

    def _answer(self) -> str:
        item: dict[str, object] = {"box_2d": [120, 80, 310, 260], "label": "artifact"}
        rules = []
        if self._describes:
            item["description"] = "…"
            least, most = self.words
            rules.append(_REASONS.format(least=least, most=most))
        if self._scores:
            item |= {"importance": 55, "tier": "moderate"}
            rules += [TIERS, _TIER_KEY]
        example = json.dumps(item, ensure_ascii=False)
        return "\n".join(
            [f"Inside <answer>, the JSON list with one object for each defect:\n[\n  {example}\n]", *rules]
        )

    def _listed(self, given: Diagnosis) -> str:
        """The defects as the answer writes them, one a line; an importance that is asked for is not shown."""
        lines = []
        for defect in given.defects:
            item = write_defect(defect, description=bool(defect.reason), importance=not self._scores)
            if defect.subtype in SUBTYPES[defect.type]:
                item["kind"] = defect.subtype
            lines.append(json.dumps(item, ensure_ascii=False))
        return "[\n  " + ",\n  ".join(lines) + "\n]"

    @property
    def _describes(self) -> bool:
        return "reasons" in self.jobs

    @property
    def _scores(self) -> bool:
        return "importance" in self.jobs
