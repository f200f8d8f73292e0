"""Chat messages for an image and its prompt: the model's profile, the picture within its limits, the text."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from PIL import Image

from sdg.errors import SdgError, first_line, path_end
from sdg.images import Source, rgb_picture
from sdg.io.files import is_folder
from sdg.prompting import PROFILE_FILE, PromptProfile

DEFAULT = "default"
"""In place of a profile's file: our own wording, for models that were not trained on any."""


def given_profile(name: str | os.PathLike[str] | PromptProfile | None) -> PromptProfile | None:
    """The profile of a file, of a folder that holds one, or of the word "default"; others as they are."""
    if name is None or isinstance(name, PromptProfile):
        return name
    return PromptProfile() if name == DEFAULT else PromptProfile.load(name)


def checkpoint_profile(checkpoint: str, revision: str | None = None) -> PromptProfile:
    """The profile that lies in a checkpoint's folder, here or on the model hub.

    Raises SdgError where there is none: a detector only works with the wording it was trained on.
    """
    if is_folder(checkpoint):
        if not (Path(checkpoint) / PROFILE_FILE).is_file():
            raise _no_profile(checkpoint)
        return PromptProfile.load(checkpoint)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        file = hf_hub_download(checkpoint, PROFILE_FILE, revision=revision)
    except EntryNotFoundError as error:
        if isinstance(error, LocalEntryNotFoundError):
            raise SdgError(f"{checkpoint} is no folder, and the model hub cannot be reached.") from None
        raise _no_profile(checkpoint) from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise SdgError(f"{path_end(checkpoint)} cannot be fetched: {first_line(error)}") from None
    return PromptProfile.load(file)


def _no_profile(checkpoint: str) -> SdgError:
    return SdgError(
        f"{checkpoint} brings no {PROFILE_FILE}; add ?profile=FILE with the wording it was trained on, "
        f"or ?profile={DEFAULT} for a model that never saw any."
    )


def fitted_picture(image: Source, profile: PromptProfile) -> Image.Image:
    """The image of a pair as RGB, brought within the profile's limits; raises SdgError if unreadable."""
    loaded = rgb_picture(image)
    size = profile.image.fit(*loaded.size)
    return loaded if size == loaded.size else loaded.resize(size, Image.Resampling.BICUBIC)


def chat_messages(profile: PromptProfile, prompt: str, image: dict[str, Any]) -> list[dict[str, Any]]:
    """The profile's messages with `image` as the part of its image; content that is text alone is a string.

    Raises SdgError for a prompt that is not text.
    """
    if not isinstance(prompt, str):
        raise SdgError(f"A prompt is text, not {type(prompt).__name__}.")
    messages = []
    for message in profile.render(prompt):
        parts = [image if part["type"] == "image" else part for part in message["content"]]
        only_text = all(part["type"] == "text" for part in parts)
        content: Any = "".join(part["text"] for part in parts) if only_text else parts
        messages.append({"role": message["role"], "content": content})
    return messages
