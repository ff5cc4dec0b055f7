"""Writes prompts as conversations, by a chat template that the config names or by the model's own.

The model's own template may write special tokens, which no text can spell. Its prompts are therefore tuples of parts
(see `sampling.Prompt`) and need the engine; a page shows only their text.
"""

from __future__ import annotations

from typing import Any

from alignpre_jax.evals.variants import OWN, chat_prompt
from alignpre_jax.foundation import UserError
from alignpre_jax.rows.template import chat_prompt as own_prompt
from alignpre_jax.rows.template import turn_end
from alignpre_jax.sampling import Prompt


def conversation(engine: Any, text: str, system: str, template: str, cue: str = "") -> Prompt:
    """Returns a system prompt (if any) and a user's message as a prompt that ends in the cue, where the answer goes on.

    Args:
      engine: the model; only its own template needs it.
      text: the user's message.
      system: the system prompt, or empty.
      template: a chat template in Jinja, or "model" for the model's own.
      cue: how the answer begins.

    Raises:
      UserError: the model has no template of its own to offer, or the template refuses the conversation.
    """
    if template != OWN:
        return chat_prompt(text, system, template) + cue
    _own_template(engine)
    messages = [{"role": "system", "content": system}] if system else []
    parts = own_prompt([*messages, {"role": "user", "content": text}], engine.template, engine.tokenizer)
    assert isinstance(parts, tuple)
    return (*parts, cue) if cue else parts


def turn_ends(engine: Any, template: str) -> dict[str, tuple[int, ...]]:
    """Returns the arguments that make `Engine.generate` end an answer with its turn: `ends`, the token that ends turns.

    They are empty for any other template, and where a turn ends with end-of-text, which always ends an answer.
    """
    if template != OWN:
        return {}
    end = turn_end(_own_template(engine), engine.tokenizer)
    return {} if end is None or end == engine.tokenizer.eot_id else {"ends": (end,)}


def ends_in_colon(prompt: Prompt) -> bool:
    """Whether the prompt ends in a colon, so that an answer to it begins with a space."""
    last = prompt if isinstance(prompt, str) else prompt[-1]
    return isinstance(last, str) and last.endswith(":")


def _own_template(engine: Any) -> Any:
    if not hasattr(engine, "template"):
        raise UserError(
            "this model has no chat template of its own", where="evals.NAME.template", fix='give "plain" or a file'
        )
    return engine.template
