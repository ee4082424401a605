# SPDX-License-Identifier: Apache-2.0
"""Groups, an exact zero and a residual on the command lines: what they give, and what they refuse in one line."""

import pytest

from bmhw import export, fpga, synth
from bmhw.command_line import Parser
from bmhw.errors import UsageError
from bmhw.options import comparison_options, design_options, designs_from
from bmhw.show.tables import title

PARSER = Parser()
design_options(PARSER)
comparison_options(PARSER)


def formats(*options):
    return [design.format for design in designs_from(PARSER.parse_args([*map(str, options)]))]


class TestFormats:
    def test_groups_and_zero(self):
        (fmt,) = formats("--inputs", 12, "--groups", 3)
        assert (fmt.groups, fmt.zero) == (3, "exact")
        (fmt,) = formats("--inputs", 12, "--groups", 3, "--zero", "step")
        assert (fmt.groups, fmt.zero) == (3, "step")
        (fmt,) = formats("--inputs", 12, "--out-fraction", 5)
        assert fmt.out_fraction == 5
        (fmt,) = formats("--inputs", 12)
        assert (fmt.groups, fmt.zero, fmt.residual_bits) == (1, "step", 0)

    @pytest.mark.parametrize("neuron", ["mac", "bm"])
    def test_residual_is_as_wide_as_the_bias_unless_it_is_given(self, neuron):
        (fmt,) = formats("--neuron", neuron, "--residual")
        assert fmt.residual_bits == fmt.bias_bits > 1
        (fmt,) = formats("--neuron", neuron, "--residual", 5)
        assert fmt.residual_bits == 5

    def test_a_comparison_groups_the_bm_neuron_alone(self):
        mac, bm = formats("--compare", "--inputs", 12, "--groups", 4, "--zero", "exact", "--residual", 7)
        assert (bm.groups, bm.zero, bm.residual_bits) == (4, "exact", 7)
        assert mac.residual_bits == 7 and mac == formats("--neuron", "mac", "--inputs", 12, "--residual", 7)[0]


def test_a_title_tells_groups_and_residual():
    for options, words in (("--inputs 12 --groups 3 --residual 7", "12 inputs in 3 groups, residual of 7 bits, par"),
                           ("--inputs 12", "12 inputs, parallel"),
                           ("--neuron mac --boundary layer --residual 5", "inputs, as in a layer, residual of 5 bits")):
        (design,) = designs_from(PARSER.parse_args(options.split()))
        assert words in title({"design": design.to_dict()})


REFUSED = {
    "--groups 0": "Number of groups must be an integer from 1 to 64, not 0",
    "--groups -4": "not -4",
    "--groups 65": "Number of groups must be an integer from 1 to 64, not 65",
    "--groups 5": "must divide the 64 inputs, not 5; nearest: 4, 8",
    "--groups four": "Number of groups must be an integer from 1 to 64, not 'four'",
    "--groups 2.5": "not '2.5'",
    "--groups 33 --branches wired": "Number of groups must be an integer from 1 to 32, not 33",
    "--groups 5 --branches wired": "must divide the 64 inputs, not 5; nearest: 4, 8",
    "--groups 4 --neuron mac": "--groups 4 needs --neuron bm, not mac",
    "--groups 1 --neuron mac": "--groups 1 needs --neuron bm, not mac",
    "--out-fraction 5 --neuron mac": "--out-fraction 5 needs --neuron bm, not mac",
    "--out-fraction 41": "from 0 to 40, not 41",
    "--zero exact --neuron mac": "--zero exact needs --neuron bm, not mac",
    "--groups 4 --combine logarithmic": "it has one group",
    "--groups 4 --sums clamped --zero step": "need zero exact, not step",
    "--zero exact --combine logarithmic": "zero must be step, not exact",
    "--residual 0": "Residual width in bits must be an integer from 1 to 62, not 0",
    "--residual 63 --neuron mac": "Residual width in bits must be an integer from 1 to 62, not 63",
    "--residual wide": "not 'wide'",
    "--residual --combine logarithmic": "it has no residual",
    "--zero exactly": "--zero must be one of step, exact, not 'exactly' (did you mean exact?)",
    "--inputs 999999999998 --groups 5": "Number of inputs must be an integer from 1 to 65536, not 999999999998",
}


@pytest.mark.parametrize("options", REFUSED)
@pytest.mark.parametrize("command", [synth, export, fpga], ids=lambda command: command.__name__)
def test_refused_in_one_line(command, options, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [*(["--out", "out"] if command is export else []), "--inputs", "64", *options.split()]
    with pytest.raises((UsageError, SystemExit)) as ended:
        command.main(arguments)
    said = capsys.readouterr().err or str(ended.value)
    assert REFUSED[options] in said and "\n" not in said.strip()
    assert not list(tmp_path.iterdir())


def test_a_trained_network_brings_its_groups():
    for option in ("--groups=0", "--groups=4", "--zero=exact", "--residual"):
        with pytest.raises(UsageError, match=f"{option.split('=')[0]} contradicts --model digits"):
            export.main([option, "--out", "out", "--model", "digits", "--layer", "stem", "--channel", "0"])
