"""A folder that is written whole or not at all, whenever the process is killed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path


def replace_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Fill a new folder by `write` and put it in the place of `folder`, so that a kill never leaves half.

    The one moment at which `folder` does not exist leaves its contents beside it; see `restore_folder`.
    """
    fresh, old = _beside(folder, "writing"), _beside(folder, "old")
    restore_folder(folder)
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    write(fresh)
    if folder.exists():
        folder.replace(old)
    fresh.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder that a kill may leave under another name, but never in part under its own."""
    old = _beside(folder, "removed")
    shutil.rmtree(old, ignore_errors=True)
    folder.replace(old)
    shutil.rmtree(old, ignore_errors=True)


def restore_folder(folder: Path) -> None:
    """Tidy up after a `replace_folder` that was killed: the folder is what it was before, or the new one."""
    old = _beside(folder, "old")
    if not folder.exists() and old.exists():
        old.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def tidy(parent: Path) -> None:
    """Finish or undo every replacement and removal among the folders in `parent` that a kill stopped."""
    for old in parent.glob(".*.old"):
        restore_folder(parent / old.name[1:-4])
    for left in [*parent.glob(".*.writing"), *parent.glob(".*.removed")]:
        shutil.rmtree(left, ignore_errors=True)


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(f".{folder.name}.{ending}")
