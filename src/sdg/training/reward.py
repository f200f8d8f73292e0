"""The composite reward of the detector: where, why and how much, behind a strict format gate (SDG §4.1).

R = 0.6·R_loc + 0.25·R_desc + 0.15·R_imp where the format is valid, else −1. A whole batch is scored in one
pass: one matching over all completions and one call of the text similarity over all matched pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sdg.defects import UNKNOWN_IMPORTANCE, Defect, DefectType, Diagnosis
from sdg.embeddings import Similarity
from sdg.errors import SdgError, quoted
from sdg.geometry import paired_diou
from sdg.matching import match_blocks
from sdg.prompting import PromptProfile
from sdg.response import format_fault, parse_response

WEIGHT_LOCATION: Final = 0.6
WEIGHT_DESCRIPTION: Final = 0.25
WEIGHT_IMPORTANCE: Final = 0.15
MALFORMED: Final = -1.0
"""Total of a completion that fails the format gate."""

BOTH_CLEAN: Final = 0.3  # R_loc: nothing to find, nothing said
ALL_MISSED: Final = -0.8  # R_loc: defects to find, nothing said
ALL_INVENTED: Final = -0.3  # R_loc: nothing to find, defects said
UNMATCHED: Final = 0.5  # off the sum of DIoU, for each defect without a partner on either side
COSINE_FLOOR: Final = 0.5  # a similarity up to this earns nothing …
COSINE_SPAN: Final = 0.4  # … and one this much higher earns all
IMPORTANCE_SPAN: Final = 50  # a difference this large earns nothing

MALFORMED_SHARE: Final = "sdg/malformed"
SPREAD: Final = "sdg/spread"
"""Names in the log, see `reward_function`."""

_TYPES: Final = {kind: number for number, kind in enumerate(DefectType)}


@dataclass(frozen=True, slots=True)
class Reward:
    """The reward of one completion and its three parts before weighting, which are 0 where it is malformed.

    location and total are in −1..1, description and importance in 0..1.
    """

    total: float
    location: float
    description: float
    importance: float
    format_valid: bool


@dataclass(frozen=True, slots=True)
class _Side:
    """The defects of all completions, or of all their truths, one after another."""

    defects: list[Defect]
    owner: NDArray[np.intp]  # (N,) the completion each one belongs to
    boxes: NDArray  # (N, 4)
    block: NDArray[np.intp]  # (N,) completion and type: what is matched with what


def composite_reward(
    response: str,
    truth: Diagnosis | Sequence[Defect],
    similarity: Similarity,
    require_think: bool = True,
    *,
    require_description: bool = True,
    require_importance: bool = True,
) -> Reward:
    """The reward of one raw response; see `composite_rewards`, which scores many at once and far quicker."""
    return composite_rewards(
        [response],
        [truth],
        similarity,
        require_think,
        require_description=require_description,
        require_importance=require_importance,
    )[0]


def composite_rewards(
    responses: Sequence[str],
    truths: Sequence[Diagnosis | Sequence[Defect]],
    similarity: Similarity,
    require_think: bool = True,
    *,
    require_description: bool = True,
    require_importance: bool = True,
) -> list[Reward]:
    """The composite reward of each response against its truth (SDG §4.1, App. D.1).

    With n = max(|G|, |P|, 1) and the optimal same-type matching by DIoU, without a threshold:
    R_loc = clip((Σ DIoU − 0.5·unmatched)/n, −1, 1), or 0.3, −0.8, −0.3 where both sides, the prediction, the
    truth are empty; R_desc = Σ clip((cos − 0.5)/0.4, 0, 1)/n; R_imp = Σ clip(1 − |Δs|/50, 0, 1)/n.
    A blank reason on either side earns nothing in R_desc, a missing predicted importance nothing in R_imp;
    a missing true importance is taken as 50.
    similarity: two equal-length lists of texts -> cosine of a[i] with b[i]; called once, or not at all where
    no pair of reasons is to be compared. The `require_…` switches are those of `format_fault`; a part that is
    not required earns nothing, also where a response has it.
    Raises ValueError where the lists differ in length, a truth says nothing about its image (`failed`,
    `unparseable`, all items lost), or the similarity gives anything but one finite number for each pair.
    """
    if len(responses) != len(truths):
        raise ValueError(f"{len(responses)} responses need as many truths, not {len(truths)}.")
    gate = {
        "require_think": require_think,
        "require_description": require_description,
        "require_importance": require_importance,
    }
    truth = _side([_true_defects(truth) for truth in truths])
    # A malformed completion takes no part: its total is fixed.
    valid = [format_fault(response, **gate) is None for response in responses]
    predicted = _side(
        [
            parse_response(response, require_think=require_think).defects if good else ()
            for response, good in zip(responses, valid, strict=True)
        ]
    )
    rows, columns = match_blocks(truth.boxes, truth.block, predicted.boxes, predicted.block, paired_diou)

    count = len(responses)
    n_truth = np.bincount(truth.owner, minlength=count)
    n_predicted = np.bincount(predicted.owner, minlength=count)
    n = np.maximum(np.maximum(n_truth, n_predicted), 1)
    owner = truth.owner[rows]
    unmatched = n_truth + n_predicted - 2 * np.bincount(owner, minlength=count)
    diou = _sums(owner, paired_diou(truth.boxes[rows], predicted.boxes[columns]), count)
    location = np.select(
        [(n_truth == 0) & (n_predicted == 0), n_predicted == 0, n_truth == 0],
        [BOTH_CLEAN, ALL_MISSED, ALL_INVENTED],
        np.clip((diou - UNMATCHED * unmatched) / n, -1, 1),
    )
    pairs = [
        (truth.defects[row], predicted.defects[column]) for row, column in zip(rows, columns, strict=True)
    ]
    description, importance = np.zeros(count), np.zeros(count)
    if require_importance:
        importance = _sums(owner, np.array([_importance_score(*pair) for pair in pairs]), count) / n
    if require_description:
        description = _sums(owner, _description_scores(pairs, similarity), count) / n
    total = WEIGHT_LOCATION * location + WEIGHT_DESCRIPTION * description + WEIGHT_IMPORTANCE * importance
    malformed = Reward(MALFORMED, 0.0, 0.0, 0.0, format_valid=False)
    scores = np.stack([total, location, description, importance], axis=1).tolist()
    return [
        Reward(all_in_all, where, why, how_much, format_valid=True) if good else malformed
        for (all_in_all, where, why, how_much), good in zip(scores, valid, strict=True)
    ]


def reward_function(profile: PromptProfile, similarity: Similarity, group: int) -> Callable[..., list[float]]:
    """The composite reward as GRPOTrainer calls it; its components go into the log as sdg/….

    sdg/malformed is a share of all completions; sdg/location, sdg/description and sdg/importance, those the
    profile asks for, are means over the well-formed ones. sdg/spread is the mean over the groups of the
    reward's sample standard deviation within a group of `group` completions.
    """
    from accelerate.utils import gather_object

    from sdg.training.dataset import unpack_truth

    gate = profile.answer.gate()
    first = True
    asked = {"description": profile.answer.description, "importance": profile.answer.importance}
    parts = ["location", *(name for name, wanted in asked.items() if wanted)]

    def composite(
        completions: Sequence[list[dict[str, Any]]],
        truth: Sequence[str],
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float]:
        nonlocal first
        texts = [message[-1]["content"] for message in completions]
        rewards = composite_rewards(texts, [unpack_truth(text) for text in truth], similarity, **gate)
        totals = [reward.total for reward in rewards]
        if first and not any(gather_object([reward.format_valid for reward in rewards])):
            raise SdgError(
                "The run stopped before its first step, for every completion of the first batch is malformed "
                f"({str(format_fault(texts[0], **gate)).rstrip('.')}: {quoted(texts[0])}); nothing would be "
                "learned: start from a checkpoint whose answers have the format."
            )
        first = False
        # One value a completion: the trainer divides the sum over the processes by the number of values, so
        # that a process without a well-formed completion takes no part and does not blank the others'.
        for reward in rewards:
            log_metric(MALFORMED_SHARE, float(not reward.format_valid))
            for part in parts if reward.format_valid else ():
                log_metric(f"sdg/{part}", getattr(reward, part))
        # The trainer's reward_std is over the whole batch. A group may lie across processes.
        groups = np.reshape(gather_object(totals), (-1, group))
        log_metric(SPREAD, float(groups.std(axis=1, ddof=1).mean()))
        return totals

    return composite


def _true_defects(truth: Diagnosis | Sequence[Defect]) -> Sequence[Defect]:
    if not isinstance(truth, Diagnosis):
        return truth
    if not truth.is_informative:
        raise ValueError(f"A truth with status {truth.status.value!r} says nothing about its image.")
    return truth.defects


def _side(defects: Sequence[Sequence[Defect]]) -> _Side:
    flat = [defect for each in defects for defect in each]
    owner = np.repeat(np.arange(len(defects)), [len(each) for each in defects])
    kinds = np.array([_TYPES[defect.type] for defect in flat], np.intp)
    boxes = np.array([defect.box for defect in flat], np.int64).reshape(-1, 4)
    return _Side(flat, owner, boxes, owner * len(_TYPES) + kinds)


def _sums(owner: NDArray[np.intp], scores: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Sum of the scores of each completion's pairs: (K,), (K,) -> (count,)."""
    return np.bincount(owner, weights=scores, minlength=count).astype(np.float64, copy=False)


def _description_scores(pairs: list[tuple[Defect, Defect]], similarity: Similarity) -> NDArray[np.float64]:
    scores = np.zeros(len(pairs))
    compared = [i for i, (true, said) in enumerate(pairs) if true.reason.strip() and said.reason.strip()]
    if compared:
        true_reasons = [pairs[i][0].reason for i in compared]
        said_reasons = [pairs[i][1].reason for i in compared]
        cosine = np.asarray(similarity(true_reasons, said_reasons), np.float64)
        if cosine.shape != (len(compared),) or not np.isfinite(cosine).all():
            raise ValueError(
                f"The similarity must give {len(compared)} finite numbers, one for each pair of texts, "
                f"not an array of shape {cosine.shape}{'' if np.isfinite(cosine).all() else ' with NaN'}."
            )
        scores[compared] = np.clip((cosine - COSINE_FLOOR) / COSINE_SPAN, 0, 1)
    return scores


def _importance_score(true: Defect, said: Defect) -> float:
    if said.importance is None:
        return 0.0
    expected = UNKNOWN_IMPORTANCE if true.importance is None else true.importance
    return max(0.0, 1 - abs(expected - said.importance) / IMPORTANCE_SPAN)
