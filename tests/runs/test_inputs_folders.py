"""Folders of images: what cannot be listed or read is named, never left out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdg.errors import SdgError
from sdg.images import save_image
from sdg.runs.inputs import gather


def test_what_leads_nowhere_is_an_image_that_will_fail(tmp_path: Path) -> None:
    save_image(Image.new("RGB", (2, 2)), tmp_path / "folder" / "b.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "folder.png").mkdir()
    items = gather([tmp_path], prompt="a")
    assert [item.file.name for item in items] == ["b.png", "gone.png", "loop.png"]


def test_a_folder_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_image(Image.new("RGB", (2, 2)), tmp_path / "a.png")
    (tmp_path / "secret").mkdir()
    scandir = os.scandir

    def refuse(path: Any) -> Any:  # permissions do not bind the superuser
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SdgError, match=r"secret cannot be listed: Permission denied\.$"):
        gather([tmp_path], prompt="a")
