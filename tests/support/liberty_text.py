# SPDX-License-Identifier: Apache-2.0
"""A small cell library as Liberty text, made here, so that tests need no file from outside."""

__all__ = ["GATE_EQUIVALENT", "cell_text", "flip_flop_text", "liberty_text", "library_text"]

# Area of the smallest two-input NAND, which bears a name that says nothing.
GATE_EQUIVALENT = 2.5

# name -> (area, function, intrinsic delay in ns)
_CELLS = {
    "inverter": (1.25, "!A", 0.1),
    "buffer": (2.0, "A", 0.2),
    "q7": (GATE_EQUIVALENT, "(A' + B')", 0.15),
    "bigger_nand": (5.0, "!(A & B)", 0.15),
    "nor_two": (2.5, "!(A | B)", 0.25),
    "and_small": (1.0, "(A & B)", 0.25),  # smaller than any NAND
    "nand_with_enable": (0.5, "!(A & B & C)", 0.25),  # the smallest NAND, but of three inputs
}
_ODD = ("and_small", "nand_with_enable")

_ARITHMETIC = {
    "exclusive_or": (5.0, "(A ^ B)", 0.3),
    "exclusive_nor": (5.0, "!(A ^ B)", 0.3),
    "or_two": (3.75, "(A | B)", 0.3),
    "and_two": (3.75, "(A & B)", 0.25),
    "and_or_invert": (3.75, "!((A & B) | C)", 0.25),
    "or_and_invert": (3.75, "!((A | B) & C)", 0.25),
}


def liberty_text(without: tuple[str, ...] = (), complete: bool = False) -> str:
    """The library's text, less some cells; ``complete`` as real libraries are: with cells for what arithmetic is made
    of, no odd ones, and each in several strengths (larger, a greater load to others, less slowed down by its own)."""
    chosen = {name: values for name, values in (_CELLS | _ARITHMETIC if complete else _CELLS).items()
              if name not in (*without, *(_ODD if complete else ()))}
    cells = "".join(_cell(name, *values, strength) for name, values in chosen.items()
                    for strength in ((1, 2, 4, 8) if complete else (1,)))
    return f"""library (small) {{
  delay_model : table_lookup;
  time_unit : "1ns";
  voltage_unit : "1V";
  current_unit : "1mA";
  capacitive_load_unit (1, pf);
  lu_table_template (grid) {{
    variable_1 : input_net_transition;
    variable_2 : total_output_net_capacitance;
    index_1 ("0.01, 0.1, 1.0");
    index_2 ("0.001, 0.01, 0.1");
  }}
{cells}
  cell (keeper) {{
    area : 6.0;
    ff (IQ, IQN) {{ clocked_on : "CK"; next_state : "D"; }}
    pin (CK) {{ direction : input; capacitance : 0.002; clock : true; }}
    pin (D) {{ direction : input; capacitance : 0.002; }}
    pin (Q) {{ direction : output; function : "IQ"; }}
  }}
}}
"""


def _cell(name: str, area: float, function: str, delay: float, strength: int) -> str:
    inputs = [pin for pin in "ABC" if pin in function]
    positive = name in ("buffer", "and_small", "and_two", "or_two")
    sense = "non_unate" if "^" in function else "positive_unate" if positive else "negative_unate"
    pins = "".join(f"    pin ({pin}) {{ direction : input; capacitance : {0.002 * strength}; }}\n"
                   for pin in inputs)
    arcs = "".join(f"""      timing () {{
        related_pin : "{pin}";
        timing_sense : {sense};
{_tables(delay, strength)}      }}
""" for pin in inputs)
    output = f"    pin (Y) {{\n      direction : output;\n      function : \"{function}\";\n{arcs}    }}\n"
    name += f"_x{strength}" if strength > 1 else ""
    return f"  cell ({name}) {{\n    area : {area * (1 + strength) / 2};\n{pins}{output}  }}\n"


def _tables(delay: float, strength: int) -> str:
    # abc wants three points at least on each axis
    rows = ((delay + 0.1 * slope + 3 * load / strength for load in (0.001, 0.01, 0.1)) for slope in (0.01, 0.1, 1.0))
    values = "values (" + ", ".join('"' + ", ".join(f"{v:.4f}" for v in row) + '"' for row in rows) + ");"
    return "".join(f"        {table} (grid) {{ {values} }}\n"
                   for table in ("cell_rise", "cell_fall", "rise_transition", "fall_transition"))


def cell_text(name: str, inputs: str, function: str, area: float = 2.0, *, tables: str = "", extra: str = "",
              related: str | None = None) -> str:
    """A cell with one output ``Y`` and inputs of one letter each, that takes 0.1 ns whatever drives and loads it.

    ``tables``: other ones; ``extra``: what else the cell says; ``related``: inputs that have an arc (default: all).
    """
    tables = tables or "".join(f'{kind} (scalar) {{ values ("0.1"); }} '
                               for kind in ("cell_rise", "cell_fall", "rise_transition", "fall_transition"))
    pins = "".join(f"  pin ({pin}) {{ direction : input; capacitance : 0.002; }}\n" for pin in inputs)
    arcs = "".join(f'    timing () {{ related_pin : "{pin}"; {tables}}}\n'
                   for pin in (inputs if related is None else related))
    return (f'cell ({name}) {{\n  area : {area};\n  {extra}\n{pins}'
            f'  pin (Y) {{\n    direction : output;\n    function : "{function}";\n{arcs}  }}\n}}\n')


def flip_flop_text(name: str = "DFF", *, clock: str = "CK", output: str = "IQ", extra: str = "") -> str:
    """A D flip-flop with the pins D, CK and Q; ``extra`` in its ``ff`` group."""
    pins = "".join(f"  pin ({pin}) {{ direction : input; capacitance : 0.002; }}\n" for pin in ("CK", "D"))
    return (f'cell ({name}) {{\n  area : 6;\n  ff (IQ, IQN) {{ clocked_on : "{clock}"; next_state : "D"; {extra} }}\n'
            f'{pins}  pin (Q) {{ direction : output; function : "{output}"; }}\n}}\n')


def library_text(*cells: str, head: str = "") -> str:
    return f"library (parts) {{\n{head}\n{''.join(cells)}}}\n"
