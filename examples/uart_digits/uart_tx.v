// SPDX-License-Identifier: Apache-2.0
// UART transmitter, 8 data bits, no parity, one stop bit: a byte is taken where `valid` and `ready` are 1.
`default_nettype none

module uart_tx #(
  parameter CYCLES_PER_BIT = 217  // 25 MHz / 115,200
) (
  input wire clk,
  input wire rst,
  input wire [7:0] data,
  input wire valid,
  output wire ready,
  output wire txd
);
  reg [9:0] frame;  // stop bit, data, start bit; the lowest one is on the line
  reg [3:0] bits;  // that are left
  reg [$clog2(CYCLES_PER_BIT)-1:0] left;  // cycles of the bit on the line

  assign ready = bits == 0;
  assign txd = frame[0];

  always @(posedge clk)
    if (rst) begin
      frame <= 10'h3ff;
      bits <= 0;
    end else if (ready) begin
      left <= CYCLES_PER_BIT - 1;
      if (valid) begin
        frame <= {1'b1, data, 1'b0};
        bits <= 10;
      end
    end else if (left != 0)
      left <= left - 1;
    else begin
      left <= CYCLES_PER_BIT - 1;
      frame <= {1'b1, frame[9:1]};
      bits <= bits - 1;
    end
endmodule

`default_nettype wire
