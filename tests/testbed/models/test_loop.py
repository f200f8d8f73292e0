"""The training loop: it learns, and resuming gives what an undisturbed run gives."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sdg.errors import SdgError
from sdg.runs.checkpoint import latest_checkpoint
from sdg.testbed.models.loop import (
    Hyperparameters,
    Run,
    SeededBatches,
    add_gradients,
    fit,
    learning_rate_factor,
    split_parameters,
)

STEPS = 12


def draw(rng):
    return rng.normal(size=(16, 4)).astype(np.float32)


def train(
    out: Path,
    *,
    stop: int | None = None,
    resume=False,
    steps=STEPS,
    seed=3,
    on_save=None,
    muon=False,
    rate=0.02,
):
    """A small regression with noise in the step; `stop` raises in the middle of that step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    count = 0

    def loss_of(batch):
        nonlocal count
        count += 1
        if count == stop:
            raise KeyboardInterrupt
        batch = torch.as_tensor(batch)
        noisy = batch + 0.01 * torch.randn_like(batch)
        return {"loss": (model(noisy)[:, 0] - batch.sum(1)).square().mean()}

    settings = Hyperparameters(rate, warmup=2, save_every=4, report_every=2, muon=muon)
    run = Run(out, steps, seed, resume)
    return fit(model, loss_of, SeededBatches(draw, seed), run, settings, workers=0, on_save=on_save)


def assert_same(first: nn.Module, second: nn.Module, atol: float = 1e-6) -> None:
    """Rounding aside, for equal weights at other addresses may be added up in another order."""
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=1e-5, atol=atol)


def newest(out: Path) -> Path:
    folder = latest_checkpoint(out)
    assert folder is not None
    return folder


def checkpoint_tensors(out: Path):
    return load_file(newest(out) / "state.safetensors")


def log_of(out: Path):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_the_loss_falls(tmp_path):
    train(tmp_path, steps=60, rate=0.1, muon=False)
    losses = [line["loss"] for line in log_of(tmp_path)]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:3])


@pytest.mark.parametrize("muon", [False, True])
@pytest.mark.parametrize("stop", [2, 6, 9])
def test_a_resumed_run_ends_with_the_weights_of_an_undisturbed_one(tmp_path, stop, muon):
    whole = train(tmp_path / "whole", muon=muon)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", stop=stop, muon=muon)
    resumed = train(tmp_path / "cut", resume=True, muon=muon)
    atol = 1e-3 if muon else 1e-6  # Muon multiplies in bfloat16 where the CPU has it
    assert_same(whole, resumed, atol)
    states = [checkpoint_tensors(tmp_path / name) for name in ("cut", "whole")]
    torch.testing.assert_close(*states, rtol=1e-4, atol=atol)


def test_shards_side_by_side_give_the_gradient_of_their_mean_loss():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    shards = [torch.randn(16, 4), torch.randn(16, 4)]

    def loss_of(batch):
        return {"loss": model(batch).square().mean(), "size": batch.norm()}

    whole = torch.autograd.grad(loss_of(torch.cat(shards))["loss"], list(model.parameters()))
    with ThreadPoolExecutor(2) as pool:
        parts = add_gradients(loss_of, shards, pool)
    for parameter, expected in zip(model.parameters(), whole, strict=True):
        torch.testing.assert_close(parameter.grad, expected)
    assert parts["size"] == pytest.approx(float(shards[0].norm() + shards[1].norm()) / 2)


def test_a_run_of_two_shards_resumes_with_the_batches_it_has_not_seen(tmp_path):
    def run(out, *, stop=None, resume=False):
        torch.manual_seed(0)
        model = nn.Linear(4, 1)
        seen = []

        def loss_of(batch):
            seen.append(float(batch[0, 0]))
            if stop is not None and len(seen) > stop:
                raise KeyboardInterrupt
            return {"loss": (model(batch)[:, 0] - batch.sum(1)).square().mean()}

        settings = Hyperparameters(0.02, warmup=2, save_every=4, report_every=2, shards=2)
        asked = Run(out, 8, seed=3, resume=resume)
        trained = fit(model, loss_of, SeededBatches(draw, 3), asked, settings, workers=0)
        return trained, seen

    whole, seen = run(tmp_path / "whole")
    assert len(set(seen)) == 16
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop=11)
    resumed, later = run(tmp_path / "cut", resume=True)
    assert set(later) == set(seen[8:])
    assert_same(whole, resumed)


def test_the_log_of_a_resumed_run_holds_every_report_once(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop=8)  # steps 2, 4 and 6 are reported, step 4 is saved
    assert [line["step"] for line in log_of(tmp_path)] == [2, 4, 6]
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"loss": 0.1, "st')  # a line that a kill cut short
    train(tmp_path, resume=True)
    assert [line["step"] for line in log_of(tmp_path)] == [2, 4, 6, 8, 10, 12]


def test_killed_while_a_checkpoint_gets_its_name_it_resumes_from_the_one_before(tmp_path, monkeypatch):
    whole = train(tmp_path / "whole")
    out = tmp_path / "cut"
    rename = Path.replace

    def dying(self, target):
        if Path(target).name == "000008":
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            train(out)
    assert newest(out).name == "000004"
    with pytest.raises(SdgError, match="--resume"):
        train(out)
    assert_same(whole, train(out, resume=True))
    assert sorted(path.name for path in out.iterdir()) == ["checkpoints", "log.jsonl", "settings.json"]
    assert sorted(path.name for path in newest(out).parent.iterdir()) == ["000008", "000012"]


def test_killed_for_good_in_the_middle_it_resumes(tmp_path):
    """A real SIGKILL of a real process, in the middle of a step."""

    def deadly(model, step):
        if step == 8:
            os.kill(os.getpid(), signal.SIGKILL)

    out = tmp_path / "cut"
    process = processes.fork(lambda: train(out, on_save=deadly), stderr=tmp_path / "stderr")
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert newest(out).name == "000008"
    assert_same(train(out, resume=True), train(tmp_path / "whole"))


def test_what_was_saved_last_is_written_again_where_the_run_died_before(tmp_path):
    seen = []

    def dying(model, step):
        if step == STEPS:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, on_save=dying)
    train(tmp_path, resume=True, on_save=lambda model, step: seen.append(step))
    assert seen == [STEPS]


def test_resuming_where_nothing_is_begins(tmp_path):
    assert_same(train(tmp_path / "a", resume=True), train(tmp_path / "b"))


def test_a_run_in_the_way_is_not_overwritten(tmp_path):
    train(tmp_path)
    before = (newest(tmp_path) / "state.safetensors").read_bytes()
    with pytest.raises(SdgError, match="go on with --resume"):
        train(tmp_path)
    assert (newest(tmp_path) / "state.safetensors").read_bytes() == before


def test_resuming_with_another_seed_is_refused(tmp_path):
    train(tmp_path)
    with pytest.raises(SdgError, match="seed was 3 and is 4 now"):
        train(tmp_path, resume=True, seed=4)


def test_resuming_another_model_is_refused(tmp_path):
    train(tmp_path)
    model = nn.Linear(2, 1)
    with pytest.raises(SdgError, match="another model"):
        fit(
            model,
            lambda batch: {"loss": model.weight.sum()},
            SeededBatches(draw, 3),
            Run(tmp_path, 20, seed=3, resume=True),
            Hyperparameters(0.1),
            workers=0,
        )


def test_a_run_that_is_out_of_time_saves_and_goes_on(tmp_path):
    model = nn.Linear(4, 1)

    def run(out, minutes, resume=False):
        torch.manual_seed(1)
        model.reset_parameters()
        return fit(
            model,
            lambda batch: {"loss": model(torch.as_tensor(batch)).square().mean()},
            SeededBatches(draw, 0),
            Run(out, 5, resume=resume, max_minutes=minutes),
            Hyperparameters(0.02, save_every=100),
            workers=0,
        )

    run(tmp_path / "cut", 0.0)
    assert newest(tmp_path / "cut").name == "000001"
    trained = deepcopy(run(tmp_path / "cut", None, resume=True))
    assert_same(trained, run(tmp_path / "whole", None))


def test_a_loss_that_is_no_number_ends_the_run_in_a_sentence(tmp_path):
    model = nn.Linear(4, 1)
    with pytest.raises(SdgError, match="no longer a number at step 2"):
        fit(
            model,
            lambda batch: {"loss": model.weight.sum() * float("nan")},
            SeededBatches(draw, 0),
            Run(tmp_path, 4),
            Hyperparameters(0.1, report_every=2),
            workers=0,
        )


def test_a_part_that_no_picture_of_a_batch_has_does_not_count_in_the_log(tmp_path):
    model, some = nn.Linear(4, 1), iter([torch.tensor(3.0), torch.ones(0).mean()])
    fit(
        model,
        lambda batch: {"loss": model.weight.sum(), "some": next(some), "none": torch.ones(0).mean()},
        SeededBatches(draw, 0),
        Run(tmp_path, 2),
        Hyperparameters(0.1, report_every=2),
        workers=0,
    )
    (line,) = log_of(tmp_path)
    assert line["some"] == 3
    assert "none" not in line


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SdgError, match="file/run cannot be written"):
        train(tmp_path / "file" / "run")


def test_the_learning_rate_rises_stands_and_falls():
    settings = Hyperparameters(1.0, warmup=10, decay=0.5, final_fraction=0.1)
    factors = [learning_rate_factor(step, 100, settings) for step in range(101)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert set(factors[10:51]) == {1.0}
    assert np.all(np.diff(factors[50:]) < 0)
    assert factors[100] == pytest.approx(0.1)


def test_muon_gets_the_inner_matrices_and_nothing_is_lost():
    block = nn.ModuleDict({"proj_out": nn.Linear(4, 4, bias=False)})
    model = nn.ModuleDict(
        {
            "embed": nn.Embedding(5, 4),
            "inner": nn.Linear(4, 4),
            "blocks": nn.ModuleList([block]),
            "proj_out": nn.Linear(4, 2),
        }
    )
    model["inner"].bias.requires_grad_(False)
    matrices, others = split_parameters(model)
    assert {id(p) for p in matrices} == {id(model["inner"].weight), id(block["proj_out"].weight)}
    assert {id(p) for p in others} == {
        id(model["embed"].weight),
        id(model["proj_out"].weight),
        id(model["proj_out"].bias),
    }


def test_batches_depend_on_seed_and_number_alone():
    first, second = SeededBatches(draw, 7), SeededBatches(draw, 7)
    np.testing.assert_array_equal(first[2], second[2])
    assert not np.array_equal(first[1], first[2])
    assert not np.array_equal(first[1], SeededBatches(draw, 8)[1])
