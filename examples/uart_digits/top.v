// SPDX-License-Identifier: Apache-2.0
// Handwritten digits over a UART, on a ULX3S: 64 bytes in, an image of 8 x 8 pixels row by row; the digit out, as ASCII.
//
// The network takes fewer cycles than its pixels take to come, so that a byte never waits long.
`default_nettype none

module top #(
  parameter CYCLES_PER_BIT = 217,  // 25 MHz / 115,200
  parameter PATIENCE = 2500000,  // cycles between two bytes behind which an image is given up: 0.1 s
  parameter PIXELS = 64
) (
  input wire clk_25mhz,
  input wire ftdi_txd,  // named from the other side: what the FTDI sends
  output wire ftdi_rxd,
  output wire wifi_gpio0
);
  wire clk = clk_25mhz;
  assign wifi_gpio0 = 1;  // else the board's ESP32 may start and load another design

  // Reset for 4,096 cycles behind the configuration, which sets registers to what is written here.
  reg [12:0] started = 0;
  always @(posedge clk)
    if (!started[12])
      started <= started + 1;
  wire rst = !started[12];

  wire [7:0] byte_in;
  wire byte_valid;
  uart_rx #(.CYCLES_PER_BIT(CYCLES_PER_BIT)) receiver (
    .clk(clk), .rst(rst), .rxd(ftdi_txd), .data(byte_in), .valid(byte_valid)
  );

  // A byte waits here until the network takes it as a pixel.
  reg [7:0] pixel;
  reg pixel_valid;
  wire pixel_ready;
  reg [$clog2(PIXELS)-1:0] index;
  wire pixel_last = index == PIXELS - 1;
  reg [$clog2(PATIENCE+1)-1:0] quiet;  // cycles since the last byte
  reg give_up;  // what there is of an image; the next byte is the first of another one

  always @(posedge clk) begin
    give_up <= 0;
    if (pixel_valid && pixel_ready) begin
      pixel_valid <= 0;
      index <= pixel_last ? 0 : index + 1;
    end
    if (byte_valid) begin
      pixel <= byte_in;
      pixel_valid <= 1;
      quiet <= 0;
    end else if (index != 0) begin
      quiet <= quiet + 1;
      give_up <= quiet == PATIENCE - 1;
    end
    if (rst || give_up) begin
      pixel_valid <= 0;
      index <= 0;
      quiet <= 0;
    end
  end

  wire [7:0] class_out;
  wire class_valid, class_ready;
  digits network (
    .clk(clk),
    .rst(rst || give_up),
    .s_axis_tdata(pixel),
    .s_axis_tvalid(pixel_valid),
    .s_axis_tready(pixel_ready),
    .s_axis_tlast(pixel_last),
    .m_axis_tdata(class_out),
    .m_axis_tvalid(class_valid),
    .m_axis_tready(class_ready),
    .m_axis_tlast(),
    .m_axis_tuser()
  );

  uart_tx #(.CYCLES_PER_BIT(CYCLES_PER_BIT)) transmitter (
    .clk(clk), .rst(rst), .data(class_out + "0"), .valid(class_valid), .ready(class_ready), .txd(ftdi_rxd)
  );
endmodule

`default_nettype wire
