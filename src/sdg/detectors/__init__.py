"""Detectors: an image and its prompt in, a Diagnosis out, whatever model gives it.

`load_detector` makes one from a URI; `sdg.detectors.bulk` runs one over many images, resumably.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

from sdg.defects import Diagnosis, Status
from sdg.detectors.base import Detector, StreamingDetector
from sdg.errors import SdgError, quoted
from sdg.images import Pair, Source
from sdg.io import uri as _uri
from sdg.io.batch_function import BatchFunction
from sdg.io.uri import Uri, parse_uri

if TYPE_CHECKING:
    from PIL import Image

    from sdg.detectors.hf import TransformersDetector
    from sdg.prompting import PromptProfile

__all__ = ["BatchDiagnoser", "Detector", "Pair", "Source", "StreamingDetector", "load_detector"]

_LOG = logging.getLogger("sdg.detectors")


_UNION: Final = "union:"
_TESTBED: Final = f"{_uri.ALIASES['testbed']}.detector"
_FORMS: Final = {
    "testbed": "testbed",
    "hf": "hf:ORG/NAME, a checkpoint folder",
    "openai": "openai:BASE_URL#MODEL",
    "heatmap": "heatmap:FOLDER",
    "replay": "replay:FILE",
    "ocr": "ocr",
    "union": "union:URI|URI",
    "python": "python:MODULE.FUNCTION",
}


def load_detector(uri: str = "testbed", **options: object) -> StreamingDetector:
    """The detector of a URI; options given by name count before those in the URI.

    testbed                    the embedded weights, which know the testbed's world only; options as for hf
    hf:ORG/NAME, or a folder   batch_size, device, dtype, profile, revision
    openai:BASE_URL#MODEL      concurrency, timeout, attempts, key (name of an environment variable), profile,
                               structured (true: the answer is held to its grammar)
    these three also           temperature, looks, agree: see `sdg.detectors.consensus`
    heatmap:FOLDER             threshold, min_area
    replay:FILE.jsonl          profile
    ocr                        none: text unlike what the prompt quotes, and garbled text
    union:URI|URI              those of each URI, written there: what any of them finds, each defect once
    python:MODULE.FUNCTION     a function of (picture, prompt) that returns a Diagnosis; or a class, or
                               a function of keyword arguments alone, that makes a StreamingDetector

    Example: `load_detector("hf:out/grpo?batch_size=4", device="cpu").diagnose([("cat.png", "a cat")])`.
    profile is a TOML file, a `PromptProfile`, "release" for the authors' wording, or "default" for our own; a
    checkpoint's folder holds its own. A server does not say what its model was trained on: `openai:` without
    a profile asks in our wording, as suits a model trained on none, and says so
    once on stderr.
    Raises SdgError, in one sentence, for an unknown detector or option, and for weights that do not load.
    """
    if uri.startswith(_UNION):
        return _union(uri, options)
    parsed = parse_uri(uri, "detector", _FORMS, folder="hf")
    return _LOADERS[parsed.scheme](replace(parsed, options={**parsed.options, **as_in_uri(options)}))


def as_in_uri(options: Mapping[str, object]) -> dict[str, Any]:
    """Options given by name as a URI has them: texts, but for a `PromptProfile`; None is left out."""
    from sdg.prompting import PromptProfile

    return {
        name: value if isinstance(value, PromptProfile) else str(value)
        for name, value in options.items()
        if value is not None
    }


def parts_of(uri: str) -> list[str]:
    """The URIs of a union's detectors; of any other detector its own."""
    return [part.strip() for part in uri.removeprefix(_UNION).split("|")] if uri.startswith(_UNION) else [uri]


def answers_depend_on(uri: str) -> str:
    """`sdg.io.uri.answering` of a detector's or scorer's URI, of a union of each part: a server may move."""
    return "|".join(map(_uri.answering, parts_of(uri)))


def answers_by_path(uri: str) -> bool:
    """Whether a detector's URI names stored answers, which are of known pictures and of no new one."""
    return any(part.startswith(("heatmap:", "replay:")) for part in parts_of(uri))


def names_server(uri: str) -> bool:
    """Whether all that a detector's URI needs is a server, so that no model is loaded here."""
    if uri.startswith(_UNION):
        return all(map(names_server, parts_of(uri)))
    return parse_uri(uri, "detector", _FORMS, folder="hf").scheme == "openai"


def checkpoints_of(uri: str) -> list[str]:
    """The checkpoints, folders or names on a hub, that a detector's URI loads into this process."""
    found = [parse_uri(part, "detector", _FORMS, folder="hf") for part in parts_of(uri)]
    return [one.place for one in found if one.scheme == "hf"]


def needs_device(uri: str) -> bool:
    """Whether a detector's URI takes a `device` and names none, or "auto"."""
    if uri.startswith(_UNION):
        return False  # its parts may
    parsed = parse_uri(uri, "detector", _FORMS, folder="hf")
    takes = parsed.scheme == "hf" or parsed.place == _TESTBED
    return takes and parsed.options.get("device", "auto") == "auto"


def require_detector(uri: str) -> None:
    """Raise SdgError where a URI names no detector, or a function that is not there; nothing is loaded."""
    for part in parts_of(uri):
        parsed = parse_uri(part, "detector", _FORMS, folder="hf")
        if parsed.scheme == _uri.PYTHON:
            _uri.require_made(parsed, 2)


class BatchDiagnoser(BatchFunction[StreamingDetector, Diagnosis]):
    """A detector as a function of columns: `sdg.load_detector(uri, **options)`, loaded on the first call.

    In: `image` and `prompt`, see `BatchFunction`. Out: the same columns and `response` (the raw text, None
    without one), `status`, `error` (one sentence, None where there is an answer) and `defects`, of each row
    a list of `Defect.to_dict()`: [] for a clean image, None where nothing is known. Raises SdgError as
    `load_detector` does, and for a detector that answers by path (`replay:`, `heatmap:`).

    Example: `dataset.map_batches(BatchDiagnoser("testbed"), batch_size=32)` with Ray Data.
    """

    def __init__(self, uri: str = "testbed", **options: object) -> None:
        super().__init__(uri, **options)

    def _load(self) -> StreamingDetector:
        detector = load_detector(self.uri, **self.options)
        if detector.stored:
            raise SdgError("Stored answers are looked up among all images of a run; use `sdg diagnose`.")
        return detector

    def _run(
        self, loaded: StreamingDetector, pairs: Sequence[tuple[Image.Image, str]]
    ) -> Sequence[Diagnosis]:
        return loaded.diagnose(pairs)

    def _unread(self, reason: str) -> Diagnosis:
        return Diagnosis(status=Status.FAILED, error=reason)

    def _columns(self) -> Sequence[str]:
        return "response", "status", "error", "defects"

    def _features(self) -> Mapping[str, Any]:
        from datasets import List, Value

        text, number = Value("string"), Value("int32")
        defect = {"box": List(number, 4), "type": text, "reason": text, "importance": number, "subtype": text}
        return {"response": text, "status": text, "error": text, "defects": List(defect)}

    def _row(self, result: Diagnosis) -> Mapping[str, Any]:
        return {
            "response": result.raw or None,
            "status": result.status.value,
            "error": result.error or None,
            "defects": result.known_defects(),
        }


def load_checkpoint(uri: Uri, kind: type[TransformersDetector] | None = None) -> StreamingDetector:
    """The detector of the checkpoint at `uri.place`, as a `kind`, by default `TransformersDetector`.

    Options are those of `hf:` in `load_detector`; raises SdgError as it does.
    """
    from sdg.detectors import hf
    from sdg.prompting.chat import checkpoint_profile

    known = {
        "batch_size": _uri.count,
        "device": _uri.text,
        "dtype": _uri.one_of(*hf.DTYPES),
        "profile": _uri.text,
        "revision": _uri.text,
    }
    _uri.require_place(uri.place, "; check the path, or name a model on a hub as hf:ORG/NAME.")
    values = _with_profile(uri, known | _SAMPLING)
    profile = values.pop("profile") or checkpoint_profile(uri.place, values.get("revision"))
    return _sampled(values, profile, partial(kind or hf.TransformersDetector, uri.place))


def _openai(uri: Uri) -> StreamingDetector:
    from sdg.detectors.openai import OpenAIDetector
    from sdg.prompting import PromptProfile

    known = {
        "concurrency": _uri.count,
        "timeout": _uri.seconds,
        "attempts": _uri.count,
        "key": _uri.variable,
        "profile": _uri.text,
        "structured": _uri.switch,
    }
    base_url, _, model = uri.place.partition("#")
    if not (base_url and model):
        raise SdgError("Write openai:BASE_URL#MODEL, such as openai:http://localhost:8000/v1#ORG/NAME.")
    values = _with_profile(uri, known | _SAMPLING)
    profile = values.pop("profile")
    if "key" in values:
        values["key_name"] = values.pop("key")
    detector = _sampled(values, profile or PromptProfile(), partial(OpenAIDetector, base_url, model))
    if profile is None:
        _say_our_wording(model)
    return detector


@cache  # once a model
def _say_our_wording(model: str) -> None:
    _LOG.warning(
        "%s is asked in our own wording, as no profile is named; right for a model trained on none, wrong "
        "for a trained detector. Name profile=FILE or profile=release, or profile=default to confirm.",
        model,
    )


def _heatmap(uri: Uri) -> StreamingDetector:
    from sdg.detectors.heatmap import HeatmapDetector

    options = _uri.read_options(uri, {"threshold": _uri.share, "min_area": _uri.share})
    return HeatmapDetector(uri.place, **options)


def _replay(uri: Uri) -> StreamingDetector:
    from sdg.detectors.replay import ReplayDetector

    profile = _with_profile(uri, {"profile": _uri.text})["profile"]
    return ReplayDetector(uri.place, require_think=profile is None or profile.answer.think)


def _ocr(uri: Uri) -> StreamingDetector:
    from sdg.detectors.text import OcrDetector

    _uri.read_options(uri, {})
    return OcrDetector()


def _union(uri: str, options: Mapping[str, object]) -> StreamingDetector:
    """Before the URI is taken apart: its parts have options of their own."""
    from sdg.detectors.union import UnionDetector

    parts = parts_of(uri)
    if len(parts) < 2 or not all(parts):
        raise SdgError(f"{quoted(uri)} does not name two detectors; write union:URI|URI, in quotes.")
    if given := [name for name, value in options.items() if value is not None]:
        raise SdgError(
            f"A union takes no {given[0]}; write it behind its own URI, as union:ocr|testbed?{given[0]}=…"
        )
    return UnionDetector([load_detector(part) for part in parts])


def _python(uri: Uri) -> StreamingDetector:
    from sdg.detectors.base import FunctionDetector, MadeDetector

    found = _uri.made_by(uri, 2, partial(FunctionDetector, str(uri)), "stream")
    return found if type(found) is FunctionDetector else MadeDetector(str(uri), found)


_SAMPLING = {"looks": _uri.count, "temperature": _uri.temperature, "agree": _uri.positive_share}


def _sampled(
    values: dict[str, Any], profile: PromptProfile, detector: Callable[..., StreamingDetector]
) -> StreamingDetector:
    """The detector asked at the `temperature` of the values, and `looks` times a picture.

    Options other than `looks`, `agree` and `temperature` are passed on to `detector`, after the profile.
    """
    options = {name: values.pop(name) for name in _SAMPLING if name in values}
    looks = options.get("looks", 1)
    if looks == 1 and "agree" in options:
        raise SdgError("`agree` is a share of several looks; add looks=8, or leave it out.")
    # Greedy answers would all be the same one.
    temperature = options.get("temperature", profile.generation.temperature or float(looks > 1))
    if looks > 1 and temperature == 0:
        raise SdgError("At temperature 0 all looks are the same; leave one of the two options out.")
    sampling = replace(profile, generation=replace(profile.generation, temperature=temperature))
    if looks == 1:
        return detector(sampling, **values)
    from sdg.detectors.consensus import AGREE, ConsensusDetector

    return ConsensusDetector(detector(sampling, **values), looks, options.get("agree", AGREE))


def _with_profile(uri: Uri, known: dict[str, Any]) -> dict[str, Any]:
    """The options, with `profile` read from its file; None where none is given."""
    from sdg.prompting.chat import given_profile

    values = _uri.read_options(uri, known)
    return {**values, "profile": given_profile(values.get("profile"))}


_LOADERS: Final[Mapping[str, Callable[[Uri], StreamingDetector]]] = {
    "hf": load_checkpoint,
    "openai": _openai,
    "heatmap": _heatmap,
    "replay": _replay,
    "ocr": _ocr,
    "python": _python,
}
