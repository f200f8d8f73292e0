"""Reward functions in TRL's own GRPOTrainer: what has no reward stays out of its group."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from served import RedDetector, plain, served

from sdg.defects import Defect, Diagnosis
from sdg.errors import SdgError
from sdg.integrations.trl import AnswerRewardFunction, PictureRewardFunction
from sdg.response import render_response

CAT = Defect((0, 0, 500, 500), "artifact", "a paw too many", 60)


def drawn(red: int) -> list[dict[str, Any]]:
    """A completion with a call of a tool that draws."""
    return [
        {"role": "assistant", "content": "", "tool_calls": []},
        {"role": "tool", "name": "draw", "content": [{"type": "image", "image": plain(red)}]},
        {"role": "assistant", "content": "Here it is."},
    ]


def test_the_last_picture_of_a_tool_is_held_against_the_last_request() -> None:
    prompts = [[{"role": "system", "content": "Draw."}, {"role": "user", "content": "a cat"}]] * 4
    completions = [drawn(20), [*drawn(20), *drawn(40)], drawn(255), [{"role": "assistant", "content": "no"}]]
    logged: list[tuple[str, float]] = []
    with served(RedDetector()) as url:
        rewards = PictureRewardFunction(url)(
            prompts=prompts,
            completions=completions,
            completion_ids=[[1]] * 4,
            trainer_state=None,
            log_metric=lambda name, value: logged.append((name, value)),
        )
    assert rewards == [-0.2, -0.4, None, None]
    assert [value for name, value in logged if name == "sdg/severity"] == [0.2, 0.4]
    assert [value for name, value in logged if name == "sdg/unscored"] == [0, 0, 1, 1]
    with pytest.raises(SdgError, match="no column 'pictures' of pictures"):
        PictureRewardFunction(url, column="pictures")(["a"], ["b"])


def test_an_answer_earns_the_composite_reward_where_the_truth_is_known() -> None:
    reward = AnswerRewardFunction(similarity="token-f1")
    right, clean = render_response(_diagnosis(CAT)), render_response(_diagnosis())
    completions = [[{"role": "assistant", "content": text}] for text in (right, clean, "hm", right, clean)]
    truth = json.dumps([CAT.to_dict()])
    columns = {"defects": [truth, [CAT.to_dict()], truth, None, []]}
    found = reward(prompts=["?"] * 5, completions=completions, **columns)
    assert found == [pytest.approx(1.0), pytest.approx(found[1]), -1.0, None, pytest.approx(found[4])]
    assert found[1] is not None
    assert found[4] is not None
    assert found[1] < 0 < found[4]  # missed, and rightly called clean
    with pytest.raises(SdgError, match="A row's defects cannot be read"):
        reward(["?"], [right], defects=['{"box"'])


def _diagnosis(*defects: Defect) -> Diagnosis:
    return Diagnosis(defects, reasoning="I looked.")


@pytest.mark.slow
def test_a_real_trainer_leaves_the_unscored_out_of_its_group(tmp_path: Path) -> None:
    """One step of GRPOTrainer on a language model of two layers, whose roll-outs come with pictures."""
    pytest.importorskip("trl")
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer

    words = {word: place for place, word in enumerate(("<pad>", "<end>", "<unk>", "a", "cat", "dog"))}
    plain_tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    plain_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain_tokenizer, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    )
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **sizes)).save_pretrained(tmp_path / "model")
    reds, asked = iter((20, 255, 40, 30)), []

    def roll_out(prompts: list[str], trainer: Any) -> dict[str, list[Any]]:
        asked.extend(prompts)
        pictures = [plain(red) for _, red in zip(prompts, reds, strict=False)]
        completions = [[3, 4 + place % 2, 1] for place in range(len(prompts))]
        return {
            "prompt_ids": [tokenizer(prompt)["input_ids"] for prompt in prompts],
            "completion_ids": completions,
            "logprobs": [[-1.0] * 3 for _ in completions],
            "pictures": pictures,
        }

    with served(RedDetector()) as url:
        trainer = GRPOTrainer(
            model=str(tmp_path / "model"),
            reward_funcs=PictureRewardFunction(url, column="pictures"),
            args=GRPOConfig(
                output_dir=str(tmp_path / "run"),
                per_device_train_batch_size=4,
                num_generations=4,
                max_completion_length=3,
                max_steps=1,
                logging_steps=1,
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                report_to=[],
                save_strategy="no",
            ),
            train_dataset=Dataset.from_list([{"prompt": "a cat", "caption": "a dog"}]),
            processing_class=tokenizer,
            rollout_func=roll_out,
        )
        trainer.train()
    (log, *_) = trainer.state.log_history
    assert len(asked) == 4
    assert log["rewards/sdg_picture/mean"] == pytest.approx(-0.3)  # of −0.2, −0.4 and −0.3
    assert log["reward"] == pytest.approx(-0.3)
    assert log["sdg/unscored"] == pytest.approx(0.25)
    assert log["sdg/severity"] == pytest.approx(0.3)
