# SPDX-License-Identifier: Apache-2.0
"""Rewrite the Verilog that Yosys writes so that a person can read it, without changing what it means.

Ports go into the header, in order; helper wires used once go into the expression that uses them (bitwise
operators on equal widths only, where Verilog's width rules can't change a result); wires that nothing reads go;
assignments come before their readers.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["tidy"]

_NAME = re.compile(r"\\\S+ |[A-Za-z_][\w$]*")
_HELPER = re.compile(r"\\(\$\d+) ")
_DECLARATION = re.compile(r"  (wire|reg|input|output) (?:\[(\d+):0\] )?(\\\S+ |\w+)(?: = .*)?;")
_BITWISE = re.compile(r"~ \S+ ?|\S+ ? [&|^] \S+ ?|[&|^] \S+ ?")
_ATOM = re.compile(r"(\\\S+ |\w+) ?(?:\[(\d+)(?::(\d+))?\])?")
# The dummy register that triggers always blocks at time 0: their inputs change from x anyway.
_TRIGGER = re.compile(r"\\\$auto\$verilog_backend\S* ")


@dataclass
class _Module:
    name: str
    widths: dict[str, int] = field(default_factory=dict)
    registers: set[str] = field(default_factory=set)
    statements: list[str] = field(default_factory=list)
    """Assignments, instances and always blocks, each with its line ends."""


def tidy(text: str, ports: Sequence[tuple[str, str]]) -> str:
    """One module as written by ``write_verilog -noattr``, made readable. ``ports``: (direction, name), in order."""
    module = _parse(text)
    _inline(module)
    _remove_unread(module, {name for _, name in ports})
    return _write(module, ports)


def _parse(text: str) -> _Module:
    lines = text.splitlines(keepends=True)
    header = re.match(r"module (\S+?)\s*\(", lines[0])
    assert header is not None, lines[0]
    module, statement, depth = _Module(header[1]), "", 0
    for line in lines[1:-1]:
        declaration = _DECLARATION.fullmatch(line.rstrip("\n"))
        if declaration and not statement:
            kind, high, name = declaration.groups()
            if not _TRIGGER.fullmatch(name):
                module.widths[name] = int(high) + 1 if high else 1
                if kind == "reg":
                    module.registers.add(name)
            continue
        if _TRIGGER.search(line) or line.strip().startswith("(* full_case"):
            continue
        statement += line
        depth += len(re.findall(r"\b(?:begin|casez?)\b", line)) - len(re.findall(r"\b(?:end|endcase)\b", line))
        if depth == 0 and (line.rstrip().endswith(";") or line.strip() == "end"):
            module.statements.append(statement)
            statement = ""
    return module


def _width(module: _Module, atom: str) -> int | None:
    """Width of a name, bit or slice; None for anything else."""
    match = _ATOM.fullmatch(atom)
    if not match or match[1] not in module.widths:
        return None
    if match[2] is None:
        return module.widths[match[1]]
    return int(match[2]) - int(match[3]) + 1 if match[3] is not None else 1


def _inline(module: _Module) -> None:
    """Put each helper wire that is read once into its reader, if both are bitwise on one width or it is one bit."""
    uses: dict[str, int] = {}
    for statement in module.statements:
        for name in set(_HELPER.findall(statement)):
            uses[name] = uses.get(name, 0) + statement.count(f"\\{name} ")
    expressions: dict[str, str] = {}
    kept = []
    for statement in _ordered(module.statements):
        match = re.fullmatch(r"  assign (\\\S+ |\S+) ?= (.*);\n", statement)
        if not match:
            kept.append((None, statement))
            continue
        target, value = match.groups()
        helper = _HELPER.fullmatch(target)
        width = _width(module, target)
        bitwise = _BITWISE.fullmatch(value) is not None
        operands = {_width(module, atom) for atom in re.findall(r"\\\S+ (?:\[[\d:]+\])?|\w+(?:\[[\d:]+\])?", value)}
        # Where an expression is put among operands of its own width, or stands alone, its width can't change.
        equal = bitwise and operands == {width}
        reduction = bitwise and value[0] in "&|^"
        condition = re.match(r"(\\\$\d+ ) \?", value)
        for name in set(_HELPER.findall(value)) & expressions.keys():
            alone = value == f"\\{name} "
            if equal or reduction or alone or value.startswith("{") or (condition and condition[1] == f"\\{name} "):
                expression = expressions.pop(name)
                value = expression if alone else value.replace(f"\\{name} ", f"({expression})")
        if helper and (equal or (reduction and width == 1)) and uses[helper[1]] == 2 and len(value) < 90:
            expressions[helper[1]] = value
            kept.append((helper[1], f"  assign {target} = {value};\n"))
        else:
            kept.append((None, f"  assign {target} = {value};\n"))
    module.statements = [text for name, text in kept if name is None or name in expressions]


def _defined(statement: str) -> list[str]:
    """Names that a statement drives."""
    if statement.startswith("  assign"):
        return [n for n in _NAME.findall(statement.split(" = ")[0]) if n != "assign"]
    if statement.lstrip().startswith("always"):
        return list(dict.fromkeys(re.findall(r"(\\\S+ |\w+) ?(?:\[[\d:]+\])? <?= ", statement)))
    return []


def _read(statement: str) -> set[str]:
    if statement.startswith("  assign"):
        return set(_NAME.findall(statement.split(" = ", 1)[1]))
    return set(_NAME.findall(statement))


def _natural(text: str) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def _ordered(statements: list[str]) -> list[str]:
    """Statements in natural order of their text, moved so that helpers and wires come before their readers."""
    drivers: dict[str, list[int]] = {}
    for index, statement in enumerate(statements):
        for name in _defined(statement):
            drivers.setdefault(name, []).append(index)
    result: list[str] = []
    done: set[int] = set()
    for start in sorted(range(len(statements)), key=lambda i: _natural(statements[i])):
        stack = [(start, False)]
        while stack:
            index, expanded = stack.pop()
            if expanded:
                result.append(statements[index])
            elif index not in done:
                done.add(index)
                stack.append((index, True))
                reads = sorted(_read(statements[index]) & drivers.keys(), key=_natural, reverse=True)
                stack += [(i, False) for name in reads for i in reversed(drivers[name]) if i not in done]
    return result


def _remove_unread(module: _Module, ports: set[str]) -> None:
    """Drop aliases that nothing reads (Yosys writes one for each instance port)."""
    while True:
        read = set(ports)
        for statement in module.statements:
            read |= _read(statement)
        kept = [s for s in module.statements
                if not s.startswith("  assign") or any(n.strip() in read or n in read for n in _defined(s))]
        if len(kept) == len(module.statements):
            break
        module.statements = kept
    used = set(_NAME.findall("".join(module.statements)))
    module.widths = {name: width for name, width in module.widths.items() if name in used or name in ports}


def _range(width: int) -> str:
    return f"[{width - 1}:0] " if width > 1 else ""


def _repeat(text: str) -> str:
    """``{ a, a, a }`` as ``{ 3{a} }``."""
    def shorten(match: re.Match) -> str:
        items = match[1].split(", ")
        if len(items) > 1 and len(set(item.strip() for item in items)) == 1:
            return f"{{{len(items)}{{{items[0].strip()}}}}}"
        return match[0]
    return re.sub(r"\{ ([^{}]*) \}", shorten, text)


def _write(module: _Module, ports: Sequence[tuple[str, str]]) -> str:
    header = ",\n".join(
        f"  {direction} {'reg ' if name in module.registers else 'wire '}{_range(module.widths[name])}{name}"
        for direction, name in ports)
    helpers = {name: f"t{number}" for number, name in enumerate(
        sorted((n for n in module.widths if _HELPER.fullmatch(n)), key=_natural))}
    helpers = {name: short for name, short in helpers.items() if short not in module.widths}
    body = "".join(_ordered(module.statements))
    body = re.sub(r"\\\$\d+ ", lambda match: helpers.get(match[0], match[0]), body)
    body = _repeat(body)
    # one line for each entry of a table
    body = re.sub(r"^( +)(\S+|default):\n +(\S+ = [^\n;]+;)\n(?= +(?:\S+:\n|endcase))", r"\1\2: \3\n", body, flags=re.M)
    names = {name: helpers.get(name, name) for name in module.widths}
    port_names = {name for _, name in ports}
    declarations = "".join(
        f"  {'reg' if name in module.registers else 'wire'} {_range(width)}{names[name]};\n"
        for name, width in sorted(module.widths.items(), key=lambda item: _natural(names[item[0]]))
        if name not in port_names)
    return f"module {module.name} (\n{header}\n);\n{declarations}{body}endmodule\n"
