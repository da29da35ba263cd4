"""The presets' tokenizer and chat template.

Byte-level, so that any text has ids; but the numbers 00 to 99 and the words and punctuation that instructions are made
of (see `words.txt`) have one token each, so that toy tasks are short. Other words stay letter by letter. Special tokens
delimit turns. What a conversation renders to is a prefix of what it renders to after more messages, while old thinking
is kept.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

END = "<|end|>"
PAD = "<|pad|>"
SPECIAL = (PAD, END, "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
MARKUP = ("<think>", "</think>", "<tool_call>", "</tool_call>")
"""Part of what a reply says: never dropped in decoding."""

CHAT_TEMPLATE = """\
{%- set keep = keep_thinking is not defined or keep_thinking -%}
{%- set last = namespace(user=-1) -%}
{%- if not keep -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}{%- set last.user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- set has_system = messages and messages[0].role in ('system', 'developer') -%}
{%- if has_system or tools -%}
{{- '<|system|>' -}}
{%- if has_system -%}{{- messages[0].content -}}{%- endif -%}
{%- if tools -%}
{{- ('\\n\\n' if has_system else '') + '# Tools\\nCall a tool with '
    + '<tool_call>{"name": ..., "arguments": {...}}</tool_call>. The tools are:' -}}
{%- for tool in tools -%}{{- '\\n' + (tool | tojson) -}}{%- endfor -%}
{%- endif -%}
{{- '<|end|>' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if has_system and loop.first -%}
{%- else -%}
{{- '<|' + ('system' if message.role == 'developer' else message.role) + '|>' -}}
{%- if message.reasoning_content and (keep or loop.index0 > last.user) -%}
{{- '<think>' + message.reasoning_content + '</think>' -}}
{%- endif -%}
{%- if message.content is string -%}{{- message.content -}}
{%- elif message.content -%}{%- for part in message.content -%}{{ part.text }}{%- endfor -%}
{%- endif -%}
{%- for call in message.tool_calls or [] -%}
{%- set call = call.function or call -%}
{{- '<tool_call>{"name": ' + (call.name | tojson) + ', "arguments": ' -}}
{{- call.arguments if call.arguments is string else (call.arguments | tojson) -}}
{{- '}</tool_call>' -}}
{%- endfor -%}
{{- '<|end|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""


def build_tokenizer() -> Tokenizer:
    """Ids: special tokens, markup, the 256 bytes, the 100 two-digit numbers, the words and punctuation."""
    added = [*SPECIAL, *MARKUP]
    pieces = [*added, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = [(first, second) for first in "0123456789" for second in "0123456789"]
    pieces += [first + second for first, second in merges]
    pieces += (Path(__file__).parent / "words.txt").read_text(encoding="utf-8").split()
    vocab = {piece: i for i, piece in enumerate(pieces)}
    # ignore_merges: a whole piece of text that is in the vocabulary is one token; others fall back to bytes
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # without the split, "12345" would be merged by rank rather than from left to right
            pre_tokenizers.Split(Regex("[0-9]{1,2}| ?[A-Za-z]+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in MARKUP])
    return tokenizer
