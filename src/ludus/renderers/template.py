"""Chat templates, compiled and rendered exactly as Hugging Face's `apply_chat_template` does.

What a model was trained on is what its template writes, so the environment of the template (sandbox, whitespace rules,
filters, the names of reasoning fields) has to be the same to the byte; a test compares the two. Left out: images and
other media, Python functions as tools, and objects that are not plain JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ludus.errors import ModelFolderError, UsageError
from ludus.renderers.dialect import Dialect, find_dialect
from ludus.renderers.tokenizer import read_json, token_text
from ludus.types import Message

TEMPLATE_FILE, TOOL_TEMPLATE_FILE = "chat_template.jinja", "additional_chat_templates/tool_use.jinja"
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

_DICT_ATTRIBUTES = frozenset(dir(dict))
# Whatever a template's own code may raise, deep recursion and division by zero included.
_RENDER_ERRORS = (
    jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError,
)  # fmt: skip


class ChatTemplate:
    """A chat template and the variables it is rendered with.

    Args:
        source: Jinja source.
        variables: what the template may read besides messages and tools: special tokens, `enable_thinking`, ...
        tool_source: another source, for conversations that have tools.

    Raises:
        UsageError: not valid Jinja.
    """

    def __init__(
        self, source: str, variables: Mapping[str, Any] | None = None, *, tool_source: str | None = None
    ) -> None:
        self.source = source
        self.tool_source = tool_source
        self.variables = dict(variables or {})
        self._render = _compile(source)
        self._render_tools = self._render if tool_source is None else _compile(tool_source)

    @classmethod
    def from_folder(cls, folder: Path, variables: Mapping[str, Any] | None = None) -> ChatTemplate:
        """The template of a model folder: chat_template.jinja, or `chat_template` in tokenizer_config.json.

        Raises:
            ModelFolderError: neither is there, or it can't be read.
        """
        config_path, path = folder / "tokenizer_config.json", folder / TEMPLATE_FILE
        config = read_json(config_path)
        sources: dict[str, Any] = {}
        if path.is_file():
            sources["default"] = path.read_text(encoding="utf-8")
            if (folder / TOOL_TEMPLATE_FILE).is_file():
                sources["tool_use"] = (folder / TOOL_TEMPLATE_FILE).read_text(encoding="utf-8")
        elif isinstance(found := config.get("chat_template"), str):
            path, sources["default"] = config_path, found
        elif isinstance(found, list):
            path, sources = config_path, {entry["name"]: entry["template"] for entry in found if "name" in entry}
        if not isinstance(sources.get("default"), str):
            raise ModelFolderError(
                f"{folder}: no chat template; expected chat_template.jinja, or the key chat_template in "
                f"tokenizer_config.json (a string, or a list with one named 'default')"
            )
        special = {name: text for name in SPECIAL_TOKENS if (text := token_text(config.get(name))) is not None}
        try:
            return cls(sources["default"], {**special, **(variables or {})}, tool_source=sources.get("tool_use"))
        except UsageError as error:
            raise ModelFolderError(f"{path}: {error}") from None

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] = (),
        *,
        add_generation_prompt: bool = False,
    ) -> str:
        """The conversation as text; with `add_generation_prompt`, up to where the assistant's reply begins.

        Raises:
            UsageError: the template refuses the conversation, or fails on it.
        """
        return self._write([self._dialect.prepare(message) for message in messages], tools, add_generation_prompt)

    def reads(self, name: str) -> bool:
        """Whether the template looks up a variable of that name."""
        sources = (self.source, self.tool_source or "")
        return any(name in source and name in _undeclared(source) for source in sources)

    @cached_property
    def _dialect(self) -> Dialect:
        return find_dialect(lambda messages: self._write(messages, (), False))

    def _write(self, messages: list[Message], tools: Sequence[dict[str, Any]], add_generation_prompt: bool) -> str:
        render = self._render_tools if tools else self._render
        try:
            return render(
                messages=messages,
                tools=list(tools) or None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self.variables,
            )
        except _RENDER_ERRORS as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise UsageError(f"the chat template can't render this conversation: {why}") from error


@lru_cache(maxsize=128)
def _compile(source: str) -> Callable[..., str]:
    try:
        return _environment().from_string(source).render
    except jinja2.TemplateSyntaxError as error:
        raise UsageError(f"the chat template is not valid Jinja (line {error.lineno}): {error.message}") from None


@lru_cache(maxsize=128)
def _undeclared(source: str) -> set[str]:
    return meta.find_undeclared_variables(_environment().parse(source))


def _environment() -> ImmutableSandboxedEnvironment:
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.globals.update(
        raise_exception=_raise_exception, strftime_now=_strftime_now, dict=_Dict(), namespace=_Namespace
    )
    return environment


class _Environment(ImmutableSandboxedEnvironment):
    """Hugging Face's, with short cuts for `message.role` and `loop.last`, which are looked up most.

    The results are the same: dicts have no other attributes, and public ones of a loop or namespace are always safe.
    """

    def getattr(self, obj: Any, attribute: str) -> Any:
        kind = type(obj)
        if kind is dict and attribute not in _DICT_ATTRIBUTES:
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        if (kind is LoopContext or kind is _Namespace) and not attribute.startswith("_"):
            value = getattr(obj, attribute, None)
            if value is not None:
                return value
        return super().getattr(obj, attribute)


class _Generation(Extension):
    """`{% generation %}` marks what the assistant writes. Like Hugging Face's, it opens a scope of its own."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller: Callable[[], str]) -> str:
        return caller()


class _Dict:
    """`dict` for templates, without the type's attributes, through which they could leave the sandbox."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(jinja2.utils.Namespace):
    """`namespace` for templates, without names that reach into Python."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # so that `namespace(self=...)` works, as in Jinja
        self, positional = args[0], args[1:]
        values = dict(*positional, **kwargs)
        for name in values:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"namespace attributes must not start with an underscore, got {name!r}")


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML, which is not what models are trained on.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)
