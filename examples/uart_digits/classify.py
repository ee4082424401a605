# SPDX-License-Identifier: Apache-2.0
"""Send images to the board and print the digits that it answers.

    python classify.py /dev/ttyUSB0 build/digits_images.hex

The file has a pixel a line, in hexadecimal, 64 of them an image. Needs nothing but Python on Linux and macOS, pyserial
elsewhere.
"""

import argparse
import os
import select
import sys
import time
from pathlib import Path

PIXELS = 64
SECONDS = 1.0


class Port:
    """A serial port at 115,200 baud, 8N1, without pyserial."""

    def __init__(self, name: str):
        import termios
        import tty

        self.file = os.open(name, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self.file)
        settings = termios.tcgetattr(self.file)
        settings[4] = settings[5] = termios.B115200
        termios.tcsetattr(self.file, termios.TCSAFLUSH, settings)

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.file, data):]

    def read(self, count: int) -> bytes:
        data, end = b"", time.monotonic() + SECONDS
        while len(data) < count and select.select([self.file], [], [], max(0, end - time.monotonic()))[0]:
            data += os.read(self.file, count - len(data))
        return data


def opened(name: str):
    try:
        import serial
    except ImportError:
        return Port(name)
    return serial.Serial(name, 115200, timeout=SECONDS)


def images(path: Path) -> list[bytes]:
    pixels = bytes(int(line, 16) for line in path.read_text().splitlines() if line and not line.startswith("//"))
    return [pixels[start:start + PIXELS] for start in range(0, len(pixels) - PIXELS + 1, PIXELS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", help="such as /dev/ttyUSB0")
    parser.add_argument("images", type=Path)
    args = parser.parse_args()
    port = opened(args.port)
    for number, image in enumerate(images(args.images)):
        port.write(image)
        answer = port.read(1)
        if not answer:
            sys.exit(f"classify.py: no answer from {args.port} in {SECONDS:g} s to image {number}")
        print(answer.decode("ascii", "replace"), flush=True)


if __name__ == "__main__":
    main()
