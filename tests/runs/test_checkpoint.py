"""Checkpoints: an optimizer goes on as if never saved, and the newest whole one counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sdg.errors import SdgError
from sdg.runs.checkpoint import (
    latest_checkpoint,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)


def test_an_optimizer_goes_on_as_if_never_saved(tmp_path: Path) -> None:
    def steps(parameter: torch.nn.Parameter, optimizer: torch.optim.Optimizer, values: list[float]) -> None:
        for value in values:
            parameter.grad = torch.full_like(parameter, value)
            optimizer.step()

    whole = torch.nn.Parameter(torch.ones(3))
    first = torch.optim.AdamW([whole], lr=0.1)
    steps(whole, first, [1.0, -2.0])
    save_checkpoint(tmp_path, 1, {"p": whole.detach(), **optimizer_tensors(first)}, {"epoch": 1})
    tensors, progress = load_checkpoint(tmp_path / "checkpoints" / "epoch-000001")
    assert progress == {"epoch": 1}
    again = torch.nn.Parameter(tensors["p"])
    second = torch.optim.AdamW([again], lr=0.1)
    restore_optimizer(second, tensors)
    for parameter, optimizer in ((whole, first), (again, second)):
        steps(parameter, optimizer, [0.5, 0.1])
    assert torch.equal(whole, again)


def test_the_newest_whole_checkpoint_counts_and_old_ones_go(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for epoch in (1, 2, 10):
        save_checkpoint(tmp_path, epoch, {"p": torch.ones(1)}, {"epoch": epoch}, keep=2)
    (tmp_path / "checkpoints" / ".writing-epoch-000011").mkdir()  # killed while writing
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "epoch-000010"
    assert len(list((tmp_path / "checkpoints").glob("epoch-*"))) == 2
    (newest / "state.safetensors").write_bytes(b"x")
    with pytest.raises(SdgError, match="is damaged"):
        load_checkpoint(newest)
