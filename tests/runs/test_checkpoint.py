"""Checkpoints: whole or not at all, whatever the system call before which the process dies."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from sdg.errors import SdgError
from sdg.io.files import replace_folder
from sdg.runs import checkpoint
from sdg.runs.checkpoint import (
    latest_checkpoint,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)

CALLS = (os.mkdir, os.replace, os.unlink, os.rmdir)


@contextmanager
def dying_before(call: int) -> Iterator[list[int]]:
    """Every call that changes a folder counts; from number `call` on none is made any more."""
    count = [0]
    with pytest.MonkeyPatch.context() as patch:
        for real in CALLS:

            def counted(*args: Any, real: Any = real, **options: Any) -> Any:
                count[0] += 1
                if count[0] > call:
                    raise KeyboardInterrupt
                return real(*args, **options)

            patch.setattr(os, real.__name__, counted)
        yield count


def state(number: int) -> dict[str, torch.Tensor]:
    return {"p": torch.full((3,), float(number))}


def save(out: Path, number: int, keep: int = 2) -> None:
    save_checkpoint(out, number, state(number), {"at": number}, keep)


def found(out: Path) -> int | None:
    """The number of the checkpoint that a run would resume from, which must be whole."""
    folder = latest_checkpoint(out)
    if folder is None:
        return None
    tensors, progress = load_checkpoint(folder)
    assert torch.equal(tensors["p"], state(progress["at"])["p"])
    return int(progress["at"])


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("number", [9, 10])
def test_killed_before_any_call_of_a_save_the_old_state_or_the_new_is_there(
    tmp_path: Path, keep: int, number: int
) -> None:
    """9 is written anew, as by a run that was reset to before it; 10 is a new one."""
    outcomes = set()
    for call in range(calls_of_a_save(tmp_path, keep, number) + 1):
        out = earlier(tmp_path / f"{call}", keep)
        with dying_before(call), suppress(KeyboardInterrupt):
            save(out, number, keep)
        outcomes.add(found(out))
        assert outcomes <= {9, number}
        save(out, 11, keep)
        assert found(out) == 11
        assert len(list((out / "checkpoints").iterdir())) == keep  # nothing half written is left
    assert outcomes == {9, number}


def test_killed_at_the_first_save_there_is_none_or_one(tmp_path: Path) -> None:
    outcomes = []
    for call in range(10):
        with dying_before(call), suppress(KeyboardInterrupt):
            save(tmp_path / f"{call}", 1)
        outcomes.append(found(tmp_path / f"{call}"))
    assert sorted(outcomes, key=bool) == outcomes
    assert {None, 1} == set(outcomes)


def earlier(out: Path, keep: int) -> Path:
    save(out, 8, keep)
    save(out, 9, keep)
    return out


def calls_of_a_save(folder: Path, keep: int, number: int) -> int:
    with dying_before(10_000) as count:
        out = earlier(folder / "counted", keep)
        count[0] = 0
        save(out, number, keep)
    assert count[0] > 3
    return count[0]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "thing"
    replace_folder(folder, lambda fresh: (fresh / "one").write_text("1"))

    def failing(fresh: Path) -> None:
        (fresh / "two").write_text("2")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_folder(folder, failing)
    assert [path.name for path in folder.iterdir()] == ["one"]
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]
    replace_folder(folder, lambda fresh: (fresh / "three").write_text("3"))
    assert [path.name for path in folder.iterdir()] == ["three"]
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]


def test_tensors_that_share_memory_are_kept_each_for_itself(tmp_path: Path) -> None:
    tied = torch.arange(6.0).reshape(2, 3)
    tensors = {"one": tied, "other": tied, "row": tied[0], "turned": tied.T, "none": torch.empty(0, 3)}
    loaded, _ = load_checkpoint(save_checkpoint(tmp_path, 1, tensors, {}))
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())


def test_the_newest_counts_and_old_ones_go(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for number in (1, 2, 10, 1_000_000):
        save(tmp_path, number)
    assert found(tmp_path) == 1_000_000
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["000010", "1000000"]


@pytest.mark.parametrize("name", [checkpoint.TENSORS, checkpoint.PROGRESS])
@pytest.mark.parametrize("content", [None, b"", b"x" * 9])
def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path, name: str, content: bytes | None) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    newest = tmp_path / "checkpoints" / "000002"
    if content is None:
        (newest / name).unlink()
    else:
        (newest / name).write_bytes(content)
    with pytest.raises(SdgError, match=r"000002 is damaged \(.*remove it to resume from the one before"):
        found(tmp_path)


def test_a_full_disk_is_one_sentence_and_the_checkpoint_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(SdgError, match="000002 cannot be written: No space left on device"):
            save(tmp_path, 2)
    assert found(tmp_path) == 1


def test_optimizers_go_on_as_if_never_saved(tmp_path: Path) -> None:
    def steps(parts: list[tuple[torch.nn.Parameter, torch.optim.Optimizer]], values: list[float]) -> None:
        for value in values:
            for parameter, optimizer in parts:
                parameter.grad = torch.full_like(parameter, value)
                optimizer.step()

    def parts(first: torch.Tensor, second: torch.Tensor) -> Any:
        matrix, vector = torch.nn.Parameter(first), torch.nn.Parameter(second)
        return [
            (matrix, torch.optim.SGD([matrix], lr=0.1, momentum=0.9)),
            (vector, torch.optim.AdamW([vector], lr=0.1)),
        ]

    whole = parts(torch.ones(2, 2), torch.ones(3))
    steps(whole, [1.0, -2.0])
    tensors = {"first": whole[0][0], "second": whole[1][0]}
    for number, (_, optimizer) in enumerate(whole):
        tensors |= optimizer_tensors(optimizer, f"optimizer-{number}")
    loaded, _ = load_checkpoint(save_checkpoint(tmp_path, 1, tensors, {}))
    again = parts(loaded["first"], loaded["second"])
    for number, (_, optimizer) in enumerate(again):
        restore_optimizer(optimizer, loaded, f"optimizer-{number}")
    steps(whole, [0.5, 0.1])
    steps(again, [0.5, 0.1])
    for (one, _), (other, _) in zip(whole, again, strict=True):
        torch.testing.assert_close(one, other)
