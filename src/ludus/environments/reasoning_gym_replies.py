"""What reasoning-gym would run of a reply: some of its checkers evaluate replies as Python, in this process.

A few call `eval` where only a list can be meant: in their modules the name stands for `ast.literal_eval` from now on.
Others parse formulas with sympy, which evaluates whatever it is given: they are handed formulas alone.
"""

from __future__ import annotations

import ast
import importlib
import re

LISTS = ("algorithmic.spiral_matrix", "algorithmic.string_insertion", "algorithmic.binary_matrix", "games.n_queens")
"""Modules whose checkers call `eval` on a reply."""
FORMULAS = ("countdown", "intermediate_integration", "polynomial_multiplication", "puzzle24", "simple_integration")
"""Families whose checkers let sympy read a reply."""
FUNCTIONS = (
    "sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan", "sinh", "cosh", "tanh",
    "asinh", "acosh", "atanh", "exp", "log", "ln", "sqrt", "Abs",
)  # fmt: skip
NUMBERS = re.compile(r"\d{1,1000}")
LARGEST_EXPONENT_BITS = 10
LARGEST_BITS = 100_000
"""Of a number: sympy works out 9**9**9, and nothing else runs meanwhile."""
NAN = re.compile(r"(?<![a-z])nan(?![a-hk-z])", re.IGNORECASE)
"""Also as a part of a complex number."""
OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.BitXor)


def evaluate_only_literals() -> None:
    """Let the checkers that call `eval` read lists and other literals, and nothing else."""
    for name in LISTS:
        importlib.import_module(f"reasoning_gym.{name}").eval = ast.literal_eval  # type: ignore[attr-defined]


def is_formula(text: str) -> bool:
    """Whether a text is made of numbers of a sane size, operators, one-letter variables and elementary functions.

    >>> is_formula("3*x**2/2 + sqrt(2)*sin(x) + C"), is_formula("9**9**9"), is_formula("open('file', 'w')")
    (True, False, False)
    """
    try:
        return _bits(ast.parse(text.strip(), mode="eval").body) <= LARGEST_BITS
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        return False


def has_nan(text: str) -> bool:
    """Whether a checker may read a part of a text as a number that is none: nothing is further from it than a tolerance.

    >>> has_nan("1+NaNj"), has_nan("banana"), has_nan("nand")
    (True, False, False)
    """
    return NAN.search(text) is not None


def same_numbers(text: str, other: str) -> bool:
    """Whether two formulas have the same numbers, each as often.

    >>> same_numbers("(3 + 5)*3*1", "1*3*(5+3)"), same_numbers("6*4*1*1", "1*3*(5+3)")
    (True, False)
    """
    return sorted(NUMBERS.findall(text), key=int) == sorted(NUMBERS.findall(other), key=int)


def _bits(node: ast.expr) -> int:
    """How many bits a number may take up, at most; a variable takes one. Raises ValueError for what is no formula."""
    match node:
        case ast.Constant(value=bool()):
            raise ValueError("no number")
        case ast.Constant(value=int() as value):
            return max(1, value.bit_length())
        case ast.Constant(value=float() as value):
            return max(1, int(abs(value)).bit_length())
        case ast.Name(id=name) if len(name) == 1 or name == "pi":
            return 1
        case ast.UnaryOp(op=ast.UAdd() | ast.USub(), operand=operand):
            return _bits(operand)
        case ast.BinOp(op=ast.Pow(), left=left, right=right):
            if (exponent := _bits(right)) > LARGEST_EXPONENT_BITS:
                raise ValueError("too large")
            return _bits(left) << exponent
        case ast.BinOp(op=op, left=left, right=right) if isinstance(op, OPERATORS):
            return _bits(left) + _bits(right)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
            return 1 + sum(map(_bits, arguments))
    raise ValueError("no formula")
