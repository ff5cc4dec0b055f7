"""The end-of-text token: the boundary between documents, under the names that tokenizers give it."""

from __future__ import annotations

from collections.abc import Sequence

from alignpre_jax.foundation import UserError

END_OF_TEXT = "<|endoftext|>"
_KNOWN_EOTS = (END_OF_TEXT, "<|end_of_text|>", "<|eos|>", "<eos>", "</s>")


def choose_eot(eot: str, there: Sequence[str], special: Sequence[str], where: str) -> str:
    """The name of the end-of-text token: `eot`, or without one the best known among those that are `there`.

    Raises:
      UserError: it is not `there`; the message names the `special` tokens.
    """
    for name in [eot] if eot else _KNOWN_EOTS:
        if name in there:
            return name
    raise UserError(
        f"the tokenizer has no token {eot or END_OF_TEXT!r} to put between documents",
        where=where,
        fix=f"name its end-of-text token; its special tokens: {', '.join(special[:20]) or 'none'}",
    )
