"""The verb about the shell: completion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignpre_jax.cli.verb import Verb
from alignpre_jax.foundation import UserError, suggest


def completion_script(shell: str, verbs: Mapping[str, Verb]) -> str:
    """The script that a shell sources; it completes verbs, their flags, and files.

    Raises:
      UserError: the shell is not known.
    """
    flags = {name: [f"--{flag.name}=" for flag in verb.flags] for name, verb in verbs.items()}
    for name, verb in verbs.items():
        flags[name] += ["--help", *(["--config="] if verb.takes_config else [])]
    if shell == "bash":
        cases = "\n".join(f"    {name}) words='{' '.join(found)}' ;;" for name, found in flags.items())
        return BASH.replace("VERBS", " ".join(verbs)).replace("CASES", cases)
    if shell == "zsh":
        described = "\n".join(f"    '{name}:{_quoted(verb.does)}'" for name, verb in verbs.items())
        cases = "\n".join(f"    {name}) flags=({' '.join(found)}) ;;" for name, found in flags.items())
        return ZSH.replace("VERBS", described).replace("CASES", cases)
    fix = suggest(shell, ("bash", "zsh")) if shell else "e.g. source <(alignpre completion bash), in ~/.bashrc"
    raise UserError(
        f"no completion for {shell!r}" if shell else "for which shell?", where="alignpre completion", fix=fix
    )


def _quoted(text: str) -> str:
    return text.replace("'", "'\\''").replace(":", "\\:")


BASH = r"""_alignpre() {
  local word=${COMP_WORDS[COMP_CWORD]} words=''
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    COMPREPLY=($(compgen -W 'VERBS' -- "$word"))
    return
  fi
  # Readline splits words at =, so the value of --config= is a word of its own.
  if [[ ${COMP_WORDS[COMP_CWORD-1]} == = || $word == = ]]; then
    compopt -o filenames
    COMPREPLY=($(compgen -f -- "${word#=}"))
    return
  fi
  case ${COMP_WORDS[1]} in
CASES
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  compopt -o nospace
}
complete -F _alignpre alignpre
"""
ZSH = r"""#compdef alignpre
_alignpre() {
  local -a verbs flags
  verbs=(
VERBS
  )
  if ((CURRENT == 2)); then
    _describe verb verbs
    return
  fi
  case $words[2] in
CASES
  esac
  if [[ $PREFIX == --*=* ]]; then
    compset -P '*='
    _files
  else
    compadd -S '' -a flags
  fi
}
compdef _alignpre alignpre
"""


def completion(verbs: Mapping[str, Verb]) -> Verb:
    """Makes the verb that prints the completion of all `verbs`, of which it may be one."""

    def run(given: Any, shell: str = "") -> None:
        print(completion_script(shell, verbs), end="")

    return Verb(
        "prints what makes a shell complete verbs and flags",
        "alignpre completion bash",
        (),
        run,
        arguments="bash|zsh",
        takes_config=False,
    )
