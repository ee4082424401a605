// SPDX-License-Identifier: Apache-2.0
// From the bits of one UART to those of the other: the images of the network's own bench, and one that breaks off.
`timescale 1ns / 1ps
`default_nettype none

module top_tb;
  parameter CYCLES_PER_BIT = 217;
  parameter PATIENCE = 25000;
  parameter IMAGES = 4;
  localparam PIXELS = 64;

  reg [7:0] pixels [0:IMAGES*PIXELS-1];
  reg [7:0] classes [0:IMAGES];

  reg clk, rxd;
  wire txd;
  top #(.CYCLES_PER_BIT(CYCLES_PER_BIT), .PATIENCE(PATIENCE)) dut (
    .clk_25mhz(clk), .ftdi_txd(rxd), .ftdi_rxd(txd), .wifi_gpio0()
  );

  initial clk = 0;
  always #20 clk = !clk;

  task cycles(input integer count);
    repeat (count) @(negedge clk);
  endtask

  task send(input [7:0] data);
    integer n;
    begin
      rxd = 0;
      cycles(CYCLES_PER_BIT);
      for (n = 0; n < 8; n = n + 1) begin
        rxd = data[n];
        cycles(CYCLES_PER_BIT);
      end
      rxd = 1;
      cycles(CYCLES_PER_BIT);
    end
  endtask

  task send_image(input integer image, input integer count);
    integer n;
    for (n = 0; n < count; n = n + 1)
      send(pixels[image * PIXELS + n]);
  endtask

  // What comes back, beside what is sent.
  integer answers, errors, bit_number;
  reg [7:0] answer;
  initial begin
    answers = 0;
    errors = 0;
    wait (dut.started[12]);
    forever begin
      while (txd !== 0)
        cycles(1);
      cycles(CYCLES_PER_BIT + CYCLES_PER_BIT / 2);
      for (bit_number = 0; bit_number < 8; bit_number = bit_number + 1) begin
        answer[bit_number] = txd;
        cycles(CYCLES_PER_BIT);
      end
      if (answers >= IMAGES || answer !== classes[answers] + "0" || txd !== 1)
        errors = errors + 1;
      $display("image %0d: %c (%h), expected %0d", answers, answer, answer, classes[answers]);
      answers = answers + 1;
    end
  end

  integer image;
  initial begin
    $readmemh("digits_images.hex", pixels);
    $readmemh("digits_frames.hex", classes);
    rxd = 1;
    wait (dut.started[12]);
    for (image = 0; image < IMAGES; image = image + 1) begin
      if (image == IMAGES - 1) begin
        // all answers but this one have come when the image before it breaks off and is given up
        cycles(PATIENCE);
        send_image(0, PIXELS - 1);
        cycles(PATIENCE + 1000);
      end
      send_image(image, PIXELS);
    end
    cycles(PATIENCE + 12 * CYCLES_PER_BIT);
    if (errors == 0 && answers == IMAGES)
      $display("PASS: %0d answers", answers);
    else
      $display("FAIL: %0d errors in %0d answers", errors, answers);
    $finish;
  end
endmodule

`default_nettype wire
