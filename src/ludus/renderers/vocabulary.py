"""Do the files of a model folder belong together? A template's special tokens have to be in the vocabulary, and the
vocabulary in the embedding: a mix-up would train on nonsense without a word."""

from __future__ import annotations

import re
from pathlib import Path

from ludus.errors import ModelFolderError, UsageError
from ludus.renderers.formats.probes import ANSWER, CALL, PROBE_TOOLS, QUESTION, TEXT
from ludus.renderers.template import ChatTemplate
from ludus.renderers.tokenizer import HFTokenizer, read_json

# In these brackets there are only special tokens; what ends a reply is one in whatever brackets it stands.
_SPECIAL = re.compile(r"<\|[^\s<>|]+\|>|<｜[^\s<>｜]+｜>")
_TAG = re.compile(r"<[^\s<>]+>|\[[^\s\[\]]+\]")


def check_vocabulary(folder: Path, tokenizer: HFTokenizer, template: ChatTemplate) -> None:
    """Raises ModelFolderError where template, tokenizer and weights do not belong together."""
    config = read_json(folder / "config.json")
    rows = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    tokens = max(tokenizer.vocab_size, *(i + 1 for i in tokenizer.special_ids), 0)
    if isinstance(rows, int) and tokens > rows:
        raise ModelFolderError(
            f"{folder}: tokenizer.json has {tokens} tokens, but the embedding has {rows} rows (vocab_size "
            f"in config.json): the tokenizer belongs to another model"
        )
    missing = [token for token in _tokens_of(template) if len(tokenizer.encode(token)) != 1]
    if missing:
        others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ModelFolderError(
            f"{folder}: the chat template writes {missing[0]!r}{others}, which tokenizer.json does not have as one token: "
            f"the template or the tokenizer belongs to another model"
        )


def _tokens_of(template: ChatTemplate) -> list[str]:
    """The special tokens that the template writes, in order."""
    answer = template.render([*QUESTION, ANSWER])
    try:
        call = template.render([*QUESTION, CALL], PROBE_TOOLS, add_generation_prompt=True)
    except UsageError:
        call = ""
    end = _TAG.match(answer.rpartition(TEXT)[2].lstrip())
    return list(dict.fromkeys([*_SPECIAL.findall(answer + call), *([end[0]] if end else [])]))
