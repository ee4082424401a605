# SPDX-License-Identifier: Apache-2.0
"""What the FuseSoC cores of this package have in common (CAPI2)."""

__all__ = ["core_targets"]


def core_targets(name: str, simulators: str = "") -> str:
    """The targets of a module ``name`` in the fileset ``rtl`` with a self-checking bench in ``bench``: ``sim``, in
    Icarus unless another one is asked for, and ``lint``. ``simulators``: lines for others' options."""
    return f"""\
targets:
  default: &default
    filesets: [rtl]
    toplevel: {name}
  sim:
    <<: *default
    description: the self-checking bench
    default_tool: icarus
    filesets: [rtl, bench]
    toplevel: {name}_tb
    tools:
      icarus:
        iverilog_options: [-g2005]
{simulators}  lint:
    <<: *default
    default_tool: verilator
    tools:
      verilator:
        mode: lint-only
        verilator_options: [-Wno-fatal]
"""
