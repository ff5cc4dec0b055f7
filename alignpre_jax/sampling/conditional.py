"""Conditional decoding (Korbak et al. 2023, arXiv 2302.08582, section 2) continues text that is marked as aligned."""

from __future__ import annotations

import dataclasses

from alignpre_jax.sampling.requests import Prompt, Request


def conditional(request: Request, *, aligned: int, misaligned: int, eot_id: int) -> Request:
    """Returns a request with the aligned control token before its prompt, and both control tokens banned from its text.

    Args:
      request: any request.
      aligned: the control token of aligned text, as the model was trained with it.
      misaligned: the control token of other text.
      eot_id: end-of-text, which comes first, as before every document in training.
    """
    banned = (*request.banned, aligned, misaligned)
    return dataclasses.replace(request, prompt=marked(request.prompt, aligned, eot_id), banned=banned)


def marked(prompt: Prompt, control: int, eot_id: int) -> Prompt:
    """Returns a prompt with a control token where a document begins; prefixes of `Engine.score` can have it, too."""
    parts = (prompt,) if isinstance(prompt, str) else prompt
    return (eot_id, control, *(parts[1:] if parts[:1] == (eot_id,) else parts))
