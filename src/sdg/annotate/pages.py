"""What each phase asks for: the labelling page, its heading, and the name that is shown for what is drawn."""

from __future__ import annotations

from typing import Final

from sdg.annotate.protocol import ADJUDICATION, PASS_1, PASS_2
from sdg.annotate.results import ACCEPT, COMMENT, FIX, REJECT, VERDICT
from sdg.data.formats.label_studio import header, labelling_config

_ASKED: Final = {
    PASS_1: "Mark everything that is wrong with the picture, or that contradicts its prompt",
    PASS_2: "Your first pass is drawn. Go over the whole picture once more: what did you miss?",
    "review": "Somebody annotated this. Accept it, fix it yourself, or reject it and say why",
    ADJUDICATION: "Two people annotated this and disagree. Keep what is right, mend or delete the rest",
}
_DRAWN: Final = {
    PASS_1: "proposals",
    PASS_2: "your first pass",
    "review": "to review",
    ADJUDICATION: "two annotations",
}
_REVIEW: Final = f"""    {header("Verdict on what is drawn")}
    <Choices name="{VERDICT}" toName="image" choice="single" showInline="true" required="true"
             requiredMessage="Accept, fix or reject">
      <Choice value="{ACCEPT}"/>
      <Choice value="{FIX}"/>
      <Choice value="{REJECT}"/>
    </Choices>
    <TextArea name="{COMMENT}" toName="image" rows="2" editable="true" maxSubmissions="1"
              showSubmitButton="false"
              placeholder="Comment; a rejection needs one"/>
"""


def asked(phase: str) -> str:
    """What a person is to do, in one sentence."""
    return _ASKED[_kind(phase)]


def drawn(phase: str, attempt: int) -> str:
    """What the regions are called that a task begins with."""
    return _DRAWN[_kind(phase)] if attempt == 1 else "to look at again"


def config(phase: str) -> str:
    """The labelling configuration (XML); its heading is each task's `note`."""
    return labelling_config(heading="$note", above=_REVIEW if _kind(phase) == "review" else "")


def _kind(phase: str) -> str:
    return "review" if phase.startswith("review") else phase
