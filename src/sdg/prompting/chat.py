"""By which profile a model is asked, and the chat completion in which a server is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sdg.errors import SdgError, first_line, path_end
from sdg.images import Source, rgb_picture
from sdg.io.chat import as_data_url
from sdg.io.files import is_folder
from sdg.io.uri import require_place
from sdg.prompting import PROFILE_FILE, PromptProfile
from sdg.prompting.release import detector_profile

DEFAULT = "default"
"""In place of a profile's file: our own wording, for models that were not trained on any."""
RELEASE = "release"
"""Likewise: the wording of the authors' release; see `sdg.prompting.release`."""


def given_profile(
    name: str | os.PathLike[str] | PromptProfile | None,
    own: Callable[[], PromptProfile] = PromptProfile,
    released: Callable[[], PromptProfile] = detector_profile,
) -> PromptProfile | None:
    """The profile of a file, of a folder that holds one, or of "default" or "release"; others as they are.

    own, released: what make the profiles that these two words stand for, by default a detector's.
    """
    if name is None or isinstance(name, PromptProfile):
        return name
    named = {DEFAULT: own, RELEASE: released}.get(os.fspath(name))
    return PromptProfile.load(name) if named is None else named()


def checkpoint_profile(checkpoint: str, revision: str | None = None) -> PromptProfile:
    """The profile that lies in a checkpoint's folder, here or on the model hub.

    Raises SdgError where there is none: a detector only works with the wording it was trained on.
    """
    if is_folder(checkpoint):
        if not (Path(checkpoint) / PROFILE_FILE).is_file():
            raise _no_profile(checkpoint)
        return PromptProfile.load(checkpoint)
    require_place(checkpoint, "; check the path, or name a model on a hub as ORG/NAME.")
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
        f"?profile={RELEASE} for the authors' own, or ?profile={DEFAULT} for a model that never saw any."
    )


def completion_body(
    profile: PromptProfile, model: str, image: Source, prompt: str, index: int = 0
) -> dict[str, Any]:
    """A chat completion as a server is asked for it: messages, limits and sampling by the profile.

    The picture goes as lossless PNG. index: of the pair among those asked, for a seed of its own where
    sampling is not greedy. Raises SdgError for an unreadable image, and a prompt that is not text.
    """
    url = as_data_url(rgb_picture(image, profile.image.fit))
    generation = profile.generation
    body: dict[str, Any] = {
        "model": model,
        "messages": profile.render(prompt, {"type": "image_url", "image_url": {"url": url}}),
        "max_completion_tokens": generation.max_new_tokens,
        "temperature": generation.temperature,
    }
    if generation.temperature > 0:
        body |= {"top_p": generation.top_p, "seed": generation.seed + index}
    return body
