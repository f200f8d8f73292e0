"""Two processes that share a transformer's weights learn, save and resume what one process does alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import diffusers
import processes
import pytest
import torch
import toy_families
from accelerate import Accelerator
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from toy import HEIGHT, RECIPES, TEXT, WIDTH, small

from sdg.alignment.policies import FAMILIES, FlowPolicy, load_policy
from sdg.alignment.recipe import AlignRecipe
from sdg.alignment.rollout import gather_rows
from sdg.alignment.trainer import align
from sdg.errors import SdgError
from sdg.models.lora import WEIGHTS, lora_parameters
from sdg.models.sharding import process_mesh
from sdg.recipes import load_recipe
from sdg.runs.checkpoint import latest_checkpoint, load_checkpoint
from sdg.runs.log import read_log
from sdg.runs.processes import even_share

LORA = "{r: 4, alpha: 8}"
FLUX = RECIPES / "boxflow-flux1-dev.yaml"
UNWATCHED = {
    "prompts__held_out": "null", "monitor__scorers": "[]", "monitor__judges": "[]", "monitor__best": "null",
}  # fmt: skip
# Clipped as far as AdamW's epsilon, so that it makes no whole step of a gradient's rounding.
STEADY = {
    "optimizer__grad_norm": 1e-8, "optimizer__learning_rate": 1.0,
    "reward__scorers": "[{name: s, uri: 'python:toy.dark_or_missing'}]", "reward__max_failed": 0.9,
}  # fmt: skip


def options(checkpoints: Path, **changes: Any) -> list[str]:
    return small(checkpoints, **{**STEADY, **changes})[1::2]


def run(out: Path, changes: list[str], *, resume: bool = False) -> None:
    align(load_recipe(AlignRecipe, FLUX, changes), out, resume=resume)


def run_sharded(out: Path, changes: list[str], *, resume: bool = False) -> Any:
    """The same by two processes that share the weights, which has begun."""
    sharded = [*changes, "run.sharding=fsdp"]
    return processes.torchrun(
        lambda: run(out, sharded, resume=resume), stderr=out.with_name(f"{out.name}.stderr")
    )


def join(process: Any, out: Path) -> None:
    process.join()
    assert process.exitcode == 0, out.with_name(f"{out.name}.stderr").read_text()


def state(out: Path) -> dict[str, Tensor]:
    found = latest_checkpoint(out)
    assert found is not None
    return load_checkpoint(found)[0]


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(
            other[name], value, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("lora", [LORA, pytest.param("null", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", ["boxflow", pytest.param("boxflow-nft", marks=pytest.mark.slow)])
def test_two_processes_that_share_weights_learn_what_one_learns(
    checkpoints: Path, tmp_path: Path, method: str, lora: str
) -> None:
    changes: dict[str, Any] = {
        **UNWATCHED, "method": method, "policy__lora": lora, "optimizer__steps": 2, "optimizer__ema_every": 1,
        "policy__gradient_checkpointing": "true", "optimizer__kl": 0 if lora == "null" else 1.0,
    }  # fmt: skip
    if method == "boxflow":
        changes |= {"sampling__sde_steps": "[0, 1]", "sampling__sde_steps_per_epoch": 2}
    chosen = options(checkpoints, **changes)
    together = run_sharded(tmp_path / "two", chosen)
    run(tmp_path / "one", chosen)
    join(together, tmp_path / "two")
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    assert_same(one, two)
    logs = [read_log(tmp_path / name)[0] for name in ("one", "two")]
    assert logs[0]["grad_norm"] > 2e-4  # so it was clipped
    for name in ("loss", "grad_norm", *(("kl",) if lora != "null" else ())):
        assert logs[1][name] == pytest.approx(logs[0][name], rel=1e-3, abs=1e-7)
    behind = [
        (value - one[f"ema.{name[5:]}"]).abs().max() for name, value in one.items() if name[:5] == "lora."
    ]
    assert max(behind) > 1e-4  # a tenth of what weights have moved


@pytest.mark.slow
@pytest.mark.parametrize("lora", [LORA, "null"])
def test_a_sharded_run_is_resumed_with_and_without_shards_as_if_never_stopped(
    checkpoints: Path, tmp_path: Path, lora: str
) -> None:
    # Three held-out prompts, one at a time: the processes have two batches and one.
    changes = {"policy__lora": lora, "optimizer__ema_every": 1, "run__pictures_every": 2, "run__pictures": 1}
    half, full = (options(checkpoints, **changes, optimizer__steps=steps) for steps in (2, 4))
    one, two, then_one = (tmp_path / name for name in ("one", "two", "then-one"))
    join(run_sharded(two, half), two)
    shutil.copytree(two, then_one)
    together = run_sharded(two, full, resume=True)
    run(one, full)
    run(then_one, full, resume=True)
    join(together, two)
    for out in (two, then_one):
        assert_same(state(one), state(out))
        for ours, theirs in zip(read_log(one), read_log(out), strict=True):
            assert theirs["reward"] == pytest.approx(ours["reward"], abs=1e-4)
        assert_same(trained(one / "final", checkpoints), trained(out / "final", checkpoints))
    pictures = [sorted(path.name for path in (out / "pictures").iterdir()) for out in (one, then_one)]
    assert set(pictures[0]) <= set(pictures[1])  # which also drew where it stopped


def trained(folder: Path, checkpoints: Path) -> dict[str, Tensor]:
    """The weights of a pipeline of diffusers with what a run has trained."""
    if (folder / WEIGHTS).is_file():
        pipeline = diffusers.FluxPipeline.from_pretrained(checkpoints / "flux")
        pipeline.load_lora_weights(folder)
    else:
        transformer = diffusers.FluxTransformer2DModel.from_pretrained(folder)
        pipeline = diffusers.FluxPipeline.from_pretrained(checkpoints / "flux", transformer=transformer)
    weights: dict[str, Tensor] = pipeline.transformer.state_dict()
    return weights


@pytest.mark.parametrize("lora", [LORA, "null"])
def test_each_process_holds_half_of_the_weights_and_draws_what_it_is_trained_on(
    checkpoints: Path, tmp_path: Path, lora: str
) -> None:
    changes = {"policy__lora": lora, "policy__dtype": "bfloat16", "precision": "bf16"}
    recipe = load_recipe(AlignRecipe, FLUX, options(checkpoints, **changes))

    def load(mesh: DeviceMesh | None = None) -> FlowPolicy:
        return load_policy(recipe.policy, "cpu", recipe.precision, mesh=mesh)

    def work() -> None:
        rank = Accelerator(cpu=True).process_index
        policy = load(process_mesh(torch.device("cpu")))
        linear = policy.transformer.transformer_blocks[0].attn.to_q
        computed: list[torch.dtype] = []
        linear.register_forward_pre_hook(lambda module, _: computed.append(module.weight.dtype))
        rollout = policy.sample(["a red cup"], [rank], steps=3, sde_steps=(1,))
        ratio = (policy.score(rollout.transitions, 0).log_prob - rollout.transitions.old_log_prob[0]).exp()
        ratio.sum().backward()
        parameters = list(policy.transformer.parameters())
        found = {
            "held": sum(parameter.to_local().nbytes for parameter in parameters),
            "kept": {parameter.dtype for parameter in parameters},
            "computed": set(computed),
            "ratio": (ratio - 1).abs().max().item(),
            "without": [p for p, value in lora_parameters(policy.transformer).items() if value.grad is None],
        }
        torch.save(found, tmp_path / f"{rank}.pt")

    together = processes.torchrun(work, stderr=tmp_path / "two.stderr")
    join(together, tmp_path / "two")
    weights = sum(parameter.nbytes for parameter in load().transformer.parameters())
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1)]
    assert sum(one["held"] for one in found) == weights
    for one in found:
        assert one["held"] == pytest.approx(weights / 2, rel=0.02)
        assert one["kept"] == ({torch.float32, torch.bfloat16} if lora == LORA else {torch.float32})
        assert one["computed"] == {torch.bfloat16}
        assert one["ratio"] < 1e-5
        assert one["without"] == []


@pytest.mark.slow
@pytest.mark.usefixtures("short_text")
@pytest.mark.parametrize("lora", [LORA, "null"])
def test_of_every_family_shared_weights_have_the_gradients_of_whole_ones(
    checkpoints: Path, tmp_path: Path, lora: str
) -> None:
    def gradients(family: str, mesh: DeviceMesh | None) -> dict[str, Tensor | None]:
        height, width = toy_families.SIZES.get(family, (HEIGHT, WIDTH))
        changes = {"policy__lora": lora, "policy__height": height, "policy__width": width}
        changes |= {"policy__family": family, "policy__gradient_checkpointing": "true"}
        changes |= {"policy__max_sequence_length": toy_families.TEXT.get(family, TEXT)}
        recipe = load_recipe(AlignRecipe, FLUX, small(checkpoints, family, **changes)[1::2])
        policy = load_policy(recipe.policy, mesh=mesh)
        drawn = policy.sample(["a red cup", "a blue hat"], [1, 2], steps=3, sde_steps=(1,)).transitions
        policy.score(drawn, 0).log_prob.sum().backward()
        return {name: p.grad for name, p in lora_parameters(policy.transformer).items()}

    alone = {family: gradients(family, None) for family in FAMILIES}  # which both processes then have

    def work() -> None:
        Accelerator(cpu=True)
        mesh = process_mesh(torch.device("cpu"))
        for family, expected in alone.items():
            together = gradients(family, mesh)
            assert expected.keys() == together.keys()
            for name, value in expected.items():
                shared = together[name]
                assert value is not None, (family, name)
                assert isinstance(shared, DTensor), (family, name)
                assert torch.allclose(shared.full_tensor(), value, rtol=1e-4, atol=1e-5), (family, name)

    join(processes.torchrun(work, stderr=tmp_path / "two.stderr"), tmp_path / "two")


@pytest.mark.slow
def test_two_processes_that_share_nothing_train_a_whole_transformer_as_one_does(
    checkpoints: Path, tmp_path: Path
) -> None:
    chosen = options(checkpoints, **UNWATCHED, policy__lora="null", optimizer__steps=2)
    together = processes.torchrun(lambda: run(tmp_path / "two", chosen), stderr=tmp_path / "two.stderr")
    run(tmp_path / "one", chosen)
    join(together, tmp_path / "two")
    assert_same(state(tmp_path / "one"), state(tmp_path / "two"))


def test_one_process_shares_nothing(checkpoints: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SdgError, match=r"run\.sharding fsdp shares weights among processes, and there is one"
    ):
        run(tmp_path / "run", [*options(checkpoints), "run.sharding=fsdp"])
    assert not (tmp_path / "run").exists()
    with pytest.raises(SdgError, match=r"run\.sharding is fsdp"):
        load_recipe(AlignRecipe, FLUX, ["run.sharding=zero"])


@pytest.mark.parametrize(("count", "many"), [(3, 2), (8, 2), (1, 4), (9, 4)])
def test_every_process_draws_as_many_pictures_and_each_picture_counts_once(count: int, many: int) -> None:
    shares = [even_share(count, rank, many) for rank in range(many)]
    assert {len(share) for share in shares} == {-(-count // many)}
    drawn = [index for share in shares for index in share]
    assert gather_rows(drawn, [f"picture {index}" for index in drawn], 1) == [
        f"picture {index}" for index in range(count)
    ]
