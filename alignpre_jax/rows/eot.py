"""The end-of-text token is the boundary between documents; this module knows the names that tokenizers give it."""

from __future__ import annotations

from collections.abc import Sequence

from alignpre_jax.foundation import UserError

END_OF_TEXT = "<|endoftext|>"
_KNOWN_EOTS = (END_OF_TEXT, "<|end_of_text|>", "<|eos|>", "<eos>", "</s>")


def choose_eot(eot: str, there: Sequence[str], special: Sequence[str], where: str) -> str:
    """Chooses the name of the end-of-text token: `eot` if it is given, else the first known name that is in `there`.

    Raises:
      UserError: no such name is in `there`; the message lists the `special` tokens.
    """
    for name in [eot] if eot else _KNOWN_EOTS:
        if name in there:
            return name
    raise UserError(
        f"the tokenizer has no token {eot or END_OF_TEXT!r} to put between documents",
        where=where,
        fix=f"name its end-of-text token; its special tokens: {', '.join(special[:20]) or 'none'}",
    )
