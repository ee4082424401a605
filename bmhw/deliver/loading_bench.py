# SPDX-License-Identifier: Apache-2.0
"""What the bench of a chip whose weights can be written has more: what it sends into the load port, and awaits."""

__all__ = ["LOADING"]

LOADING = {
    "LOAD_SIGNALS": """\
  // Images of weights: one with other words and a wrong checksum, and the chip's own, before the first pixel; that of
  // another network between images, and its own again. Each waits for no image to be in the chip; a reset in the middle
  // of one begins it anew.
  localparam WORDS = @WORDS@;
  reg [31:0] weights [0:2*WORDS-1];  // its own and the other network's
  reg others [0:JOBS-1];  // what each job's image began with
  reg [31:0] s_load_tdata;
  reg s_load_tvalid, s_load_tlast;
  wire s_load_tready, load_done, load_error;
  integer word, loads, behind;  // of an image of weights that is sent; images; cycles since the last one's end

""",
    "LOAD_SETS": "2*",
    "LOAD_RESULT": "(others[of_job] ? IMAGES + 1 : 0) + ",
    "LOAD_PORTS": """
    .s_load_tdata(s_load_tdata),
    .s_load_tvalid(s_load_tvalid),
    .s_load_tready(s_load_tready),
    .s_load_tlast(s_load_tlast),
    .load_done(load_done),
    .load_error(load_error),""",
    "LOAD_TASK": """\
  // What the chip says of an image of weights, four cycles behind it.
  task loaded;
    begin
      behind = behind + 1;
      if (behind == 4 && loads != 0 && (load_error !== (loads == 1) || load_done !== (loads != 1))) begin
        errors = errors + 1;
        $display("cycle %0d, image %0d of weights: done %b, error %b", cycle, loads - 1, load_done, load_error);
      end
    end
  endtask

""",
    "LOAD_TRANSFER": """\
      loaded;
      if (s_load_tvalid && s_load_tready === 1) begin
        idle = 0;
        word = word + 1;
        if (word == WORDS) begin
          word = 0;
          loads = loads + 1;
          behind = 0;
        end
      end
""",
    "LOAD_BEGUN": """\
        if (sent == 0)
          others[job] = loads == 3;
""",
    "LOAD_BEGIN": """\
    $readmemh("@NAME@_weights.hex", weights);
    s_load_tvalid = 0;
    s_load_tdata = 0;
    s_load_tlast = 0;
    word = 0;
    loads = 0;
    behind = 0;
""",
    "LOAD_RESET": """
          word = 0;""",
    "LOAD_FIRST": " && loads > (job < RESET_JOB - 1 ? 1 : job < RESET_JOB ? 2 : 3)",
    "LOAD_DRIVE": """\
      s_load_tvalid = !rst && behind > 4
        && (loads < 2 || (loads == 2 && frame > SHORT_JOB) || (loads == 3 && frame >= RESET_JOB));
      s_load_tdata = weights[loads == 2 ? WORDS + word : word] ^ {32{loads == 0 && word != 0}};
      s_load_tlast = word == WORDS - 1;
""",
}
"""Text of each place in the bench, ``@PLACE@``; without a load port they are empty."""
