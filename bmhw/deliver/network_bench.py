# SPDX-License-Identifier: Apache-2.0
"""A chip's self-checking bench in plain Verilog-2005, with images and what they give as hexadecimal files beside it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bmhw.hdl.network.edge import Chip
from bmhw.models.integer.network import IntegerNetwork

from .loading_bench import LOADING

__all__ = ["BenchVectors", "bench_text"]

_RESETS = 3
"""Of the bench, each in the middle of an image or of what becomes of it."""


@dataclass(frozen=True, eq=False)
class BenchVectors:
    """Images and the frames that a chip gives for them.

    ``images``: uint8 (n, channels, height, width). The bench also sends the first one without its last ``missing``
    pixels; what that gives is the last one of ``frames`` (n + 1, beats). Where weights can be written, as many frames
    follow: those of the other network that is loaded into the chip.
    """

    images: NDArray[np.uint8]
    frames: NDArray[np.int64]
    missing: int

    @classmethod
    def of(cls, network: IntegerNetwork, images: NDArray[np.uint8], *, logits: bool,
           other: IntegerNetwork | None = None) -> "BenchVectors":
        pixels = images.shape[2] * images.shape[3]
        missing = pixels // 2
        cut = images[:1].copy().reshape(1, images.shape[1], pixels)
        cut[:, :, pixels - missing:] = 0
        sent = np.concatenate([images, cut.reshape(1, *images.shape[1:])])
        numbers = np.concatenate([of.logits(sent) for of in (network, other) if of is not None])
        classes = numbers.argmax(axis=1)[:, None]
        return cls(images, np.concatenate([numbers, classes], axis=1) if logits else classes, missing)

    def files(self, name: str, command: str, data_bits: int) -> dict[str, str]:
        """``NAME_images.hex``, a word for each pixel, its first channel lowest, and ``NAME_frames.hex``, one a beat."""
        pixels = self.images.transpose(0, 2, 3, 1).reshape(-1, self.images.shape[1])
        heads = (f"// SPDX-License-Identifier: Apache-2.0\n// {what}, written by: {command}\n"
                 for what in ("Pixels of images in raster order, the first channel lowest", "Results, a beat a line"))
        frames = self.frames.ravel() & ((1 << data_bits) - 1)
        return {
            f"{name}_images.hex": next(heads) + "".join(f"{bytes(pixel[::-1]).hex()}\n" for pixel in pixels),
            f"{name}_frames.hex": next(heads) + "".join(f"{int(beat):0{data_bits // 4}x}\n" for beat in frames),
        }


def bench_text(chip: Chip, name: str, vectors: BenchVectors, *, cycles: int, head: str) -> str:
    """Module ``NAME_tb``: drives the chip ``name`` and compares every beat; where weights can be written, it loads
    images of them, ``NAME_weights.hex`` and a broken one.

    Prints ``PASS`` or ``FAIL`` in its last line; a failure ends with a status that is not 0 where the simulator allows
    it. ``cycles``: of an image, for the patience of the bench and its pauses. ``head``: the comment above it.
    """
    counters = "".join(f"\n    .{port}()," for port in ("frames", "input_stalls", "output_stalls") if chip.counters)
    values = {
        "NAME": name, "HEAD": head, "IMAGES": len(vectors.images), "PIXELS": chip.pixels,
        "SHORT": chip.pixels - vectors.missing, "BEATS": chip.beats, "RESETS": _RESETS, "CYCLES": cycles,
        "PIXEL_HIGH": len(chip.s_axis_tdata) - 1, "DATA_HIGH": len(chip.m_axis_tdata) - 1, "COUNTERS": counters,
    }
    text = _BENCH
    for place, lines in LOADING.items():
        text = text.replace(f"@{place}@", lines if chip.layout is not None else "")
    if chip.layout is not None:
        values["WORDS"] = chip.layout.length
    for word, value in values.items():
        text = text.replace(f"@{word}@", str(value))
    return text


_BENCH = """\
@HEAD@
`timescale 1ns / 1ps
`default_nettype none

module @NAME@_tb;
  localparam IMAGES = @IMAGES@;
  localparam PIXELS = @PIXELS@;
  localparam SHORT = @SHORT@;  // pixels of an image that ends early
  localparam LONG = PIXELS + 3;  // of one that ends late
  localparam BEATS = @BEATS@;  // of a result
  localparam CYCLES = @CYCLES@;  // an image, as computed
  localparam PATIENCE = 20 * CYCLES + 10000;  // cycles without a beat that end the bench

  // What is sent, one job after the other: images at full speed, a short one and a long one, images with pauses at
  // both ends, and images that a reset interrupts.
  localparam SHORT_JOB = IMAGES;
  localparam LONG_JOB = IMAGES + 1;
  localparam PAUSE_JOB = IMAGES + 2;
  localparam RESET_JOB = 2 * IMAGES + 2;
  localparam JOBS = RESET_JOB + @RESETS@;

@LOAD_SIGNALS@  reg [@PIXEL_HIGH@:0] pixels [0:IMAGES*PIXELS-1];
  reg [@DATA_HIGH@:0] expected [0:@LOAD_SETS@(IMAGES+1)*BEATS-1];  // those of the short image behind all others'

  reg clk, rst;
  reg [@PIXEL_HIGH@:0] s_axis_tdata;
  reg s_axis_tvalid, s_axis_tlast;
  wire s_axis_tready;
  wire [@DATA_HIGH@:0] m_axis_tdata;
  wire m_axis_tvalid, m_axis_tlast, m_axis_tuser;
  reg m_axis_tready;

  @NAME@ dut (
    .clk(clk),
    .rst(rst),
    .s_axis_tdata(s_axis_tdata),
    .s_axis_tvalid(s_axis_tvalid),
    .s_axis_tready(s_axis_tready),
    .s_axis_tlast(s_axis_tlast),@COUNTERS@@LOAD_PORTS@
    .m_axis_tdata(m_axis_tdata),
    .m_axis_tvalid(m_axis_tvalid),
    .m_axis_tready(m_axis_tready),
    .m_axis_tlast(m_axis_tlast),
    .m_axis_tuser(m_axis_tuser)
  );

  integer cycle, idle, seed, errors;
  integer job, sent;  // what is being sent, and its beats so far
  integer frame, beat, frames, pause;  // the job whose result comes, its beats so far; all results; cycles to wait
  integer resets, until_reset;
  integer begun, first, last;  // cycles: of the first beat, the first result, the last one at full speed
  reg repeating;  // a job is sent until a reset comes, and once more
  reg sends, waiting, ended;
  reg [@DATA_HIGH@+2:0] was;

  function integer image_of(input integer of_job);
    image_of = of_job == SHORT_JOB ? 0 : of_job % IMAGES;
  endfunction

  function integer length_of(input integer of_job);
    length_of = of_job == SHORT_JOB ? SHORT : of_job == LONG_JOB ? LONG : PIXELS;
  endfunction

  function integer result_of(input integer of_job);
    result_of = @LOAD_RESULT@(of_job == SHORT_JOB ? IMAGES : image_of(of_job));
  endfunction

  function integer random_below(input integer limit);
    random_below = $unsigned($random(seed)) % limit;
  endfunction

  task wrong(input integer of_job);
    begin
      errors = errors + 1;
      if (errors <= 10)
        $display("cycle %0d, result %0d (image %0d), beat %0d: data %h, last %b, user %b; expected %h, %b, %b", cycle,
                 of_job, image_of(of_job), beat, m_axis_tdata, m_axis_tlast, m_axis_tuser,
                 expected[result_of(of_job) * BEATS + beat], beat == BEATS - 1,
                 beat == BEATS - 1 && (of_job == SHORT_JOB || of_job == LONG_JOB));
    end
  endtask

  task finish;
    begin
      ended = 1;
      if (errors == 0 && frame == JOBS) begin
        $display("latency %0d cycles from the first pixel to the result, %0d cycles an image", first - begun,
                 (last - first) / (IMAGES - 1));
        $display("PASS: @NAME@, %0d results", frames);
        $finish;
      end else begin
        $display("FAIL: @NAME@, %0d errors in %0d results", errors, frames);
`ifdef __ICARUS__
        $finish_and_return(1);
`else
        $fatal(1);
`endif
      end
    end
  endtask

@LOAD_TASK@  // The beats that move in this cycle, as the edge of the clock that ends it sees them.
  task transfers;
    begin
      idle = idle + 1;
@LOAD_TRANSFER@      if (s_axis_tvalid && s_axis_tready === 1) begin
        if (job == 0 && sent == 0)
          begun = cycle;
@LOAD_BEGUN@        sent = sent + 1;
        sends = 0;
        idle = 0;
        if (sent == length_of(job)) begin
          sent = 0;
          if (!repeating)
            job = job + 1;
        end
      end
      if (waiting && (m_axis_tvalid !== 1 || {m_axis_tdata, m_axis_tlast, m_axis_tuser} !== was))
        wrong(frame);  // withdrawn or changed before it was taken
      was = {m_axis_tdata, m_axis_tlast, m_axis_tuser};
      waiting = m_axis_tvalid === 1 && !m_axis_tready;
      if (m_axis_tvalid !== 0 && m_axis_tready) begin
        if (frame == JOBS || m_axis_tvalid !== 1 || m_axis_tdata !== expected[result_of(frame) * BEATS + beat]
            || m_axis_tlast !== (beat == BEATS - 1)
            || m_axis_tuser !== (beat == BEATS - 1 && (frame == SHORT_JOB || frame == LONG_JOB)))
          wrong(frame);
        idle = 0;
        beat = beat + 1;
        if (beat == BEATS) begin
          beat = 0;
          frames = frames + 1;
          $display("cycle %0d: result of image %0d, %0d errors", cycle, image_of(frame), errors);
          $fflush;
          if (frame == 0)
            first = cycle;
          if (frame == IMAGES - 1)
            last = cycle;
          if (!repeating)
            frame = frame + 1;
          if (frame >= PAUSE_JOB && frame < RESET_JOB)
            pause = random_below(2 * CYCLES);
        end
      end
    end
  endtask

  initial begin
    $readmemh("@NAME@_images.hex", pixels);
    $readmemh("@NAME@_frames.hex", expected);
@LOAD_BEGIN@    seed = 1;
    if ($value$plusargs("seed=%d", seed))
      $display("seed %0d", seed);
    clk = 0;
    rst = 1;
    s_axis_tvalid = 0;
    s_axis_tdata = 0;
    s_axis_tlast = 0;
    m_axis_tready = 0;
    cycle = 0;
    idle = 0;
    errors = 0;
    job = 0;
    sent = 0;
    frame = 0;
    beat = 0;
    frames = 0;
    pause = 0;
    resets = 0;
    until_reset = 0;
    begun = 0;
    first = 0;
    last = 0;
    repeating = 0;
    sends = 0;
    waiting = 0;
    ended = 0;
    was = 0;
    while (!ended) begin
      // inputs change at the falling edge
      rst = cycle == 0;
      if (repeating) begin
        until_reset = until_reset - 1;
        if (until_reset == 0) begin
          rst = 1;
          repeating = 0;
          sends = 0;
          sent = 0;
          beat = 0;@LOAD_RESET@
        end
      end else if (job == RESET_JOB + resets && frame == job && job < JOBS) begin
        resets = resets + 1;
        repeating = 1;
        until_reset = 2 + random_below(2 * (first - begun));
      end
      // a job with a reset begins when all that was sent before it has come out
      if (!sends && !rst && job < JOBS@LOAD_FIRST@ && (job < RESET_JOB || frame == job)
          && !(job >= PAUSE_JOB && job < RESET_JOB && random_below(2) != 0))
        sends = 1;
      s_axis_tvalid = sends;
      s_axis_tdata = sends && sent < PIXELS ? pixels[image_of(job) * PIXELS + sent] : {@PIXEL_HIGH@+1{1'b1}};
      s_axis_tlast = !sends || sent == length_of(job) - 1;
@LOAD_DRIVE@      m_axis_tready = pause == 0;
      if (pause != 0)
        pause = pause - 1;
      #5;
      if (rst)
        waiting = 0;
      else
        transfers;
      clk = 1;
      #5;
      clk = 0;
      cycle = cycle + 1;
      if (frame == JOBS ? idle > CYCLES : idle > PATIENCE) begin
        if (frame != JOBS)
          $display("no beat in %0d cycles, while result %0d was awaited", PATIENCE, frame);
        finish;
      end
    end
  end
endmodule

`default_nettype wire
"""
