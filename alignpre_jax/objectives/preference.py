"""These objectives learn from pairs of answers to one prompt, a chosen and a rejected one: DPO's kin, ORPO and SimPO.

Notation: l_w and l_l are the log-probs of the chosen and the rejected answer (sums over their learnt tokens, the end of
the turn included), r_w and r_l the same under the reference, T_w and T_l the numbers of these tokens, m_w = l_w / T_w
and m_l = l_l / T_l the means per token. All of it is float32. Every loss of pairs is a mean over the pairs of the
global batch, and every NLL is a mean over the learnt tokens of their chosen answers.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from alignpre_jax.foundation import UserError
from alignpre_jax.objectives.contract import Aux, Columns, Models, Terms
from alignpre_jax.objectives.pairs import FIGURES, LogProbs, Pairs, figures, find_pairs, log_probs

READS = ("tokens", "segments", "mask", "side")
_NEAREST = 1e-7  # log p per token is taken to be below -1e-7 in the log-odds, which are infinite at 0


@dataclasses.dataclass(frozen=True)
class Dpo:
    """`Dpo` is direct preference optimisation: the policy is to prefer the chosen answer by more than its reference.

    With the margin h = (l_w - r_w) - (l_l - r_l) and z = beta h the loss of a pair is

        sigmoid  -(1 - e) log sigma(z) - e log sigma(-z)     DPO (Rafailov et al. 2023, arXiv 2305.18290, Eq 7), and
                                                             with e > 0 conservative DPO (Mitchell 2023)
        robust   [-(1 - e) log sigma(z) + e log sigma(-z)] / (1 - 2 e)     (Chowdhury et al. 2024, arXiv 2403.00409)
        hinge    max(0, 1 - z)                               SLiC (Zhao et al. 2023, arXiv 2305.10425, as DPO's loss)
        ipo      (h - 1 / (2 beta))^2                        IPO (Azar et al. 2023, arXiv 2310.12036, Eq 17)

    where e is `label_smoothing`. The margin of "ipo", and that of every loss if `length_normalised`, is of means per
    token, h = (m_w - r_w / T_w) - (m_l - r_l / T_l): for "ipo" that is the correction of its authors, for "sigmoid" the
    length-normalised DPO of Tulu 3 (Lambert et al. 2024, arXiv 2411.15124, section 5.1.1).

    Args:
      name: the tag by which a config names this objective.
      beta: the scale of the margin; of "ipo" the regularisation tau.
      length_normalised: whether the margin is of means per token.
      loss: the loss of a pair.
      label_smoothing: the share of pairs taken to have the wrong answer chosen; of "sigmoid" and "robust", below 0.5.
      nll: weight of -log p per learnt token of the chosen answers, because DPO by itself lowers l_w too.
      chunk_bytes: bytes for one chunk of float32 logits on one device; 0 chooses them by platform.
    """

    name: Literal["dpo"] = "dpo"
    beta: float = 0.1
    length_normalised: bool = False
    loss: Literal["sigmoid", "hinge", "ipo", "robust"] = "sigmoid"
    label_smoothing: float = 0.0
    nll: float = 0.0
    chunk_bytes: int = 0

    reads: ClassVar[tuple[str, ...]] = READS
    heads: ClassVar[tuple[str, ...]] = ()
    figures: ClassVar[tuple[str, ...]] = FIGURES
    needs_reference: ClassVar[bool] = True

    def __post_init__(self):
        _check(self, positive=("beta",), not_negative=("nll", "chunk_bytes"))
        if not 0 <= self.label_smoothing < 0.5:
            what = f"{self.label_smoothing} is not a share below one half"
            raise UserError(what, where="label_smoothing", fix="give 0 or more, and less than 0.5")
        if self.label_smoothing and self.loss not in ("sigmoid", "robust"):
            what = f"the loss {self.loss!r} has no label smoothing"
            raise UserError(what, where="label_smoothing and loss", fix="leave it at 0, or choose sigmoid or robust")

    def weights(self, batch: Columns) -> dict[str, jax.Array]:
        """Returns the number of pairs and, for the NLL, of learnt tokens of chosen answers."""
        return _weights(batch, "nll" if self.nll else "")

    def terms(self, models: Models, batch: Columns) -> tuple[Terms, Aux]:
        """Returns the sum of the losses of the pairs of these rows, and the figures of `Contract`."""
        assert models.reference is not None
        pairs = find_pairs(batch)
        ours = log_probs(models.policy, batch, pairs, self.chunk_bytes)
        theirs = log_probs(models.reference, batch, pairs, self.chunk_bytes)
        margins_BS = self.margins(pairs, ours, jax.lax.stop_gradient(theirs))
        terms: Terms = {"pairs": (1.0, jnp.sum(self.pair_losses(margins_BS) * pairs.paired_BS))}
        if self.nll:
            terms["nll"] = (self.nll, -jnp.sum(ours.chosen_BS))
        return terms, figures(pairs, ours, margins_BS)

    def margins(self, pairs: Pairs, ours: LogProbs, theirs: LogProbs) -> jax.Array:
        """Returns h of every pair, 0 where there is none."""
        chosen_BS, rejected_BS = ours.chosen_BS - theirs.chosen_BS, ours.rejected_BS - theirs.rejected_BS
        if self.length_normalised or self.loss == "ipo":
            chosen_BS, rejected_BS = chosen_BS / pairs.chosen_BS, rejected_BS / pairs.rejected_BS
        return chosen_BS - rejected_BS

    def pair_losses(self, margins: jax.Array) -> jax.Array:
        """Returns the loss of pairs with these margins."""
        z, e = self.beta * margins, self.label_smoothing
        match self.loss:
            case "hinge":
                return jax.nn.relu(1.0 - z)
            case "ipo":
                return jnp.square(margins - 1.0 / (2.0 * self.beta))
            case "robust":
                return ((1.0 - e) * _not(z) - e * _not(-z)) / (1.0 - 2.0 * e)
        return (1.0 - e) * _not(z) + e * _not(-z) if e else _not(z)

    @property
    def start_loss(self) -> float:
        """The loss of a pair whose margin is 0: ln 2 for "sigmoid" and "robust"."""
        return {"hinge": 1.0, "ipo": 1.0 / (2.0 * self.beta) ** 2}.get(self.loss, math.log(2.0))


@dataclasses.dataclass(frozen=True)
class Orpo:
    """`Orpo` is finetuning on the chosen answers with a penalty on the odds of the rejected ones, without a reference.

    The loss is NLL(chosen) + weight x -log sigma(log odds_w - log odds_l) with log odds = m - log(1 - e^m) (Hong et al.
    2024, arXiv 2403.07691, Eq 6 and 7).

    Args:
      name: the tag by which a config names this objective.
      weight: the paper's lambda; other programs call it beta.
      chunk_bytes: bytes for one chunk of float32 logits on one device; 0 chooses them by platform.
    """

    name: Literal["orpo"] = "orpo"
    weight: float = 0.1
    chunk_bytes: int = 0

    reads: ClassVar[tuple[str, ...]] = READS
    heads: ClassVar[tuple[str, ...]] = ()
    figures: ClassVar[tuple[str, ...]] = FIGURES
    needs_reference: ClassVar[bool] = False

    def __post_init__(self):
        _check(self, not_negative=("weight", "chunk_bytes"))

    def weights(self, batch: Columns) -> dict[str, jax.Array]:
        """Returns the number of pairs, and of learnt tokens of chosen answers."""
        return _weights(batch, "nll")

    def terms(self, models: Models, batch: Columns) -> tuple[Terms, Aux]:
        """Returns the sums over the pairs of these rows, and the figures of `Contract`; a margin is of log-odds."""
        pairs = find_pairs(batch)
        ours = log_probs(models.policy, batch, pairs, self.chunk_bytes)
        chosen_BS, rejected_BS = ours.chosen_BS / pairs.chosen_BS, ours.rejected_BS / pairs.rejected_BS
        margins_BS = (log_odds(chosen_BS) - log_odds(rejected_BS)) * pairs.paired_BS
        terms: Terms = {
            "pairs": (self.weight, jnp.sum(_not(margins_BS) * pairs.paired_BS)),
            "nll": (1.0, -jnp.sum(ours.chosen_BS)),
        }
        return terms, figures(pairs, ours, margins_BS)


@dataclasses.dataclass(frozen=True)
class SimPo:
    """`SimPo` wants the chosen answer's log-prob per token above the rejected one's by a target, without a reference.

    The loss of a pair is -log sigma(beta (m_w - m_l) - gamma) (Meng et al. 2024, arXiv 2405.14734, Eq 6).

    Args:
      name: the tag by which a config names this objective.
      beta: the scale of the margin m_w - m_l.
      gamma: the target of beta x margin.
      chunk_bytes: bytes for one chunk of float32 logits on one device; 0 chooses them by platform.
    """

    name: Literal["simpo"] = "simpo"
    beta: float = 2.0
    gamma: float = 1.0
    chunk_bytes: int = 0

    reads: ClassVar[tuple[str, ...]] = READS
    heads: ClassVar[tuple[str, ...]] = ()
    figures: ClassVar[tuple[str, ...]] = FIGURES
    needs_reference: ClassVar[bool] = False

    def __post_init__(self):
        _check(self, positive=("beta",), not_negative=("gamma", "chunk_bytes"))

    def weights(self, batch: Columns) -> dict[str, jax.Array]:
        """Returns the number of pairs."""
        return _weights(batch, "")

    def terms(self, models: Models, batch: Columns) -> tuple[Terms, Aux]:
        """Returns the sum of the losses of the pairs of these rows, and the figures of `Contract`."""
        pairs = find_pairs(batch)
        ours = log_probs(models.policy, batch, pairs, self.chunk_bytes)
        margins_BS = ours.chosen_BS / pairs.chosen_BS - ours.rejected_BS / pairs.rejected_BS
        losses_BS = _not(self.beta * margins_BS - self.gamma) * pairs.paired_BS
        return {"pairs": (1.0, jnp.sum(losses_BS))}, figures(pairs, ours, margins_BS)


def log_odds(mean: jax.Array) -> jax.Array:
    """Returns log(p / (1 - p)) of p = e^mean, mean <= 0: finite for every mean, also where p rounds to 1.

    log(1 - e^-x) is log(-expm1(-x)) for small x and log1p(-e^-x) for large ones (Maechler 2012, "Accurately Computing
    log(1 - exp(-|a|))", Eq 7).
    """
    x = -jnp.minimum(mean, -_NEAREST)
    is_small = x < math.log(2.0)
    small = jnp.log(-jnp.expm1(-jnp.where(is_small, x, 1.0)))
    large = jnp.log1p(-jnp.exp(-jnp.where(is_small, 1.0, x)))
    return -x - jnp.where(is_small, small, large)


def _not(z: jax.Array) -> jax.Array:
    """Returns -log sigma(z)."""
    return -jax.nn.log_sigmoid(z)


def _weights(batch: Columns, nll: str) -> dict[str, jax.Array]:
    pairs = find_pairs(batch)
    tokens = {nll: jnp.sum(pairs.chosen_BS * pairs.paired_BS)} if nll else {}
    return {"pairs": jnp.sum(pairs.paired_BS)} | tokens


def _check(objective: Dpo | Orpo | SimPo, positive: tuple[str, ...] = (), not_negative: tuple[str, ...] = ()) -> None:
    for name in positive:
        if not getattr(objective, name) > 0:
            raise UserError(f"{getattr(objective, name)} is not positive", where=name, fix="give more than 0")
    for name in not_negative:
        if not getattr(objective, name) >= 0:
            raise UserError(f"{getattr(objective, name)} is negative", where=name, fix="give 0 or more")
