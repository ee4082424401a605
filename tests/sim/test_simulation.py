# SPDX-License-Identifier: Apache-2.0
"""The bench is green with right hardware, and red with a fault in the RTL, in a weight, in the protocol."""

import re
import sys

import numpy as np
import pytest
from support.simulators import FAST, FAST_AND_LONG

from bmhw.errors import RunError
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.neuron import create_neuron
from bmhw.hdl.verilog.convert import to_verilog
from bmhw.sim import simulate, usable_simulators, vectors, verify

FORMATS = {
    "mac": MacFormat(inputs=3, bits=4, signed_inputs=True),
    "relu": BmFormat(inputs=5, bits=4),
    "bipolar": BmFormat(inputs=3, bits=4, layout="bipolar"),
    "signed": BmFormat(inputs=4, bits=4, layout="signed", signed_inputs=True, combine="logarithmic"),
    "one input": BmFormat(inputs=1, bits=2, layout="signed"),
    "groups": BmFormat(inputs=12, bits=4, layout="signed", groups=3, boundary="layer", residual_bits=9, offset=-5),
    "bipolar groups": BmFormat(inputs=6, bits=4, layout="bipolar", groups=2, sums="clamped"),
    "wired groups": BmFormat(inputs=8, bits=4, layout="wired", groups=2, zero="step", boundary="layer"),
    "mac with residual": MacFormat(inputs=4, bits=4, boundary="layer", residual_bits=7),
}
FORMS = ("parallel", "pipelined", "serial")
COUNT = 120

# Icarus builds at once, Verilator in seconds: what doesn't depend on the simulator takes Icarus where it is.

needs_icarus = pytest.mark.skipif(
    "icarus" not in usable_simulators(), reason="needs Icarus Verilog, for unknown bits"
)


def design_of(name, form):
    return Design(format=FORMATS[name], form=form)


@pytest.mark.parametrize("name, form, simulator", [
    pytest.param(name, form, simulator, marks=pytest.mark.long if name == "relu" and simulator != FAST else ())
    for name in ("relu", "signed") for form in FORMS for simulator in usable_simulators()])
class TestGreen:
    def test_every_output_equals_the_integer_model(self, name, form, simulator):
        design = design_of(name, form)
        inputs = vectors(design.format, COUNT, seed=1)
        report = verify(design, inputs, simulator=simulator)
        assert report.passed and report.error is None and report.first_mismatch is None
        np.testing.assert_array_equal(report.outputs, design.format.compute(**inputs))
        assert report.simulator.name == simulator


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["mac", "bipolar", "one input", "groups", "bipolar groups", "wired groups",
                                  "mac with residual"])
def test_other_neurons(name, form):
    design = design_of(name, form)
    inputs = vectors(design.format, COUNT, seed=2)
    np.testing.assert_array_equal(simulate(design, inputs, simulator=FAST), design.format.compute(**inputs))


def test_inputs_broadcast_and_outputs_keep_the_shape():
    design = design_of("relu", "parallel")
    x = np.arange(30).reshape(2, 3, 5) % 16
    weights = {"k1": [15, 3, 0, 7, 9], "k2": [0, 12, 1, 8, 2]}
    outputs = simulate(design, {"x": x, **weights, "bias": 5}, simulator=FAST)
    assert outputs.shape == (2, 3)
    np.testing.assert_array_equal(outputs, design.format.compute(x=x, **weights, bias=5))


def test_serial_figures():
    design = design_of("relu", "serial")
    report = verify(design, vectors(design.format, 40), simulator=FAST)
    assert report.latency == create_neuron(design).latency
    assert report.full_rate_vectors == 20
    # one element a cycle, and the latency of the last vector
    assert 20 * 5 <= report.cycles <= 20 * 5 + report.latency + 1
    without_stalls = verify(design, vectors(design.format, 40), stalls=False, simulator=FAST)
    assert without_stalls.passed and without_stalls.full_rate_vectors == 40


@pytest.mark.parametrize("form", FORMS)
class TestRed:
    def test_one_constant_in_the_rtl(self, form):
        """A bit of one entry of the logarithm's table is wrong: what meets it differs, and nothing else."""
        design = design_of("relu", form)
        inputs = vectors(design.format, COUNT, seed=3)
        verilog = to_verilog(design)
        entry = re.search(r"(4'hb:\s+value = 4'h)([0-9a-f])(;)", verilog)
        assert entry is not None, "the table of the logarithm looks different"
        wrong = f"{entry[1]}{int(entry[2], 16) ^ 4:x}{entry[3]}"
        faulty = verilog[: entry.start()] + wrong + verilog[entry.end() :]
        report = verify(design, inputs, verilog=faulty, simulator=FAST)
        assert not report.passed
        differs = np.flatnonzero(report.outputs != report.expected)
        assert 0 < report.mismatches == len(differs) < COUNT
        assert (inputs["x"][differs] == 11).any(axis=1).all()
        assert verify(design, inputs, verilog=verilog, simulator=FAST).passed

    def test_one_weight(self, form):
        """The neuron gets one weight that is a step off; the expected outputs are those of the right one."""
        design = design_of("signed", form)
        x = vectors(design.format, COUNT, seed=4)["x"]
        weights = {"k": np.array([14, 9, 12, 11]), "sign": np.array([0, 1, 1, 0]), "bias1": 0, "bias2": 3}
        changed = {**weights, "k": np.array([14, 9, 11, 11])}
        expected = design.format.compute(x=x, **weights)
        differs = np.flatnonzero(expected != design.format.compute(x=x, **changed))
        assert len(differs)
        report = verify(design, {"x": x, **changed}, expected, simulator=FAST)
        first = report.first_mismatch
        assert not report.passed and report.mismatches == len(differs)
        assert first.vector == differs[0] and first.expected == expected[differs[0]]
        assert first.got == design.format.compute(x=x[differs[0]], **changed)
        assert first.inputs["k"] == [14, 9, 11, 11] and first.inputs["x"] == x[differs[0]].tolist()
        assert sum(1 << bit for bit in first.wrong_bits) == first.got ^ first.expected
        assert verify(design, {"x": x, **weights}, expected, simulator=FAST).passed


@needs_icarus
def test_an_unknown_bit_is_never_right():
    design = Design(format=MacFormat(inputs=1, bits=2, weight_bits=2, bias_bits=2))
    width = design.format.y.bits
    ports = f"input [1:0] x, w, bias, output [{width - 1}:0] y"
    verilog = f"module {design.name}({ports}); assign y = {width}'b0x; endmodule"
    inputs = {"x": [[0]], "w": [[0]], "bias": [0]}
    report = verify(design, inputs, verilog=verilog, simulator="icarus")
    assert (
        not report.passed and report.first_mismatch.got is None and report.first_mismatch.wrong_bits == (0,)
    )
    with pytest.raises(RunError, match="y of vector 0 is 0b"):
        simulate(design, inputs, verilog=verilog, simulator="icarus")


# A serial multiply-accumulate neuron with a place for each fault.
SERIAL = """
module {name}(
  input clk, input rst, input [3:0] x, input [3:0] w, input [7:0] bias,
  input in_valid, output in_ready, output reg [{high}:0] y, output reg out_valid, input out_ready);
  reg signed [{high}:0] sum;
  reg [1:0] count;
  reg finished, held;
  initial begin count = 0; finished = 0; held = 0; out_valid = 0; end
  wire leave = {leave} & (~out_valid | out_ready);
  assign in_ready = {in_ready};
  wire accept = {accept};
  wire signed [{high}:0] start = {start} ? $signed(bias) : sum;
  always @(posedge clk) begin
    if (accept) begin
      sum <= start + $signed({{1'b0, x}}) * $signed(w);
      count <= count == 2 ? 0 : count + 1;
    end
    if (accept | leave) finished <= accept & (count == 2);
    held <= finished & ~leave;
    if (leave) begin y <= sum; out_valid <= 1; end
    else if ({taken}) out_valid <= 0;
    {extra}
    if (rst) begin {reset} finished <= 0; out_valid <= 0; end
  end
endmodule
"""
RIGHT = {
    "leave": "finished",
    "in_ready": "~finished | leave",
    "accept": "in_valid & in_ready",
    "start": "(count == 0)",
    "taken": "out_ready",
    "extra": "",
    "reset": "count <= 0;",
}
FAULTS = {
    "output withdrawn": ({"taken": "1"}, "fell before out_ready"),
    "output changed": ({"extra": "if (out_valid & ~out_ready) y <= y + 1;"}, "changed from"),
    "accepts without valid": ({"accept": "in_ready"}, ""),
    "overwritten while it waits": ({"in_ready": "1"}, ""),
    "bias of the last element": ({"start": "(count == 2)"}, "outputs differ"),
    "no reset of the count": ({"reset": ""}, ""),
    "a cycle late": ({"leave": "finished & held"}, "latency of vector 0 is 3 cycles, not 2"),
    "never ready": ({"in_ready": "0"}, "no transfer"),
    "output twice": ({"taken": "out_ready & sum[0]"}, "out_valid"),
}


class TestProtocol:
    """The bench of the serial form catches what an output's value alone doesn't show."""

    design = Design(format=MacFormat(inputs=3, bits=4), form="serial")

    def report(self, changes):
        verilog = SERIAL.format(
            name=self.design.name, high=self.design.format.y.bits - 1, **(RIGHT | changes)
        )
        return verify(self.design, vectors(self.design.format, 60, seed=5), verilog=verilog, simulator=FAST)

    def test_right(self):
        assert self.report({}).passed

    @pytest.mark.parametrize("fault", FAULTS)
    def test_fault(self, fault):
        changes, message = FAULTS[fault]
        report = self.report(changes)
        assert not report.passed
        assert message in report.error


class TestBuild:
    def test_error_in_the_verilog_is_one_line(self):
        design = design_of("relu", "parallel")
        with pytest.raises(RunError, match="cannot build bm_relu") as error:
            verify(
                design, vectors(design.format, 1), verilog=f"module {design.name}(; endmodule", simulator=FAST
            )
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("simulator", usable_simulators())
    def test_what_was_built_is_built_once(self, simulator, monkeypatch):
        from cocotb_tools.runner import Runner

        builds, build = [], Runner.build
        monkeypatch.setattr(
            Runner, "build", lambda self, **options: builds.append(1) or build(self, **options)
        )
        design = design_of("one input", "parallel")
        inputs, verilog = vectors(design.format, 10), to_verilog(design)
        for comment, expected_builds in (("first", 1), ("first", 1), ("second", 2), ("first", 2)):
            text = f"{verilog}// {comment}\n"
            assert verify(design, inputs, simulator=simulator, verilog=text).passed
            assert len(builds) == expected_builds

    def test_without_cocotb_it_says_how_to_get_it(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "cocotb", None)
        design = design_of("relu", "parallel")
        with pytest.raises(RunError, match=r"cocotb is not installed; .*pip install"):
            verify(design, vectors(design.format, 1), simulator=FAST)

    def test_without_the_cache_everything_is_built(self, monkeypatch, tmp_path):
        monkeypatch.setenv("BMHW_CACHE_DIR", str(tmp_path / "cache"))
        design = design_of("one input", "parallel")
        verify(design, vectors(design.format, 10), build_dir=tmp_path / "here", cache=False, simulator=FAST)
        assert (tmp_path / "here" / f"{design.name}.v").is_file()
        assert (tmp_path / "here" / "build.log").is_file() and (
            tmp_path / "here" / "simulation.log"
        ).is_file()
        assert not (tmp_path / "cache").exists()

    @pytest.mark.parametrize("simulator", FAST_AND_LONG)
    def test_waveform(self, simulator, tmp_path):
        design = design_of("one input", "pipelined")
        path = tmp_path / "waveform"
        assert verify(design, vectors(design.format, 10), simulator=simulator, waveform=path).waveform == path
        content = path.read_bytes()
        assert b"$enddefinitions" in content if simulator == "verilator" else len(content) > 100

    def test_environment_stays_as_it_was(self, monkeypatch):
        import os

        monkeypatch.setenv("WAVES", "1")
        before = dict(os.environ)
        design = design_of("one input", "parallel")
        assert verify(design, vectors(design.format, 10), simulator=FAST).passed
        assert dict(os.environ) == before
