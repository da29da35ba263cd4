"""What models cost: dollars per million tokens, or dollars an hour of the machine that they run on.

Written as `IN,OUT` (such as `0.25,2`) or as `X/h` (such as `1.5/h`), on the command line and in a TOML table:

    "openai:large" = "2.5,10"
    "runs/mine" = "1.5/h"
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ludus.errors import UsageError

PREFIXES = ("cached:", "openai:")
PER_HOUR = "/h"


@dataclass(frozen=True)
class Price:
    """What a model costs, in US dollars."""

    prompt: float = 0.0
    """Per million tokens that it reads."""
    completion: float = 0.0
    """Per million tokens that it writes."""
    hour: float = 0.0
    """Of its machine; shared by the rollouts that run at once."""

    @property
    def by_token(self) -> tuple[float, float] | None:
        """Prompt and completion; None for a price by the hour."""
        return None if self.hour else (self.prompt, self.completion)

    def __str__(self) -> str:
        return f"${self.hour:g} an hour" if self.hour else f"${self.prompt:g} / ${self.completion:g} per M tokens"


def read_price(text: str) -> Price:
    """A price as people write it. Raises UsageError.

    >>> read_price("0.25,2"), read_price("1.5/h")
    (Price(prompt=0.25, completion=2.0, hour=0.0), Price(prompt=0.0, completion=0.0, hour=1.5))
    """
    try:
        if text.strip().endswith(PER_HOUR):
            amounts = [float(text.strip().removesuffix(PER_HOUR))]
        else:
            prompt, completion = text.split(",")
            amounts = [float(prompt), float(completion)]
    except ValueError:
        amounts = [math.nan]
    if not all(math.isfinite(amount) and amount >= 0 for amount in amounts):
        raise UsageError(f"expected two numbers such as 0.25,2, or an hourly price such as 1.5/h, got {text!r}")
    return Price(hour=amounts[0]) if len(amounts) == 1 else Price(*amounts)


def read_prices(path: str | Path) -> dict[str, Price]:
    """The prices in a TOML file, by model. Raises UsageError for what is none, by the model's name."""
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"can't read the prices {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    prices = {}
    for model, value in table.items():
        try:
            prices[model] = read_price(value if isinstance(value, str) else repr(value))
        except UsageError as error:
            raise UsageError(f"{path}, {model}: {error}") from None
    return prices


def bare(model: str) -> str:
    """A model's name without what says how it is reached: records have it so.

    >>> bare("cached:openai:org/large"), bare("runs/mine")
    ('org/large', 'runs/mine')
    """
    for prefix in PREFIXES:
        model = model.removeprefix(prefix)
    return model


def price_for(model: str, prices: Mapping[str, Price]) -> Price | None:
    """The price of a model, by its name with or without how it is reached; that of "" is everybody else's."""
    named = {bare(name): price for name, price in prices.items()}
    return prices.get(model) or named.get(bare(model)) or named.get("")
