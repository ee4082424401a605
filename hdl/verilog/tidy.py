# SPDX-License-Identifier: Apache-2.0
"""Rewrite the Verilog that Yosys writes so that a person can read it, without changing what it means.

Ports go into the header, in order; helper wires used once go into the expression that uses them (bitwise
operators on equal widths only, where Verilog's width rules can't change a result); wires that nothing reads go;
assignments come before their readers. A wire that is driven slice by slice becomes a wire for each slice and one
concatenation (Icarus resolves slices in the cube of their number); a register and its next value become one clocked
block.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["tidy"]

_NAME = re.compile(r"\\\S+ |[A-Za-z_][\w$]*")
# Yosys's own wires without a name, and the slices that get a wire of their own here.
_HELPER = re.compile(r"\\(\$\w+) ")
_SLICE_PREFIX = "\\$slice_"
_DECLARATION = re.compile(r"  (wire|reg|input|output) (?:\[(\d+):0\] )?(\\\S+ |\w+)(?: = .*)?;")
_MEMORY = re.compile(r"  reg (?:\[\d+:0\] )?\w+ \[\d+:0\];")
_ENTRY = re.compile(r"    \w+\[\d+\] = (?:\d+'h0+|\d+'h(?P<value>[0-9a-f]+));\n")
_BITWISE = re.compile(r"~ \S+ ?|\S+ ? [&|^] \S+ ?|[&|^] \S+ ?")
_LINE = 110
_ATOM = re.compile(r"(\\\S+ |\w+) ?(?:\[(\d+)(?::(\d+))?\])?")
# The dummy register that triggers always blocks at time 0: their inputs change from x anyway.
_TRIGGER = re.compile(r"\\\$auto\$verilog_backend\S* ")


@dataclass
class _Module:
    name: str
    widths: dict[str, int] = field(default_factory=dict)
    registers: set[str] = field(default_factory=set)
    memories: list[str] = field(default_factory=list)
    """Their declarations, each with its line end."""
    statements: list[str] = field(default_factory=list)
    """Assignments, instances and always blocks, each with its line ends."""


def tidy(text: str, ports: Sequence[tuple[str, str]], *, sliced: bool = False,
         memory_attributes: Sequence[str] = (), memory_begins: bool = False) -> str:
    """One module as written by ``write_verilog -noattr``, made readable. ``ports``: (direction, name), in order.

    ``sliced``: leave wires in slices and next values in blocks of their own, as Yosys writes them.
    ``memory_attributes``: put before each memory. ``memory_begins``: zeros that it begins with stay.
    """
    module = _parse(text, memory_begins)
    if not sliced:
        _merge_next_values(module)
        _resolve_aliases(module)
        _unite_slices(module)
    _inline(module)
    _remove_unread(module, {name for _, name in ports})
    if memory_attributes:
        module.memories = [f"  (* {', '.join(memory_attributes)} *)\n{memory}" for memory in module.memories]
    return _write(module, ports)


def _parse(text: str, memory_begins: bool) -> _Module:
    header = re.match(r"module (\S+?)\s*\([^;]*;\n", text)  # the ports of many take several lines
    assert header is not None, text.splitlines()[0]
    module, statement, depth = _Module(header[1]), "", 0
    for line in text[header.end():].splitlines(keepends=True)[:-1]:
        declaration = _DECLARATION.fullmatch(line.rstrip("\n"))
        if declaration and not statement:
            kind, high, name = declaration.groups()
            if not _TRIGGER.fullmatch(name):
                module.widths[name] = int(high) + 1 if high else 1
                if kind == "reg":
                    module.registers.add(name)
            continue
        if _MEMORY.fullmatch(line.rstrip("\n")):
            module.memories.append(line)
            continue
        if _TRIGGER.search(line) or line.strip().startswith("(* full_case"):
            continue
        statement += line
        words = re.sub(r"\\\S+ ", "", line)  # a name may be a keyword behind a backslash
        depth += len(re.findall(r"\b(?:begin|casez?)\b", words)) - len(re.findall(r"\b(?:end|endcase)\b", words))
        if depth == 0 and (line.rstrip().endswith(";") or line.strip() == "end"):
            if memory_begins or not _is_empty_memory(statement):
                module.statements.append(statement)
            statement = ""
    return module


def _is_empty_memory(statement: str) -> bool:
    """Whether a statement fills a memory with zeros: nothing that is read is in it before it is written."""
    lines = statement.splitlines(keepends=True)
    if lines[0] != "  initial begin\n":
        return False
    entries = [_ENTRY.fullmatch(line) for line in lines[1:-1]]
    return all(entry is not None and entry["value"] is None for entry in entries)


def _width(module: _Module, atom: str) -> int | None:
    """Width of a name, bit or slice; None for anything else."""
    match = _ATOM.fullmatch(atom)
    if not match or match[1] not in module.widths:
        return None
    if match[2] is None:
        return module.widths[match[1]]
    return int(match[2]) - int(match[3]) + 1 if match[3] is not None else 1


def _merge_next_values(module: _Module) -> None:
    """Write a register's next value where the clock is: one block for a register.

    That is shorter, and a reset that is 1 from the start takes effect without an event that wakes a second block.
    """
    text = "".join(module.statements)
    next_values: dict[str, str] = {}
    for statement in module.statements:
        match = re.match(r"  always @\* begin\n    (\\\S+ ) = (\\\S+ |\w+);\n", statement)
        if match and set(_defined(statement)) == {match[1]}:
            clocked = f"  always @(posedge clk)\n    {match[2]} <= {match[1]};\n"
            assignments = len(re.findall(rf"^ *{re.escape(match[1])} = ", statement, re.M))
            if clocked in module.statements and text.count(match[1]) == assignments + 1:
                body = statement[match.end():].replace(f"{match[1]} = ", f"{match[2]} <= ")
                next_values[clocked] = "  always @(posedge clk) begin\n" + body
                next_values[statement] = ""
                del module.widths[match[1]]
    module.statements = [s for s in (next_values.get(s, s) for s in module.statements) if s]


def _rename(module: _Module, names: dict[str, str]) -> None:
    """Put other names in the place of helpers', which are not declared any more."""
    module.statements = [_HELPER.sub(lambda match: names.get(match[0], match[0]), s) for s in module.statements]
    module.widths = {name: width for name, width in module.widths.items() if name not in names}


def _resolve_aliases(module: _Module) -> None:
    """Let the readers of a helper that is only another name read what it names."""
    aliases: dict[str, str] = {}
    kept = []
    for statement in module.statements:
        match = re.fullmatch(r"  assign (\\\S+ ) = (\\\S+ |\w+);\n", statement)
        if match and _HELPER.fullmatch(match[1]) and module.widths.get(match[2]) == module.widths[match[1]]:
            aliases[match[1]] = match[2]
        else:
            kept.append(statement)
    for name in aliases:
        while aliases[name] in aliases:
            aliases[name] = aliases[aliases[name]]
    module.statements = kept
    _rename(module, aliases)


@dataclass(frozen=True)
class _Slice:
    """Bits ``low`` to ``high`` of a wire that is driven in slices, and what carries their value."""

    high: int
    low: int
    atom: str
    """A name, a slice of one or a constant."""

    def part(self, high: int, low: int) -> str | None:
        """Bits of the wire, by the wire's own numbers, as bits of the atom; None if they can't be named so."""
        if (high, low) == (self.high, self.low):
            return self.atom
        match = _ATOM.fullmatch(self.atom)
        if not self.low <= low <= high <= self.high or match is None or match[1].isdigit():
            return None
        start = int(match[3] or match[2] or 0) - self.low
        bits = f"{start + high}:{start + low}" if high > low else f"{start + low}"
        return f"{match[1]}[{bits}]" if match[1].startswith("\\") else f"{match[1].strip()}[{bits}]"


def _unite_slices(module: _Module) -> None:
    """Replace ``assign s[1:0] = a; assign s[2] = b | c;`` by ``assign s = { s_2, a };`` and ``assign s_2 = b | c;``.

    Readers of one slice read its own wire, so that no wire depends on other bits of itself.
    """
    driven: dict[str, list[tuple[int, int, str]]] = {}
    kept = []
    for statement in module.statements:
        match = re.fullmatch(r"  assign (\\\S+ |\w+) ?\[(\d+)(?::(\d+))?\] = (.*);\n", statement)
        if match:
            name, high, low, value = match.groups()
            driven.setdefault(name, []).append((int(high), int(low or high), value))
        else:
            kept.append(statement)
    united: dict[str, list[_Slice]] = {}
    renamed: dict[str, str] = {}
    statements = []
    for name, slices in driven.items():
        united[name] = []
        for high, low, value in sorted(slices, reverse=True):
            atom = renamed.get(value, value)
            width = high - low + 1
            if _width(module, atom) != width and not re.fullmatch(rf"{width}'h[0-9a-f]+", atom):
                atom = _slice_wire(module, name, high, low)
                statements.append(f"  assign {atom} = {value};\n")
            elif value == atom and _HELPER.fullmatch(value):  # a helper is better called by what it carries
                atom = renamed[value] = _slice_wire(module, name, high, low)
            united[name].append(_Slice(high, low, atom))
        borders = [module.widths[name], *(s.low for s in united[name])]
        if borders[-1] != 0 or borders[:-1] != [s.high + 1 for s in united[name]]:
            raise RuntimeError(f"{module.name}: the slices that drive {name} leave bits out or overlap")
        statements.append(f"  assign {name} = {{ {', '.join(s.atom for s in united[name])} }};\n")
    module.statements = [_read_slices(statement, united) for statement in kept + statements]
    _rename(module, renamed)


def _slice_wire(module: _Module, name: str, high: int, low: int) -> str:
    """Declare a wire of its own for a slice."""
    word = "_".join(re.findall(r"\w+", name) + ([str(high)] if high > low else []) + [str(low)])
    while word in module.widths or f"{_SLICE_PREFIX}{word} " in module.widths:
        word += "_"
    wire = f"{_SLICE_PREFIX}{word} "
    module.widths[wire] = high - low + 1
    return wire


def _read_slices(statement: str, united: dict[str, list[_Slice]]) -> str:
    """Let a statement read the wires of the slices."""
    def atom(match: re.Match) -> str:
        if match[1] not in united or match[2] is None:
            return match[0]
        high, low = int(match[2]), int(match[3] or match[2])
        parts = (part for s in united[match[1]] if (part := s.part(high, low)) is not None)
        return next(parts, match[0])

    head, equals, value = statement.partition(" = ") if statement.startswith("  assign") else ("", "", statement)
    return head + equals + re.sub(r"(?<![.\w$'\\])(\\\S+ |[A-Za-z_]\w*) ?(?:\[(\d+)(?::(\d+))?\])", atom, value)


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
                listed = alone or re.fullmatch(r"\{[^{}]*\}", value)
                value = value.replace(f"\\{name} ", expression if listed else f"({expression})")
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


def _fold(line: str) -> str:
    """A line with a concatenation that is too long for one: as many parts a line as fit, expressions one a line."""
    start, end = line.find("{ "), line.rfind(" }")
    if len(line) <= _LINE or start < 0 or end < start:
        return line
    parts, depth = [""], 0
    for word in line[start + 2:end].split(", "):
        parts[-1] += (", " if depth else "") + word
        depth += word.count("{") - word.count("}")
        if depth == 0:
            parts.append("")
    parts.pop()
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    lines = [indent + parts[0]]
    for part in parts[1:]:
        if any(" " in p for p in parts) or len(lines[-1]) + len(part) + 3 > _LINE:
            lines[-1] += ","
            lines.append(indent + part)
        else:
            lines[-1] += f", {part}"
    return f"{line[:start]}{{\n" + "\n".join(lines) + f"\n{indent[2:]}}}{line[end + 2:]}"


def _write(module: _Module, ports: Sequence[tuple[str, str]]) -> str:
    header = ",\n".join(
        f"  {direction} {'reg ' if name in module.registers else 'wire '}{_range(module.widths[name])}{name}"
        for direction, name in ports)
    slices = {name: name.removeprefix(_SLICE_PREFIX).strip() for name in module.widths
              if name.startswith(_SLICE_PREFIX)}
    helpers = {name: f"t{number}" for number, name in enumerate(
        sorted((n for n in module.widths if _HELPER.fullmatch(n) and n not in slices), key=_natural))}
    numbered = {name: re.sub(r"\W+", "_", name[1:-1]) for name in module.widths if re.fullmatch(r"\\\w+\$\d+ ", name)}
    helpers = {name: short for name, short in (helpers | numbered).items() if short not in module.widths} | slices
    body = "".join(_ordered(module.statements))
    body = re.sub(r"\\\S+ ", lambda match: helpers.get(match[0], match[0]), body)
    body = "".join(map(_fold, _repeat(body).splitlines(keepends=True)))
    # one line for each entry of a table
    body = re.sub(r"^( +)(\S+|default):\n +(\S+ = [^\n;]+;)\n(?= +(?:\S+:\n|endcase))", r"\1\2: \3\n", body, flags=re.M)
    names = {name: helpers.get(name, name) for name in module.widths}
    port_names = {name for _, name in ports}
    declarations = "".join(
        f"  {'reg' if name in module.registers else 'wire'} {_range(width)}{names[name]};\n"
        for name, width in sorted(module.widths.items(), key=lambda item: _natural(names[item[0]]))
        if name not in port_names)
    memories = "".join(module.memories)
    return f"module {module.name} (\n{header}\n);\n{declarations}{memories}{body}endmodule\n"
