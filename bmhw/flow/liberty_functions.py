# SPDX-License-Identifier: Apache-2.0
"""The Boolean functions of library cells: ``(A B)'``, ``!(A*B)`` and ``A' + B'`` are one."""

import operator
import re
from collections.abc import Sequence
from functools import cached_property, reduce

__all__ = ["Function"]

_TOKEN = re.compile(r"""\s*(?:"(?P<quoted>[^"]+)"|(?P<name>\w[\w\[\].$<>]*)|(?P<sign>[!~'()^&*|+]))\s*""")
_OPERATORS = {"&": operator.and_, "|": operator.or_, "^": operator.xor}
_SAME = {"~": "!", "*": "&", "+": "|"}
_NAMED_INPUTS = 10  # up to so many, what a function depends on is found by its values, above by its text


class Function:
    """A function as a Liberty file writes it; ``ValueError`` if it can't be read.

    Inversion comes first, then exclusive or, and, or, as Liberty has it; two operands side by side are an and.
    """

    def __init__(self, text: str):
        self._tokens: list[tuple[str, str]] = []
        position = 0
        text = text.strip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if not match:
                raise ValueError(f"function {text[:60]!r} has a {text[position]!r}")
            kind = match.lastgroup
            value = match[kind]
            self._tokens.append(("sign", _SAME.get(value, value)) if kind == "sign" else ("name", value))
            position = match.end()
        self._place = 0
        try:
            self._tree = self._or()
            self.text = _text(self._tree)
            """The same function in signs that Yosys and abc both know, each operation in parentheses."""
        except RecursionError:
            raise ValueError(f"function {text[:60]!r} ... is nested too deeply") from None
        except IndexError:
            raise ValueError(f"function {text[:60]!r} ends too early") from None
        if self._place < len(self._tokens):
            raise ValueError(f"function {text[:60]!r} has a {self._tokens[self._place][1]!r} too many")

    @cached_property
    def names(self) -> list[str]:
        """The names in it, in the order of the text."""
        return list(dict.fromkeys(value for kind, value in self._tokens if kind == "name" and value not in ("0", "1")))

    def truth(self, inputs: Sequence[str]) -> int:
        """Its value for each combination of inputs, as bit ``sum(2**i)`` over the inputs ``i`` that are 1."""
        size = 1 << len(inputs)
        ones = (1 << size) - 1
        # bit b of input i is bit i of b: runs of 2**i zeros and ones
        values = {name: ones // ((1 << (1 << i)) + 1) << (1 << i) for i, name in enumerate(inputs)}

        def value(tree: tuple) -> int:
            sign, *operands = tree
            if sign == "name":
                return {"0": 0, "1": ones}.get(operands[0], values.get(operands[0], 0))
            if sign == "!":
                return ones ^ value(operands[0])
            return reduce(_OPERATORS[sign], map(value, operands))

        return value(self._tree)

    @cached_property
    def support(self) -> list[str]:
        """The inputs that it depends on."""
        names = self.names
        if len(names) > _NAMED_INPUTS:
            return names
        truth, size = self.truth(names), 1 << len(names)
        return [name for i, name in enumerate(names)
                if any((truth >> b & 1) != (truth >> (b ^ 1 << i) & 1) for b in range(size))]

    def _next(self, *signs: str) -> bool:
        """Whether one of the signs comes next; it is taken."""
        if self._place < len(self._tokens) and self._tokens[self._place] in [("sign", sign) for sign in signs]:
            self._place += 1
            return True
        return False

    def _or(self) -> tuple:
        operands = [self._and()]
        while self._next("|"):
            operands.append(self._and())
        return _joined("|", operands)

    def _and(self) -> tuple:
        operands = [self._xor()]
        while self._next("&") or self._operand_follows():
            operands.append(self._xor())
        return _joined("&", operands)

    def _operand_follows(self) -> bool:
        if self._place == len(self._tokens):
            return False
        kind, value = self._tokens[self._place]
        return kind == "name" or value in ("!", "(")

    def _xor(self) -> tuple:
        operands = [self._inverted()]
        while self._next("^"):
            operands.append(self._inverted())
        return _joined("^", operands)

    def _inverted(self) -> tuple:
        if self._next("!"):
            return "!", self._inverted()
        kind, value = self._tokens[self._place]
        self._place += 1
        if kind == "name":
            tree = "name", value
        elif value == "(":
            tree = self._or()
            if not self._next(")"):
                raise IndexError
        else:
            raise ValueError(f"a function has a {value!r} where a pin is expected")
        while self._next("'"):
            tree = "!", tree
        return tree


def _joined(sign: str, operands: list[tuple]) -> tuple:
    """A long sum is no deep tree."""
    return operands[0] if len(operands) == 1 else (sign, *operands)


def _text(tree: tuple) -> str:
    sign, *operands = tree
    if sign == "name":
        return operands[0]
    if sign == "!":
        return "!" + _text(operands[0])
    return f"({sign.join(map(_text, operands))})"
