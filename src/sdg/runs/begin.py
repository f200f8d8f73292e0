"""How every long run begins, is refused, or is gone on with: its settings on disk, and a lock.

The lock is taken before anything is read or written, so of two runs that start together one goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from sdg._version import __version__
from sdg.errors import SdgError
from sdg.io.files import read_text, write_text, writing
from sdg.runs.processes import Processes

_HELD: Final[set[IO[bytes]]] = set()
_LONGEST: Final = 60  # characters of a setting in a message
Compared = Callable[[str, Any], Any]
"""Dotted name of a setting and its value -> what of it two runs are compared by."""


def _as_it_is(name: str, value: Any) -> Any:
    return value


@contextmanager
def begin(
    out: Path,
    manifest: Path,
    settings: Mapping[str, Any],
    *,
    resume: bool = False,
    work: Iterable[Path] | None = None,
    free: Collection[str] = (),
    compared: Compared = _as_it_is,
    notes: Mapping[str, Any] | None = None,
) -> Iterator[bool]:
    """Hold the run of `out` for this process alone; yields whether there is an earlier one to go on with.

    manifest: the file for the settings, in the run's folder or beside its output. settings: JSON of whatever
    the results depend on; `free` are dotted names of what may differ when it is resumed, all below them
    included, `compared` says what counts of the others, and `notes` are written but never compared. work:
    files and folders that a run leaves and that must not be lost, by default all in the manifest's folder
    that is not hidden; without them a run begins.
    Raises SdgError where another process holds the run, where there is work and `resume` is not asked for,
    where the run was begun with other settings, and where the disk refuses. Nothing is changed by a refusal.
    """
    with hold(out, manifest):
        with _refusing(out):
            begun = _holds_work(manifest, work)
        if begun:
            _require_resumable(out, manifest, resume)
            refuse_changes(out, read_settings(out, manifest), settings, free, compared)
        else:
            write_settings(manifest, {"version": __version__, **(notes or {}), **settings})
        yield begun


def begin_together(
    out: Path, manifest: Path, settings: Mapping[str, Any], **options: Any
) -> AbstractContextManager[bool]:
    """`begin` by the main one of the processes that Accelerate knows; all yield, or raise, the same."""
    from accelerate import PartialState

    state = PartialState()
    processes = Processes(state.process_index, state.num_processes)
    return processes.on_main(partial(begin, out, manifest, settings, **options))


def require_free(out: Path, manifest: Path, resume: bool, work: Iterable[Path] | None = None) -> None:
    """Make the folder of a run; raises SdgError, as `begin` does, where one is in the way."""
    with _refusing(out):
        _make_folder(manifest)
        begun = _holds_work(manifest, work)
    if begun:
        _require_resumable(out, manifest, resume)


def read_settings(out: Path, manifest: Path) -> dict[str, Any]:
    """What a manifest holds; raises SdgError where it is damaged."""
    try:
        settings = json.loads(read_text(manifest))
        if isinstance(settings, dict):
            return settings
    except (ValueError, RecursionError):
        pass
    raise SdgError(f"{manifest} is damaged, so {out} cannot be resumed; name another output.")


def write_settings(manifest: Path, settings: Mapping[str, Any]) -> None:
    """What `read_settings` reads."""
    write_text(manifest, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")


def refuse_changes(
    out: Path | str,
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    free: Collection[str] = (),
    compared: Compared = _as_it_is,
) -> None:
    """Raise SdgError where settings differ, naming the first three that do.

    free: dotted names of what may differ, all below them included. compared: what is compared of a setting,
    by its dotted name and value. Only the groups that `now` has are looked at: `before` may hold notes.
    """
    old, new = (
        {name: compared(name, value) for name, value in leaves(settings)}
        for settings in ({group: before.get(group) for group in now}, json.loads(json.dumps(now)))
    )
    names = [
        name
        for name in {**old, **new}
        if old.get(name) != new.get(name)
        if not any(name == key or name.startswith(f"{key}.") for key in free)
    ]
    if names:
        changes = ", ".join(
            f"{n} was {_shown(old.get(n))} and is {_shown(new.get(n))} now" for n in names[:3]
        )
        more = f" (and {len(names) - 3} more)" if len(names) > 3 else ""
        raise SdgError(
            f"{out} was begun with other settings: {changes}{more}; use those, or name another output."
        )


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value of nested JSON with its dotted name."""
    if isinstance(value, list):
        value = {str(index): item for index, item in enumerate(value)}
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, item in value.items():
        yield from leaves(item, f"{name}.{key}" if name else key)


def lock_of(manifest: Path) -> Path:
    """The file that is locked while a run is worked on; it goes when the run ends."""
    return manifest.with_suffix(".lock")


def _holds_work(manifest: Path, work: Iterable[Path] | None) -> bool:
    if work is None:
        folder, own = manifest.parent, (manifest.name, lock_of(manifest).name)
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return any(name not in own and not name.startswith(".") for name in names)
    return any(any(p.iterdir()) if p.is_dir() else p.exists() and p.stat().st_size > 0 for p in work)


def _require_resumable(out: Path, manifest: Path, resume: bool) -> None:
    if not manifest.is_file():
        raise SdgError(
            f"{out} exists already and has no {manifest.name}, so it cannot be resumed; name another output."
        )
    if not resume:
        raise SdgError(f"{out} exists already; go on with --resume, or name another output.")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


@contextmanager
def _refusing(out: Path) -> Iterator[None]:
    with writing(out):
        try:
            yield
        except BlockingIOError:
            raise SdgError(
                f"{out} is being written by another process; wait for it or stop it, or name another output."
            ) from None


def _make_folder(manifest: Path) -> None:
    if manifest.parent.is_file():
        raise SdgError(f"{manifest.parent} is a file; name a folder.")
    manifest.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def hold(out: Path, manifest: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the folder or file `out` for this process alone; raises SdgError where another one does.

    wait: until it no longer does, instead.
    """
    path = lock_of(manifest)
    with _refusing(out):
        _make_folder(manifest)
        file = _locked(path, wait)
    _HELD.add(file)
    try:
        yield
    finally:
        with suppress(OSError):  # of a folder that has another name by now; Windows keeps an open file
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                path.unlink()
        _HELD.discard(file)
        file.close()


def _locked(path: Path, wait: bool) -> IO[bytes]:
    """A file that this process alone has locked; without `wait` BlockingIOError where another one has."""
    while True:
        file = path.open("ab")
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.close()
            raise
        except (ImportError, OSError):  # Windows, and file systems that know no locks
            return file
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # whoever had it locked has removed it meanwhile


def _close_in_child() -> None:
    """A worker forked from a run keeps no lock: it may outlive the run by seconds when that is killed."""
    for file in _HELD:
        file.close()
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
