# SPDX-License-Identifier: Apache-2.0
"""Mutants of exported Verilog: one token changed, many of them in one text that a port chooses from.

:func:`mutate` puts a choice around each changed expression, so that one build of a simulator, or one netlist, holds all
mutants: bit i of the new port ``mutant`` makes mutant i of them, 0 leaves the neuron as it was. :class:`Netlist` is
that text as Yosys reads it, evaluated on many vectors at once: each bit of the design is one long Python integer with a
place for each vector. Neither knows the generators: what they know is the text.
"""

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmhw.flow.engine import Engine

_MODULE = re.compile(r"^module (\w+) \((.*?)\n\);\n(.*?)^endmodule\n", re.M | re.S)
_DECLARED = re.compile(r"^ *(?:(input|output) )?(wire|reg|wire signed|reg signed) (?:\[(\d+):0\] )?(\w+)", re.M)
_INSTANCE = re.compile(r"^  (\w+) (\w+) \(\n(.*?)\n  \);\n", re.M | re.S)
_PROCESS = re.compile(r"^  always @(\*|\(posedge clk\))(.*?)(?=^  (?:always|assign|\w+ \w+ \()|\Z)", re.M | re.S)
_ASSIGN = re.compile(r"^  assign (\w+)(?:\[(\d+)(?::(\d+))?\])? = (.*?);\n", re.M | re.S)
_SET = re.compile(r"\b(\w+)(?:\[(\d+)(?::(\d+))?\])? <?= ([^;]*);")
_LABEL = re.compile(r"(?<=\n) *(\d+'h[0-9a-f]+):")
_CONDITION = re.compile(r"\b(?:if|casez|case) \(((?:[^()]|\([^()]*\))*)\)")
_CONNECTION = re.compile(r"\.(\w+)\((.*)\),?(?:\n|\Z)")

_NAME = re.compile(r"(?<![\w'$.])[A-Za-z_]\w*")
_TOKEN = re.compile(
    r"(?P<constant>\d+'[hb][0-9a-f]+)|(?P<index>(?<=\[)\d+(?::\d+)?(?=\]))|(?P<name>(?<![\w'$.])[A-Za-z_]\w*)"
    r"|(?P<operator>==|!=|<=|>=|<<<?|>>>?|&&|\|\||[&|^~+\-<>])"
)
_OTHER = {
    "&": "|^", "|": "&^", "^": "&|", "~": " ", "+": "-", "-": "+", ">": ["<", ">="], "<": [">", "<="],
    ">=": [">", "<"], "<=": ["<", ">"], "==": ["!="], "!=": ["=="], "&&": ["||"], "||": ["&&"],
}


@dataclass(frozen=True)
class Mutant:
    """One changed token: where it is, and what the expression was and became."""

    module: str
    kind: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.module}: {self.kind}: {_shortened(self.before, self.after)}"


@dataclass(frozen=True)
class _Expression:
    """A place of the text that is read: an expression and what it drives (None: nothing by name)."""

    start: int
    end: int
    drives: tuple[str, ...]
    low: int | None = None
    high: int | None = None


@dataclass
class _Module:
    name: str
    start: int
    widths: dict[str, int]
    expressions: list[_Expression]
    sources: dict[str, set[str]]
    """Each wire's direct sources, registers having none."""

    def __post_init__(self):
        self.readers: dict[str, set[str]] = defaultdict(set)
        for wire, sources in self.sources.items():
            for source in sources:
                self.readers[source].add(wire)

    def behind(self, wires: Iterable[str]) -> set[str]:
        """Everything that depends on the wires, these included."""
        seen, new = set(wires), list(wires)
        while new:
            for reader in self.readers[new.pop()] - seen:
                seen.add(reader)
                new.append(reader)
        return seen


def mutate(verilog: str, count: int, seed: int) -> tuple[str, list[Mutant]]:
    """The text with a port ``mutant`` that chooses one of ``count`` mutants, and these.

    Half of them are drawn evenly from all tokens, half from modules first, so that a large table doesn't hide all the
    rest. No mutant closes a loop.
    """
    generator = random.Random(seed)
    modules = _read(verilog)
    sites = {module.name: found for module in modules if (found := list(_sites(verilog, module)))}
    by_name = {module.name: module for module in modules}
    everywhere = [(name, site) for name, found in sites.items() for site in found]
    chosen: dict[tuple[int, int, str], Mutant] = {}
    changes: dict[_Expression, list[tuple[int, str]]] = defaultdict(list)
    for _ in range(100 * count):
        if len(chosen) == count:
            break
        if len(chosen) % 2:
            name = generator.choice(list(sites))
            expression, token = generator.choice(sites[name])
        else:
            name, (expression, token) = generator.choice(everywhere)
        text = verilog[expression.start : expression.end]
        new = _changed(token, text, expression, by_name[name], generator)
        key = (expression.start, token.start(), new)
        if new is None or key in chosen:
            continue
        changed = text[: token.start()] + new + text[token.end() :]
        changes[expression].append((len(chosen), changed))
        chosen[key] = Mutant(name, token.lastgroup, text, changed)
        if token.lastgroup == "name":  # all mutants are in one text: together they must not close a loop either
            for wire in expression.drives:
                by_name[name].readers[new].add(wire)
    return _with_choices(verilog, changes, len(chosen)), list(chosen.values())


def with_mutants(verilog: str, mutants: Sequence[Mapping[tuple[str, str], str]]) -> str:
    """The text with a port ``mutant`` that chooses one of ``mutants``: each for an instance and a port of it, or a
    module and a wire that it assigns, the expression that takes the place of what it is."""
    changes: dict[_Expression, list[tuple[int, str]]] = defaultdict(list)
    for number, mutant in enumerate(mutants):
        for (place, name), expression in mutant.items():
            changes[_place(verilog, place, name)].append((number, expression))
    return _with_choices(verilog, changes, len(mutants))


def _place(verilog: str, place: str, name: str) -> _Expression:
    """What drives a port of an instance, or a wire of a module."""
    for module in _MODULE.finditer(verilog):
        if module[1] == place:
            found = re.search(rf"^  assign {name} = (.*?);$", module[3], re.M)
            return _Expression(module.start(3) + found.start(1), module.start(3) + found.end(1), ())
        for instance in _INSTANCE.finditer(module[3]):
            for found in _CONNECTION.finditer(instance[3]) if instance[2] == place else ():
                if found[1] == name:
                    start = module.start(3) + instance.start(3)
                    return _Expression(start + found.start(2), start + found.end(2), ())
    raise ValueError(f"Nothing drives {name} of {place}")


def bench_with_mutants(bench: str, name: str, count: int) -> str:
    """The text of an exported bench for what :func:`mutate` gives; ``+mutant=N`` chooses one when it runs."""
    text, instances = re.subn(rf"^  {name} dut \(\n", lambda m: f"{m[0]}    .mutant(mutant),\n", bench, flags=re.M)
    assert instances == 1
    choice = (
        f"  reg [{count - 1}:0] mutant;\n  integer chosen;\n  initial begin\n    mutant = 0;\n"
        '    if ($value$plusargs("mutant=%d", chosen)) mutant[chosen] = 1;\n  end\n'
    )
    return re.sub(rf"^module {name}_tb;\n", lambda m: m[0] + choice, text, flags=re.M)


def _read(verilog: str) -> list[_Module]:
    directions = {
        match[1]: {name: direction for direction, _, _, name in _DECLARED.findall(match[2])}
        for match in _MODULE.finditer(verilog)
    }
    modules = []
    for match in _MODULE.finditer(verilog):
        widths = {name: int(high or 0) + 1 for _, _, high, name in _DECLARED.findall(match[2] + "\n" + match[3])}
        expressions, sources = [], defaultdict(set)

        def reads(text: str, widths=widths) -> set[str]:
            return {name for name in _NAME.findall(text) if name in widths}

        base, body = match.start(3), match[3]
        for found in _ASSIGN.finditer(body):
            expressions.append(_driven(found, base))
            sources[found[1]] |= reads(found[4])
        for process in _PROCESS.finditer(body):
            inside, start = process[2], base + process.start(2)
            sets = list(_SET.finditer(inside))
            expressions += [_driven(found, start) for found in sets]
            names = tuple({found[1] for found in sets})
            for found in (*_LABEL.finditer(inside), *_CONDITION.finditer(inside)):
                expressions.append(_Expression(start + found.start(1), start + found.end(1), names))
            for name in names if process[1] == "*" else ():
                sources[name] |= reads(inside) - set(names)
        for instance in _INSTANCE.finditer(body):
            if instance[1] not in directions:
                continue
            ports, ins = directions[instance[1]], set()
            connections = list(_CONNECTION.finditer(instance[3]))
            outs = tuple(name for c in connections if ports[c[1]] == "output" for name in reads(c[2]))
            for found in connections:
                if ports[found[1]] == "input" and found[1] not in ("clk", "rst"):
                    at = base + instance.start(3)
                    expressions.append(_Expression(at + found.start(2), at + found.end(2), outs))
                    ins |= reads(found[2])
            for name in outs:
                sources[name] |= ins
        modules.append(_Module(match[1], match.start(), widths, expressions, sources))
    return modules


def _driven(found: re.Match, base: int) -> _Expression:
    high = None if found[2] is None else int(found[2])
    low = high if found[3] is None else int(found[3])
    return _Expression(base + found.start(4), base + found.end(4), (found[1],), low, high)


def _sites(verilog: str, module: _Module):
    for expression in module.expressions:
        for token in _TOKEN.finditer(verilog[expression.start : expression.end]):
            if token.lastgroup != "name" or token[0] in module.widths:
                yield expression, token


def _changed(
    token: re.Match, text: str, expression: _Expression, module: _Module, generator: random.Random
) -> str | None:
    """Another token for this one, or None where this draw can't be."""
    kind = token.lastgroup
    if kind == "operator":
        return generator.choice(_OTHER[token[0]]) if token[0] in _OTHER else None
    if kind == "constant":
        width, base, digits = re.fullmatch(r"(\d+)'(.)(.*)", token[0]).groups()
        value = int(digits, 16 if base == "h" else 2) ^ 1 << generator.randrange(int(width))
        return f"{width}'{base}{value:0{len(digits)}{'x' if base == 'h' else 'b'}}"
    loops = module.behind(expression.drives)
    if kind == "name":
        same = [n for n, w in module.widths.items() if w == module.widths[token[0]] and n not in loops]
        same = [n for n in same if n not in ("clk", "rst", token[0])]
        return generator.choice(same) if same else None
    name = re.search(r"(\w+)\[$", text[: token.start()])
    if name is None or name[1] not in module.widths:
        return None
    bounds = [int(bound) for bound in token[0].split(":")]
    which = generator.randrange(len(bounds))
    new = list(bounds)
    new[which] += generator.choice((-1, 1, generator.choice((-10, 10, -2, 2))))
    if not 0 <= new[-1] <= new[0] < module.widths[name[1]]:
        return None
    if name[1] in loops:
        # a wire that depends on what is driven here by other bits: these stay on their side of the driven ones
        if expression.low is None or len(bounds) > 1:
            return None
        if bounds[0] < expression.low and new[0] >= expression.low:
            return None
        if bounds[0] > expression.high and new[0] <= expression.high:
            return None
    return ":".join(map(str, new))


def _with_choices(verilog: str, changes: Mapping[_Expression, Sequence[tuple[int, str]]], count: int) -> str:
    for expression in sorted(changes, key=lambda e: -e.start):
        text = f"({verilog[expression.start : expression.end]})"
        for number, changed in changes[expression]:
            text = f"(mutant[{number}] ? ({changed}) : {text})"
        verilog = verilog[: expression.start] + text + verilog[expression.end :]
    names = set(re.findall(r"^module (\w+) \(", verilog, re.M))
    verilog = re.sub(
        r"^module (\w+) \(\n", rf"module \1 (\n  input wire [{count - 1}:0] mutant,\n", verilog, flags=re.M
    )
    return re.sub(
        r"^  (\w+) (\w+) \(\n",
        lambda m: f"{m[0]}    .mutant(mutant),\n" if m[1] in names and m[1] != "module" else m[0],
        verilog,
        flags=re.M,
    )


def _shortened(before: str, after: str) -> str:
    """Both texts around the place where they differ."""
    start = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), 0)
    low = max(start - 30, 0)
    return f"...{before[low : start + 30]!r} became {after[low : start + 30]!r}"


_GATES = {
    "$_NOT_": "~{A} & ones", "$_AND_": "{A} & {B}", "$_OR_": "{A} | {B}", "$_XOR_": "{A} ^ {B}",
    "$_NAND_": "~({A} & {B}) & ones", "$_NOR_": "~({A} | {B}) & ones", "$_XNOR_": "~({A} ^ {B}) & ones",
    "$_ANDNOT_": "{A} & ~{B}", "$_ORNOT_": "({A} | ~{B}) & ones", "$_MUX_": "{A} ^ (({A} ^ {B}) & {S})",
}


class Netlist:
    """A combinational design, flat and in gates, for many vectors at once.

    Parameters: ``verilog``; ``top``: its module.
    """

    def __init__(self, verilog: str, top: str):
        script = (
            f"read_verilog design\nhierarchy -top {top}\nproc -norom\nflatten -noscopeinfo\nopt -fast\ntechmap\n"
            "opt -fast\nclean\nwrite_json netlist"
        )
        text = Engine().run(script, {"design": verilog}, ("netlist",))["netlist"]
        module = json.loads(text)["modules"][top]
        self.ports = {name: (port["direction"], port["bits"]) for name, port in module["ports"].items()}
        self._evaluate = _compiled(module)

    def outputs(self, inputs: Mapping[str, NDArray[np.int64]], mutant: int | None = None) -> dict[str, list[int]]:
        """Each output's bits, the lowest one first: integers with one bit a vector.

        ``inputs``: (vectors, elements) or (vectors,) for each port; ``mutant``: of the port of that name.
        """
        bits = self.bits(inputs)
        return self.evaluate(bits, len(next(iter(inputs.values()))), mutant)

    def bits(self, inputs: Mapping[str, NDArray[np.int64]]) -> dict[int, int]:
        """What the input ports' nets carry, one bit a vector."""
        nets = {}
        for name, values in inputs.items():
            _, port = self.ports[name]
            values = values.reshape(len(values), -1)
            width = len(port) // values.shape[1]
            for position, net in enumerate(port):
                column = (values[:, position // width] >> position % width & 1).astype(np.uint8)
                nets[net] = int.from_bytes(np.packbits(column, bitorder="little").tobytes(), "little")
        return nets

    def evaluate(self, nets: Mapping[int, int], count: int, mutant: int | None) -> dict[str, list[int]]:
        """As :meth:`outputs`, for what :meth:`bits` gave of ``count`` vectors."""
        ones = (1 << count) - 1
        nets = dict(nets)
        for position, net in enumerate(self.ports.get("mutant", ("", ()))[1]):
            nets[net] = ones if position == mutant else 0
        value = self._evaluate(nets, ones)
        outputs = {name: bits for name, (direction, bits) in self.ports.items() if direction == "output"}
        return {name: [value(net) for net in bits] for name, bits in outputs.items()}


def _compiled(module: Mapping[str, Any]):
    """A function of (net -> value, ones) that gives a function of a net: its value."""
    cells = {}
    for cell in module["cells"].values():
        if cell["type"] not in _GATES:
            raise ValueError(f"Cells must be gates, not {cell['type']}")
        pins = {pin: bits[0] for pin, bits in cell["connections"].items()}
        cells[pins.pop("Y")] = (cell["type"], pins)

    def word(net) -> str:
        return f"n{net}" if isinstance(net, int) else "ones" if net == "1" else "0"

    given = [
        net for port in module["ports"].values() if port["direction"] == "input" for net in port["bits"]
    ]
    lines = ["def evaluate(nets, ones):", *(f" n{net} = nets[{net}]" for net in given)]
    done, open_nets = set(given), set()
    for last in cells:
        stack = [last]
        while stack:
            net = stack[-1]
            missing = [n for n in cells[net][1].values() if isinstance(n, int) and n not in done and n in cells]
            if net in done:
                stack.pop()
            elif missing:
                if net in open_nets:
                    raise ValueError("The netlist has a loop")
                open_nets.add(net)
                stack += missing
            else:
                kind, pins = cells[net]
                undriven = [n for n in pins.values() if isinstance(n, int) and n not in done]
                lines += [f" n{n} = 0" for n in undriven]
                done.update(undriven)
                lines.append(f" n{net} = " + _GATES[kind].format(**{pin: word(n) for pin, n in pins.items()}))
                done.add(net)
                open_nets.discard(net)
                stack.pop()
    outs = {
        net for port in module["ports"].values() if port["direction"] == "output" for net in port["bits"]
    }
    pairs = ", ".join(f"{net!r}: {word(net) if net in done or not isinstance(net, int) else '0'}" for net in outs)
    lines.append(f" return {{{pairs}}}.__getitem__")
    space: dict[str, Any] = {}
    exec("\n".join(lines), space)
    return space["evaluate"]
