"""A function of columns, for whoever brings rows in batches: Ray Data, Daft, Spark, `datasets.map`.

All of these take a callable that gets columns and gives columns, and make copies of it in other processes.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar
from uuid import uuid4

import numpy as np
from PIL import Image

from sdg.errors import SdgError, quoted
from sdg.images import load_image_bytes, rgb_picture

T = TypeVar("T")
R = TypeVar("R")
Batch = dict[str, list[Any]]

_LOADED_BY_COPIES: Final[dict[str, Any]] = {}
_MOST_KEPT: Final = 4  # such as a detector and a few scorers, of one pipeline


class BatchFunction(ABC, Generic[T, R]):
    """Columns in, the same columns and new ones out; what runs is loaded on the first call, once a process.

    A batch, a mapping, a pandas frame or a pyarrow table, has `image` and `prompt`, of one length. An image
    is the content of a file, a path, a PIL picture, an array of pixels, or `{"bytes": …, "path": …}` as
    Hugging Face datasets have it. A row that cannot be read costs itself alone. Pickling leaves out what was
    loaded; the copies in one process share what the first of them loads, as Ray makes a copy for each of its
    tasks.
    """

    def __init__(self, uri: str, **options: object) -> None:
        self.uri, self.options = uri, options
        self._loaded: T | None = None
        self._token, self._is_copy = uuid4().hex, False

    def __call__(self, batch: Any) -> Batch:
        """The batch's columns as lists, with those of the results.

        Raises SdgError where one of the two columns is missing or shorter than the other, where a column is
        called as one of the results, and for what concerns every row, such as weights that do not load.
        """
        if hasattr(batch, "to_pydict"):  # of pyarrow
            batch = batch.to_pydict()
        for name in ("image", "prompt"):
            if name not in batch:
                known = ", ".join(quoted(column) for column in batch) or "none"
                raise SdgError(f"A batch has the columns `image` and `prompt`; this one has {known}.")
        self._require_free(batch)
        columns = {name: list(values) for name, values in batch.items()}
        if len(columns["image"]) != len(columns["prompt"]):
            raise SdgError("The columns `image` and `prompt` of a batch have one length.")
        loaded = self._what_runs()
        asked: dict[int, tuple[Image.Image, str]] = {}
        results: dict[int, R] = {}
        for row, (image, prompt) in enumerate(zip(columns["image"], columns["prompt"], strict=True)):
            try:
                if not isinstance(prompt, str):
                    raise SdgError(f"A prompt is text, not {type(prompt).__name__}.")
                asked[row] = _picture(image), prompt
            except SdgError as error:
                results[row] = self._unread(str(error))
        if asked:
            results |= zip(asked, self._run(loaded, list(asked.values())), strict=True)
        rows = [self._row(results[row]) for row in range(len(columns["image"]))]
        return columns | {name: [row[name] for row in rows] for name in self._columns()}

    def features(self, given: Mapping[str, Any]) -> Any:
        """`datasets.Features`: those of a Hugging Face dataset, and those of the results.

        `dataset.map(function, batched=True, features=function.features(dataset.features))`. Without them it
        takes the types from its first rows, and ends where a later row has the first error, or defect.
        Raises SdgError where a column is called as one of the results.
        """
        from datasets import Features

        self._require_free(given)
        return Features({**given, **self._features()})

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None, "_is_copy": True}

    def _require_free(self, given: Iterable[str]) -> None:
        names = set(given)
        if taken := next((name for name in self._columns() if name in names), None):
            raise SdgError(
                f"The batch has a column {taken!r} already, which the results would replace; rename it."
            )

    def _what_runs(self) -> T:
        if self._loaded is None and self._is_copy:
            self._loaded = _LOADED_BY_COPIES.get(self._token)
        if self._loaded is None:
            self._loaded = self._load()
            if self._is_copy:
                while len(_LOADED_BY_COPIES) >= _MOST_KEPT:
                    del _LOADED_BY_COPIES[next(iter(_LOADED_BY_COPIES))]
                _LOADED_BY_COPIES[self._token] = self._loaded
        return self._loaded

    @abstractmethod
    def _load(self) -> T:
        """What runs."""

    @abstractmethod
    def _run(self, loaded: T, pairs: Sequence[tuple[Image.Image, str]]) -> Sequence[R]:
        """One result a pair."""

    @abstractmethod
    def _unread(self, reason: str) -> R:
        """The result of a row that could not be read."""

    @abstractmethod
    def _columns(self) -> Sequence[str]:
        """Names of the new columns."""

    @abstractmethod
    def _features(self) -> Mapping[str, Any]:
        """The new columns as features of Hugging Face datasets."""

    @abstractmethod
    def _row(self, result: R) -> Mapping[str, Any]:
        """A result as values of the new columns."""


def _picture(value: Any) -> Image.Image:
    """An image of a batch; raises SdgError where it is none."""
    if isinstance(value, Mapping):  # of Hugging Face datasets
        content, path = value.get("bytes"), value.get("path")
        value = path if content is None else content
    if isinstance(value, bytes | bytearray | memoryview):
        return load_image_bytes(bytes(value), "The image")
    if isinstance(value, str | os.PathLike | Image.Image | np.ndarray):
        return rgb_picture(value)
    raise SdgError(f"An image is bytes, a path, a picture or an array, not {type(value).__name__}.")
