"""Before a teacher's run: what all will cost, and on a page what it wrote about a sample.

Tokens are estimates: four characters of English are one, and so are 32 by 32 pixels of a picture.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from sdg.data.formats.sdg30k import from_annotation
from sdg.errors import SdgError, quoted
from sdg.images import image_size
from sdg.models.vlm import LETTERS
from sdg.reporting import Entry, Gallery, Report, Tables, write_report
from sdg.reporting.page import Section
from sdg.tables import Table
from sdg.teacher.enrich import ACCEPTED, Enriched
from sdg.teacher.plan import Given, Stage

PATCH: Final = 32  # pixels, wide and high, of a token
_TOKENS_A_WORD: Final = 1.4
_ITEM: Final = 45  # tokens of an item without its description
_STEPS: Final = 120  # tokens of steps 1 and 2
_LINE: Final = 45  # tokens of what is said of a defect in steps 2 and 3


@dataclass(frozen=True, slots=True)
class Estimate:
    """Requests if each answer is accepted at once, and if none is; tokens where each is."""

    images: int
    requests: int
    most_requests: int
    tokens_in: int
    tokens_out: int

    def price(self, per_million: tuple[float, float]) -> float:
        """The price of the tokens, at so much for a million in and out."""
        return (self.tokens_in * per_million[0] + self.tokens_out * per_million[1]) / 1e6

    def to_dict(self, per_million: tuple[float, float] | None = None) -> dict[str, Any]:
        """JSON values."""
        value = asdict(self)
        return value if per_million is None else value | {"price": round(self.price(per_million), 4)}

    def table(self, per_million: tuple[float, float] | None = None) -> Table:
        """The same, to print."""
        rows = [
            ("images", f"{self.images:,}"),
            ("requests, if each answer is accepted at once", f"{self.requests:,}"),
            ("requests at most", f"{self.most_requests:,}"),
            ("tokens in, about", f"{self.tokens_in:,}"),
            ("tokens out, about", f"{self.tokens_out:,}"),
        ]
        if per_million is not None:
            rows.append(("price, about", f"{self.price(per_million):,.2f}"))
        return Table("What it will cost", ("", "estimate"), tuple(rows))


def estimate(given: Iterable[Given], stages: Iterable[Stage], tries: int) -> Estimate:
    """The estimate for all images and stages; raises SdgError where a picture's size cannot be read."""
    stages = list(stages)
    images = requests = tokens_in = tokens_out = 0
    for one in given:
        images += 1
        for stage in stages:
            if not stage.asks(one):
                continue
            requests += 1
            profile = stage.question.profile
            width, height = profile.image.fit(*image_size(one.file))
            text = stage.question.text(one.record.prompt, one.diagnosis)
            tokens_in += -(-width // PATCH) * -(-height // PATCH) + -(-len(text) // LETTERS)
            tokens_out += _answer_tokens(len(one.diagnosis.defects), stage)
    return Estimate(images, requests, requests * tries, tokens_in, tokens_out)


def read_price(text: str) -> tuple[float, float]:
    """ "IN/OUT", the price of a million tokens in and out; raises SdgError for anything else."""
    before, _, after = text.partition("/")
    try:
        price = float(before), float(after)
    except ValueError:
        price = (-1.0, -1.0)
    if not all(0 <= value < 1e6 for value in price):
        raise SdgError(
            f"A price is IN/OUT, for a million tokens each, such as 0.30/2.50, not {quoted(text)}."
        )
    return price


def _answer_tokens(defects: int, stage: Stage) -> int:
    jobs, (least, most) = stage.question.jobs, stage.question.words
    words = (least + most) / 2 * _TOKENS_A_WORD if "reasons" in jobs else 0
    trace = _STEPS + _LINE * defects if "think" in jobs else 0
    return round(trace + defects * (_ITEM + words))


def write_page(
    given: Sequence[Given], result: Enriched, path: str | os.PathLike[str], title: str, note: str = ""
) -> Path:
    """Write the pictures with what is accepted, each reason beside what it was, and what was refused.

    Raises SdgError where the file cannot be written.
    """
    entries, reasons, refused = [], [], []
    for one in given:
        row = result.rows[one.key]
        name = one.record.filepath
        if row["status"] == ACCEPTED:
            record = from_annotation(row["annotation"])
            assert record.diagnosis is not None
            entries.append(Entry(name, record.prompt, record.diagnosis, record.generator, one.file))
            pairs = zip(one.diagnosis.defects, record.diagnosis.defects, strict=True)
            reasons += [(name, *_score(a.importance, b.importance), a.reason, b.reason) for a, b in pairs]
        refused += [(name, fault["kind"], fault["fault"]) for fault in row["faults"]]
        if row.get("error"):
            refused.append((name, "no answer", row["error"]))
    counts = [(status, f"{count:,}") for status, count in sorted(result.statuses.items())]
    sections: list[Section] = [
        Gallery(entries, "Accepted", "Boxes and labels are as they were given; texts are the teacher's."),
        _section("Reasons", ("picture", "importance", "now", "given", "written"), reasons),
        _section(
            "Refused answers", ("picture", "kind", "fault"), refused, "Asked again, or left for a person."
        ),
        _section("Pictures", ("status", "pictures"), counts),
    ]
    if result.votes.pairs:
        sections.append(Tables("Votes", (result.votes.table(),)))
    return write_report(Report(title, sections, note), path)


def _section(title: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]], note: str = "") -> Tables:
    return Tables(title, (Table(columns[0], columns, tuple(rows)),), note)


def _score(before: int | None, after: int | None) -> tuple[str, str]:
    return "–" if before is None else str(before), "–" if after is None else str(after)
