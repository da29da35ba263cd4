"""How models behind APIs are reached, and what models cost: the options, and what they say of each model."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from ludus.programs.models import Access
    from ludus.programs.prices import Price

CommandT = TypeVar("CommandT", bound=Callable[..., Any])
ALL = ""
"""Stands for every model that is evaluated and that nothing else is said of."""
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Accesses:
    """What the options say, by model."""

    base_urls: Mapping[str, str]
    keys: Mapping[str, str]
    given: Mapping[str, Price]
    """Prices on the command line."""
    listed: Mapping[str, Price]
    """Those of a file, which may name other models too."""

    @property
    def prices(self) -> dict[str, Price]:
        """All of them."""
        return {**self.listed, **self.given}

    def of(self, model: str) -> Access:
        """A model that is evaluated."""
        from ludus.programs.models import is_remote

        return self._access(model, ALL if is_remote(model) else model)

    def named(self, model: str) -> Access:
        """A model that plays another role: only what is said of it by name."""
        return self._access(model, model)

    def of_roles(
        self, role_models: Mapping[str, str], role_prices: Mapping[str, tuple[float, float]] | None = None
    ) -> dict[str, Access]:
        """By role; a price that is said of the role counts before one of its model. Raises click.UsageError."""
        from dataclasses import replace

        for role in role_prices or {}:
            if role not in role_models:
                raise click.UsageError(f"--role-price names {role}, but no model: --role-model {role}=openai:NAME ?")
        found = {role: self.named(model) for role, model in role_models.items()}
        return found | {role: replace(found[role], price=price) for role, price in (role_prices or {}).items()}

    def check(self, evaluated: Iterable[str], others: Iterable[str] = (), *, hourly: bool = False) -> None:
        """Raises click.UsageError, UnknownName where something is said of a model that can't use it, or is not there.

        Args:
            evaluated: models.
            others: models of other roles.
            hourly: whether there is a use for prices by the hour.
        """
        from ludus.errors import UnknownName
        from ludus.programs.models import is_remote
        from ludus.programs.prices import bare

        evaluated = list(evaluated)
        models = [*evaluated, *others]
        for name in (*self.base_urls, *self.keys, *self.given):
            if name != ALL and bare(name) not in map(bare, models):
                raise UnknownName("model", name, models)
        if not hourly and any(price.hour for price in self.given.values()):
            raise click.UsageError("a price by the hour is for comparing models, with ludus eval or ludus report")
        for option, said in (("--base-url", self.base_urls), ("--api-key-env", self.keys)):
            for name in said:
                meant = [model for model in models if bare(model) == bare(name)] if name != ALL else evaluated
                if not any(map(is_remote, meant)):
                    got = f"a model is {meant[0]!r}: openai:{meant[0]} ?" if meant else "no model is named"
                    raise click.UsageError(f"{option} goes with openai:NAME, but {got}")

    def _access(self, model: str, otherwise: str) -> Access:
        from ludus.programs.models import Access
        from ludus.programs.prices import bare

        def said(values: Mapping[str, Any]) -> Any:
            named = {bare(name): value for name, value in values.items()}
            return named.get(bare(model), named.get(otherwise))

        price = said(self.prices)
        return Access(said(self.base_urls), said(self.keys), price.by_token if price else None)


def reach_options(command: CommandT) -> CommandT:
    """`--base-url` and `--api-key-env`; the command gets `access`, an `Accesses`."""
    return _gathering(command, key_option, base_url_option)


def access_options(command: CommandT) -> CommandT:
    """The same, and `--price` and `--prices`."""
    return _gathering(command, prices_option, price_option, key_option, base_url_option)


def _gathering(command: CommandT, *options: Callable[[Any], Any]) -> CommandT:
    @functools.wraps(command)
    def with_access(
        *args: Any, base_urls: dict[str, str], keys: dict[str, str], prices: dict[str, Price] | None = None,
        price_file: dict[str, Price] | None = None, **others: Any,
    ) -> Any:  # fmt: skip
        return command(*args, access=Accesses(base_urls, keys, prices or {}, price_file or {}), **others)

    for option in options:
        with_access = option(with_access)
    return with_access  # type: ignore[return-value] # it takes other options than the command


def _base_urls(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """URL or MODEL=URL as a table. Raises click.BadParameter."""
    found = {}
    for value in values:
        model, _, url = (ALL, "", value) if re.match(r"https?://", value) else value.partition("=")
        if not re.match(r"https?://", url):
            raise click.BadParameter(f"expected http://... or MODEL=http://..., got {value!r}")
        found[model] = url
    return found


def _keys(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """VARIABLE or MODEL=VARIABLE as a table of keys. Raises click.BadParameter, without what may be a key itself."""
    found = {}
    for value in values:
        model, _, variable = value.rpartition("=")
        key = os.environ.get(variable) if VARIABLE.fullmatch(variable) else None
        if not key:
            whose = f" for {model}" if model else ""
            raise click.BadParameter(f"expected the name of an environment variable that is set{whose}, not a key")
        found[model] = key
    return found


def _prices(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Price]:
    """PRICE or MODEL=PRICE as a table. Raises click.BadParameter."""
    from ludus.errors import UsageError
    from ludus.programs.prices import read_price

    found = {}
    for value in values:
        model, _, price = value.rpartition("=")
        try:
            found[model] = read_price(price)
        except UsageError as error:
            raise click.BadParameter(str(error)) from None
    return found


def _price_file(ctx: click.Context, param: click.Parameter, value: Path | None) -> dict[str, Price]:
    if value is None:
        return {}
    from ludus.programs.prices import read_prices

    return read_prices(value)


def role_prices_of(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """ROLE=IN,OUT as a table. Raises click.BadParameter."""
    found = {role: price.by_token for role, price in _prices(ctx, param, values).items()}
    if ALL in found or None in found.values():
        raise click.BadParameter(f"expected ROLE=IN,OUT, such as judge=0.25,2, got {', '.join(values)}")
    return found


base_url_option = click.option(
    "--base-url", "base_urls", multiple=True, callback=_base_urls, metavar="[MODEL=]URL",
    help="Of the API behind openai:NAME; of one model, or of all that are evaluated.",
)  # fmt: skip
key_option = click.option(
    "--api-key-env", "keys", multiple=True, callback=_keys, metavar="[MODEL=]VARIABLE",
    show_default="OPENAI_API_KEY", help="The environment variable with that API's key.",
)  # fmt: skip
price_option = click.option(
    "--price", "prices", multiple=True, callback=_prices, metavar="[MODEL=]PRICE",
    help="IN,OUT: dollars per million prompt and completion tokens; X/h: dollars an hour of a machine.",
)  # fmt: skip
prices_option = click.option(
    "--prices", "price_file", type=click.Path(path_type=Path), metavar="FILE", callback=_price_file,
    help='TOML with prices by model, such as "openai:NAME" = "0.25,2".',
)  # fmt: skip
