# SPDX-License-Identifier: Apache-2.0
"""What an export may be called, and what it is called where nobody says."""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING

from bmhw.errors import UsageError
from bmhw.hdl.neurons.design import LONGEST_NAME, Design, joined
from bmhw.measure.selection import choose
from bmhw.sim.ports import PORT_NAMES

if TYPE_CHECKING:
    from bmhw.sim.trained import TrainedNeuron

__all__ = ["KEYWORDS", "check_name", "check_unused", "default_name", "legal_name"]

KEYWORDS = frozenset(
    """
    accept_on alias always always_comb always_ff always_latch and assert assign assume automatic before begin bind
    bins binsof bit break buf bufif0 bufif1 byte case casex casez cell chandle checker class clocking cmos config const
    constraint context continue cover covergroup coverpoint cross deassign default defparam design disable dist do
    edge else end endcase endchecker endclass endclocking endconfig endfunction endgenerate endgroup endinterface
    endmodule endpackage endprimitive endprogram endproperty endsequence endspecify endtable endtask enum event
    eventually expect export extends extern final first_match for force foreach forever fork forkjoin function
    generate genvar global highz0 highz1 if iff ifnone ignore_bins illegal_bins implements implies import incdir
    include initial inout input inside instance int integer interconnect interface intersect join join_any join_none
    large let liblist library local localparam logic longint macromodule matches medium modport module nand negedge
    nettype new nexttime nmos nor noshowcancelled not notif0 notif1 null or output package packed parameter pmos
    posedge primitive priority program property protected pull0 pull1 pulldown pullup pulsestyle_ondetect
    pulsestyle_onevent pure rand randc randcase randsequence rcmos real realtime ref reg reject_on release repeat
    restrict return rnmos rpmos rtran rtranif0 rtranif1 s_always s_eventually s_nexttime s_until s_until_with scalared
    sequence shortint shortreal showcancelled signed small soft solve specify specparam static string strong strong0
    strong1 struct super supply0 supply1 sync_accept_on sync_reject_on table tagged task this throughout time
    timeprecision timeunit tran tranif0 tranif1 tri tri0 tri1 triand trior trireg type typedef union unique unique0
    unsigned until until_with untyped use uwire var vectored virtual void wait wait_order wand weak weak0 weak1 while
    wildcard wire with within wor xnor xor
    """.split()  # noqa: SIM905
)
"""The keywords of Verilog (IEEE 1364-2005) and SystemVerilog (IEEE 1800-2017 and 1800-2023, annex B)."""

_TAKEN = ("std", "TOP")  # SystemVerilog's built-in package; what Verilator calls its own top


def check_name(name: str, option: str = "--name") -> str:
    """Return ``name`` if a module and its files may be called so; :class:`UsageError` about an option otherwise.

    A port's name is refused for every design, so that a name that is right for one form is right for the others.
    """
    shown = repr(name) if len(name) <= LONGEST_NAME else f"one of {len(name)}"
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or len(name) > LONGEST_NAME:
        raise UsageError(f"{option} must be 1 to {LONGEST_NAME} letters, digits and underscores of ASCII, a letter "
                         f"first, not {shown}")
    if name in KEYWORDS or name in _TAKEN:
        raise UsageError(f"{option} must be no word of Verilog, SystemVerilog or Verilator, not {name!r}")
    if name in PORT_NAMES:
        raise UsageError(f"{option} must be no name of a port ({', '.join(sorted(PORT_NAMES))}), not {name!r}")
    return name


def check_unused(name: str, sources: Mapping[str, str]) -> None:
    """:class:`UsageError` if anything but the module is called ``name`` in these texts of Verilog (by file name)."""
    for text in sources.values():
        plain = re.sub(r'//[^\n]*|"[^"\n]*"', "", text)
        called_so = len(re.findall(rf"(?<![\w$`']){name}(?![\w$])", plain))
        # the module itself, and its one instance in the bench
        if called_so > 1:
            raise UsageError(f"--name must be no name of a signal or a part inside the module or its bench, "
                             f"not {name!r}")


def default_name(design: Design, objective: str, neuron: "TrainedNeuron | None" = None) -> str:
    """The design's name; of a trained neuron its network, layer and channel; and the architecture, where it isn't the
    one that ``objective`` chooses."""
    if neuron is None:
        words = [design.name]
    else:
        network = re.sub(r"\.(json|safetensors)$", "", PurePath(neuron.model).name)
        words = [legal_name(network, design.neuron), _legal(neuron.layer), f"channel{neuron.channel}"]
        words += [design.form] if design.form != "parallel" else []
        words += [place.replace(".", "") for place in design.registers or ()]
    usual = choose(design.format, objective, form=design.form)
    words += [value for part, value in design.architecture.items() if value != usual.get(part)]
    return joined(words)


def legal_name(text: str, prefix: str) -> str:
    """A text as the name of a module, with ``prefix`` in front where no letter is."""
    name = _legal(text)
    return name if name[:1].isalpha() else joined([prefix, name])


def _legal(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")
