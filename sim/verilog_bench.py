# SPDX-License-Identifier: Apache-2.0
"""A self-checking bench in plain Verilog-2005, with its vectors in it: runs wherever Verilog runs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from bmhw.hdl.formats.choices import SCALARS

from .ports import ports_of
from .vectors import broadcast_inputs, pack, port_values

if TYPE_CHECKING:
    from bmhw.hdl.neurons.design import Design

__all__ = ["verilog_bench"]


def verilog_bench(
    design: "Design",
    name: str,
    inputs: Mapping[str, ArrayLike],
    expected: ArrayLike,
    *,
    latency: int,
    comment: str = "",
) -> str:
    """Module ``NAME_tb``: drives module ``name`` with the vectors and compares every output bit.

    Prints ``PASS`` or ``FAIL`` in its last line; a failure ends with a status that is not 0 where the
    simulator allows it. ``inputs`` and ``expected`` as for :func:`bmhw.sim.verify`; ``comment``: lines for
    the head.
    """
    return _Bench(design, name, inputs, expected, latency).text(comment)


class _Bench:
    def __init__(self, design: "Design", name: str, inputs, expected, latency: int):
        self.pins = ports_of(design)
        self.name, self.form, self.latency, self.fan_in = name, design.form, latency, design.format.inputs
        arrays, shape = broadcast_inputs(design.format, inputs)
        self.output, code = design.format.output
        self.output_bits, self.signed = code.bits, code.signed
        expected = code.check(f"Expected {self.output}", expected)
        if expected.shape != shape or not expected.size:
            raise ValueError(f"Expected {self.output} must have shape {shape}, not {expected.shape}")
        self.count = expected.size
        # each port: bits of an element, elements in a vector
        self.ports = {
            port: (port_code.bits, elements)
            for port, (port_code, elements) in design.format.inputs_of.items()
        }
        self.values = {
            port: port_values(pack(values, self.ports[port][0])) for port, values in arrays.items()
        }
        self.expected = port_values(pack(expected.reshape(-1, 1), code.bits))

    def text(self, comment: str) -> str:
        head = "".join(f"// {line}".rstrip() + "\n" for line in comment.splitlines())
        return (
            head
            + f"`default_nettype none\n\nmodule {self.name}_tb;\n"
            + self._declarations()
            + self._checks()
            + _LOOPS[self.form](self)
            + self._vectors()
            + "endmodule\n\n`default_nettype wire\n"
        )

    def _vector_bits(self, port: str) -> int:
        bits, elements = self.ports[port]
        return bits * elements

    def _declarations(self) -> str:
        lines = [
            f"  localparam VECTORS = {self.count};",
            "  localparam TENTH = (VECTORS + 9) / 10;  // vectors between two lines of progress",
        ]
        if self.form != "parallel":
            lines.append(f"  localparam LATENCY = {self.latency};  // cycles")
        if self.form == "serial":
            lines.append(f"  localparam FAN_IN = {self.fan_in};  // elements, one a cycle")
            lines.append("  localparam PATIENCE = 200 + LATENCY;  // cycles without a transfer that end the bench")
            lines.append("  localparam FULL_RATE = (VECTORS + 1) / 2;  // vectors before stalls begin")
        lines += [
            f"  {'reg' if port.direction == 'input' else 'wire'} {_range(port.bits)}{port.name};"
            for port in self.pins
        ]
        connections = ",\n".join(f"    .{port.name}({port.name})" for port in self.pins)
        lines += [
            "",
            f"  {self.name} dut (\n{connections}\n  );",
            "",
            "  // One vector a place: inputs with element 0 in the lowest bits, and the expected output.",
        ]
        lines += [f"  reg {_range(self._vector_bits(port))}{port}_of [0:VECTORS-1];" for port in self.ports]
        lines += [
            f"  reg {_range(self.output_bits)}expected [0:VECTORS-1];",
            "",
            "  integer vector, errors, checked;",
        ]
        return "\n".join(lines) + "\n"

    def _checks(self) -> str:
        show = "$signed({})" if self.signed else "{}"
        return f"""
  // Compares every bit; an unknown one differs.
  task check(input integer of_vector);
    begin
      checked = checked + 1;
      if ({self.output} !== expected[of_vector]) begin
        errors = errors + 1;
        if (errors <= 10)
          $display("vector %0d: {self.output} = %0d (%b), expected %0d (%b)", of_vector,
                   {show.format(self.output)}, {self.output}, \
{show.format("expected[of_vector]")}, expected[of_vector]);
      end
      if (checked % TENTH == 0 && checked < VECTORS) begin
        $display("%0d of %0d vectors, %0d errors", checked, VECTORS, errors);
        $fflush;
      end
    end
  endtask

  task finish;
    begin
      if (errors == 0 && checked == VECTORS) begin
        $display("PASS: {self.name}, %0d vectors", checked);
        $finish;
      end else begin
        $display("FAIL: {self.name}, %0d errors in %0d vectors", errors, checked);
`ifdef __ICARUS__
        $finish_and_return(1);
`else
        $fatal(1);
`endif
      end
    end
  endtask
"""

    def _drive(self, indent: str) -> str:
        return "".join(f"{indent}{port} = {port}_of[vector];\n" for port in self.ports)

    def _parallel(self) -> str:
        return f"""
  initial begin
    load_vectors;
    errors = 0;
    checked = 0;
    for (vector = 0; vector < VECTORS; vector = vector + 1) begin
{self._drive("      ")}      #5;
      check(vector);
    end
    finish;
  end
"""

    def _reset(self) -> str:
        return """
  task rising_edge;
    begin
      clk = 1;
      #5;
      clk = 0;
    end
  endtask

  task reset;
    begin
      rst = 1;
      #5;
      rising_edge;
      rst = 0;
    end
  endtask
"""

    def _pipelined(self) -> str:
        return (
            self._reset()
            + f"""
  // A new vector every cycle; its output is checked LATENCY cycles later.
  integer cycle;
  initial begin
    load_vectors;
    errors = 0;
    checked = 0;
    clk = 0;
    reset;
    for (cycle = 0; cycle < VECTORS + LATENCY; cycle = cycle + 1) begin
      vector = cycle % VECTORS;
{self._drive("      ")}      #5;
      if (cycle >= LATENCY)
        check(cycle - LATENCY);
      rising_edge;
    end
    finish;
  end
"""
        )

    def _serial(self) -> str:
        drive = "\n".join(
            f"        {port} = element == 0 ? {port}_of[vector] : ~{port}_of[vector];"
            if port in SCALARS
            else f"        {port} = {port}_of[vector] >> {'element' if bits == 1 else f'({bits} * element)'};"
            for port, (bits, _) in self.ports.items()
        )
        hide = "\n".join(f"        {port} = ~{port};" for port in self.ports)
        return (
            self._reset()
            + f"""
  // One element a cycle: FULL_RATE vectors without a stall, the others with in_valid and out_ready withheld
  // at random. Data that the neuron must not look at is inverted: all of it while in_valid is 0, and the
  // biases behind a vector's first element.
  integer cycle, accepted, element, idle, seed;
  integer completed [0:VECTORS-1];  // cycle in which the vector's last element was accepted
  reg transfer;                     // an element is taken
  reg waiting;                      // an output is valid, but was not taken
  reg {_range(self.output_bits)}waiting_output;

  task broken(input integer of_vector);
    begin
      errors = errors + 1;
      $display("vector %0d: protocol broken in cycle %0d", of_vector, cycle);
    end
  endtask

  initial begin
    load_vectors;
    errors = 0;
    checked = 0;
    clk = 0;
    in_valid = 0;
    out_ready = 0;
    waiting = 0;
    accepted = 0;
    idle = 0;
    seed = 1;
    reset;
    for (cycle = 0; checked < VECTORS && idle <= PATIENCE; cycle = cycle + 1) begin
      vector = accepted / FAN_IN;
      element = accepted % FAN_IN;
      if (vector >= VECTORS)
        in_valid = 0;
      else if (!in_valid)
        in_valid = vector < FULL_RATE || ($random(seed) & 1);
      if (in_valid) begin
{drive}
      end else begin
{hide}
      end
      out_ready = checked < FULL_RATE || ($random(seed) & 1);
      #5;
      idle = idle + 1;
      if (waiting && (out_valid !== 1 || {self.output} !== waiting_output))
        broken(checked);  // withdrawn or changed before it was taken
      if (out_valid !== 0) begin
        if (checked >= vector)
          broken(checked);  // before the vector's last element
        else if (!waiting && checked < FULL_RATE && cycle - completed[checked] != LATENCY)
          broken(checked);  // early or late
        waiting = !out_ready;
        waiting_output = {self.output};
        if (out_ready) begin
          check(checked);
          idle = 0;
        end
      end
      transfer = in_valid && in_ready === 1;
      if (transfer) begin
        if (element == FAN_IN - 1)
          completed[vector] = cycle;
        accepted = accepted + 1;
        idle = 0;
      end
      rising_edge;
      if (transfer)
        in_valid = 0;  // the next element comes with the next cycle
    end
    if (checked < VECTORS)
      $display("no transfer in %0d cycles after %0d elements and %0d outputs", idle, accepted, checked);
    finish;
  end
"""
        )

    def _vectors(self) -> str:
        lines = []
        for index in range(self.count):
            inputs = " ".join(
                f"{port}_of[{index}] = {_literal(self._vector_bits(port), values[index])};"
                for port, values in self.values.items()
            )
            lines.append(
                f"      {inputs} expected[{index}] = {_literal(self.output_bits, self.expected[index])};\n"
            )
        return "\n  task load_vectors;\n    begin\n" + "".join(lines) + "    end\n  endtask\n"


_LOOPS = {"parallel": _Bench._parallel, "pipelined": _Bench._pipelined, "serial": _Bench._serial}


def _range(bits: int) -> str:
    return f"[{bits - 1}:0] " if bits > 1 else ""


def _literal(bits: int, value: int) -> str:
    return f"{bits}'h{value:0{-(-bits // 4)}x}"
