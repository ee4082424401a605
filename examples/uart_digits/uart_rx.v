// SPDX-License-Identifier: Apache-2.0
// UART receiver, 8 data bits, no parity, one stop bit: `valid` is 1 in the cycle in which `data` is a byte.
`default_nettype none

module uart_rx #(
  parameter CYCLES_PER_BIT = 217  // 25 MHz / 115,200
) (
  input wire clk,
  input wire rst,
  input wire rxd,
  output reg [7:0] data,
  output reg valid
);
  localparam HALF = CYCLES_PER_BIT / 2;

  // The line changes at any time: two registers, so that everything behind them sees one value.
  reg [1:0] sampled;
  always @(posedge clk)
    sampled <= {sampled[0], rxd};
  wire line = sampled[1];

  reg busy;
  reg [3:0] index;  // of the bit that is waited for: 0 start, 1 to 8 data, 9 stop
  reg [$clog2(CYCLES_PER_BIT)-1:0] left;  // cycles to its middle

  always @(posedge clk) begin
    valid <= 0;
    if (!busy) begin
      index <= 0;
      left <= HALF - 1;
      busy <= !line;
    end else if (left != 0)
      left <= left - 1;
    else begin
      left <= CYCLES_PER_BIT - 1;
      index <= index + 1;
      if (index == 0)
        busy <= !line;  // a start bit is still there in its middle
      else if (index <= 8)
        data <= {line, data[7:1]};
      else begin
        busy <= 0;
        valid <= line;  // without a stop bit it was no byte
      end
    end
    if (rst) begin
      busy <= 0;
      valid <= 0;
    end
  end
endmodule

`default_nettype wire
