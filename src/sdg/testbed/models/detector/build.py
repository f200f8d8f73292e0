"""An untrained Qwen3-VL of the testbed's size with its own tokenizer and processor, in the standard layout.

One token is one word, one number, or one fixed piece of the answer's JSON, so that a whole target has about
a hundred tokens; whatever else a text holds falls back to bytes, so that any prompt can be read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from sdg.defects import BOX_SCALE

SIZE: Final = 128
PATCH: Final = 8
MERGE: Final = 2
HIDDEN: Final = 192

_SPECIAL: Final = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Ordinary tokens although they are fixed texts: a reward must see them after decoding without special tokens.
_FRAGMENTS: Final = (
    "<think>\n",
    "\n</think>\n<answer>\n",
    "\n</answer>",
    "[]",
    "[\n",
    "\n]",
    '{"box_2d": [',
    '], "label": "artifact", "description": "',
    '], "label": "misalignment", "description": "',
    '], "label": "',
    '", "importance": ',
    "},\n",
)
_BOX_STYLE: Final = "0, 0], 0} ],\n  0"
"""The separators within and around a box's numbers, for which no word of a text has a token."""
_SPACE: Final = "Ġ"  # how the byte alphabet writes a space
_PIECES: Final = r", (?=\d)|\d+| ?[A-Za-z]+|\n+|[^\sA-Za-z\d]+| +"

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part.type == 'text' %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}"
    "<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def new_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Tokenizer whose whole words are those of `texts`, plus every number from 0 to 1000."""
    splitter = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
    to_bytes = ByteLevel(add_prefix_space=False, use_regex=False)
    pre_tokenizer = pre_tokenizers.Sequence([splitter, to_bytes])
    pieces: dict[str, None] = {}
    for text in (*texts, _BOX_STYLE):
        for fragment in _FRAGMENTS:
            text = text.replace(fragment, "\n")
        pieces |= dict.fromkeys(piece for piece, _ in pre_tokenizer.pre_tokenize_str(text))
    # A word is one token at the start of a line, within quotes, and after a space.
    bare = dict.fromkeys(piece.removeprefix(_SPACE) for piece in pieces)
    pieces |= bare | dict.fromkeys(_SPACE + word for word in bare if word.isalpha())
    pieces.pop("", None)
    words = [*sorted(ByteLevel.alphabet()), *map(str, range(BOX_SCALE + 1)), *sorted(pieces)]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    # With no merges and whole pieces looked up first, a piece is one token if known, else its bytes.
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in _SPECIAL])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in _FRAGMENTS])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        padding_side="left",
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def new_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLProcessor:
    """Processor that brings any picture to about SIZE × SIZE pixels: 64 image tokens."""
    limits = {"shortest_edge": SIZE * SIZE, "longest_edge": SIZE * SIZE}
    shape = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": 2}
    mean_std = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=limits, **shape, **mean_std),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(size=limits, **shape, **mean_std),
        chat_template=CHAT_TEMPLATE,
    )


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> Qwen3VLForConditionalGeneration:
    """Untrained model; vision tower and language model are about half of its parameters each."""
    torch.manual_seed(seed)
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": HIDDEN,
            "intermediate_size": 512,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 1024,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 6, 6],
                "mrope_interleaved": True,
            },
            "tie_word_embeddings": True,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "depth": 6,
            "hidden_size": HIDDEN,
            "intermediate_size": 512,
            "num_heads": 3,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "out_hidden_size": HIDDEN,
            "num_position_embeddings": (SIZE // PATCH) ** 2,
            "deepstack_visual_indexes": [],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    model = Qwen3VLForConditionalGeneration(config)
    _order_numbers(model.get_input_embeddings().weight.data, tokenizer)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def _order_numbers(embedding: Tensor, tokenizer: PreTrainedTokenizerFast) -> None:
    # Numbers begin as points of a smooth curve, so that what is learned of 500 holds for 501 as well.
    values = torch.arange(BOX_SCALE + 1) / BOX_SCALE
    waves = torch.arange(1, embedding.shape[1] // 2 + 1) ** 1.2 * 0.5
    phases = values[:, None] * waves * torch.pi
    curve = torch.cat([phases.sin(), phases.cos()], dim=1) / waves.repeat(2).sqrt()
    curve *= embedding.std() / curve.std() * 1.5
    ids = tokenizer.convert_tokens_to_ids([str(value) for value in range(BOX_SCALE + 1)])
    embedding[torch.tensor(ids)] = curve[:, : embedding.shape[1]]
