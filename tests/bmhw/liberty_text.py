# SPDX-License-Identifier: Apache-2.0
"""A small cell library as Liberty text, made here, so that tests need no file from outside."""

__all__ = ["GATE_EQUIVALENT", "liberty_text"]

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
