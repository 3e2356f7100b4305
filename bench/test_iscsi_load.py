#!/usr/bin/env python3
"""iscsi_load against a small target that can misbehave on purpose.

If this fails, the benchmark counts answers that are wrong, or sends what RFC 7143 forbids. The target here
checks the order of Data-Out, command numbering and the ping; each fault in FAULTS must end the generator with
its own sentence.
"""

import json
import socket
import struct
import subprocess
import sys
import threading
import unittest

GENERATOR = None
BLOCK = 512
UNIT_BLOCKS = 32768


class Misuse(Exception):
    """The generator broke a rule."""


class FakeTarget(threading.Thread):
    """One connection at a time, in memory, answers from nothing: data is not kept."""

    def __init__(self, fault=None, keys=(), window=64):
        super().__init__(daemon=True)
        self.fault = fault
        self.keys = dict(keys)
        self.window = window
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.misuse = None
        self.commands = 0
        self.transfers = 0
        self.pings_answered = 0
        self.out_pdus = 0

    def run(self):
        try:
            self.socket, _ = self.listener.accept()
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.socket:
                self.serve()
        except Misuse as error:
            self.misuse = str(error)
        except OSError:
            pass
        finally:
            self.listener.close()

    def expect(self, condition, text):
        if not condition:
            raise Misuse(text)

    def receive(self):
        header = self.take(48)
        if header is None:
            return None
        length = int.from_bytes(header[5:8], "big")
        data = self.take((length + 3) // 4 * 4) if length else b""
        return header, data[:length]

    def take(self, count):
        pieces = b""
        while len(pieces) < count:
            piece = self.socket.recv(count - len(pieces))
            if not piece:
                return None
            pieces += piece
        return pieces

    def send(self, opcode, flags=0x80, tag=0xFFFFFFFF, data=b"", fields=(), third=0, status=0, advance=False):
        header = bytearray(48)
        header[0], header[1], header[2], header[3] = opcode, flags, third, status
        header[5:8] = len(data).to_bytes(3, "big")
        struct.pack_into(">I", header, 16, tag)
        struct.pack_into(">I", header, 20, 0xFFFFFFFF)
        struct.pack_into(">III", header, 24, self.stat_sn & 0xFFFFFFFF, self.exp_cmd_sn,
                         (self.exp_cmd_sn + self.window - 1) & 0xFFFFFFFF)
        for offset, value in fields:
            struct.pack_into(">I", header, offset, value)
        self.socket.sendall(bytes(header) + data + b"\0" * (-len(data) % 4))
        if advance:
            self.stat_sn += 1

    def serve(self):
        self.login()
        while True:
            received = self.receive()
            if received is None:
                return
            header, data = received
            opcode = header[0] & 0x3F
            if opcode == 0x06:
                self.send(0x26, tag=self.tag_of(header))
                return
            if opcode == 0x00:
                self.take_ping_answer(header)
            elif opcode == 0x01:
                self.command(header, data)
            else:
                raise Misuse(f"opcode {opcode:#x} out of turn")

    def take_ping_answer(self, header):
        self.expect(header[16:20] == b"\xff" * 4 and header[20:24] == b"\0\0\0\7", "ping answer with wrong tags")
        self.pings_answered += 1

    @staticmethod
    def tag_of(header):
        return struct.unpack_from(">I", header, 16)[0]

    def login(self):
        header, data = self.receive()
        self.exp_cmd_sn = struct.unpack_from(">I", header, 24)[0]
        self.stat_sn = 0xFFFFFFFE  # soon wraps: serial numbers must not be compared as plain ones
        offered = dict(pair.split("=", 1) for pair in data.decode().rstrip("\0").split("\0"))
        self.expect(header[0] == 0x43 and header[1] == 0x87, "no login request for the full feature phase")
        self.expect(offered["SessionType"] == "Normal" and "InitiatorName" in offered, "incomplete login")
        answers = {"MaxRecvDataSegmentLength": "8192", "FirstBurstLength": "65536", "MaxBurstLength": "65536",
                   "InitialR2T": "No", "ImmediateData": "Yes", **self.keys}
        text = "".join(f"{key}={value}\0" for key, value in answers.items()).encode()
        if self.fault == "login refused":
            self.send(0x23, flags=0x00, tag=0, fields=[(36, 0x02010000)])
            return
        self.limits = answers
        if self.fault == "login key":
            text = text.replace(b"MaxBurstLength=65536", b"MaxBurstLength=9999999")
        self.send(0x23, flags=0x87, tag=0, data=text, fields=[(12, 1)], advance=True)

    def status(self, header, **changes):
        fields = changes.pop("fields", [])
        self.send(0x21, tag=self.tag_of(header), advance=True, fields=fields, **changes)

    def command(self, header, data):
        cmd_sn = struct.unpack_from(">I", header, 24)[0]
        self.expect(cmd_sn == self.exp_cmd_sn, f"CmdSN {cmd_sn}, expected {self.exp_cmd_sn}")
        self.exp_cmd_sn += 1
        self.commands += 1
        code = header[32]
        if code == 0x00:
            attention = self.commands == 1  # as a real target: the first command meets a unit attention
            sense = struct.pack(">H", 18) + bytes([0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0, 0, 0, 0, 0])
            self.status(header, status=2 if attention else 0, data=sense if attention else b"")
        elif code == 0x9E:
            answer = struct.pack(">QI", UNIT_BLOCKS - 1, BLOCK) + b"\0" * 20
            self.send(0x25, flags=0x81, tag=self.tag_of(header), data=answer, advance=True)
        elif code == 0x35:
            self.status(header)
        elif code in (0x28, 0x2A):
            lba = struct.unpack_from(">I", header, 34)[0]
            length = int.from_bytes(header[39:41], "big") * BLOCK
            self.expect(struct.unpack_from(">I", header, 20)[0] == length, "expected length differs from the CDB")
            self.expect(lba * BLOCK + length <= UNIT_BLOCKS * BLOCK, "beyond the end of the unit")
            self.transfers += 1
            if self.transfers == 20:
                self.send(0x20, fields=[(20, 7)])  # a ping: NOP-In with a target transfer tag
            if self.transfers == 50 and self.fault:
                self.misbehave(header, length)
            elif code == 0x28:
                self.answer_read(header, length)
            else:
                self.answer_write(header, data, length)
        else:
            raise Misuse(f"CDB opcode {code:#x}")

    def answer_read(self, header, length, skip_bytes=0):
        offset = skip_bytes
        number = 0
        while offset < length:
            piece = min(4096, length - offset)
            last = offset + piece == length
            self.send(0x25, flags=0x81 if last else 0x00, tag=self.tag_of(header), data=b"\x5a" * piece,
                      fields=[(36, number), (40, offset)], advance=last)
            offset += piece
            number += 1

    def answer_write(self, header, data, length):
        immediate = self.limits["ImmediateData"] == "Yes"
        segment = int(self.limits["MaxRecvDataSegmentLength"])
        first_burst = int(self.limits["FirstBurstLength"])
        got = len(data)
        self.expect(got == (min(length, segment, first_burst) if immediate else 0), f"immediate data of {got} bytes")
        unsolicited = 0 if self.limits["InitialR2T"] == "Yes" else min(length, first_burst) - got
        self.expect(bool(header[1] & 0x80) == (unsolicited == 0), "F bit of the command")
        if unsolicited > 0:
            got = self.take_burst(header, got, unsolicited, 0xFFFFFFFF)
        r2t_sn = 0
        while got < length:
            burst = min(int(self.limits["MaxBurstLength"]), length - got)
            self.send(0x31, tag=self.tag_of(header), fields=[(20, 77 + r2t_sn), (36, r2t_sn), (40, got), (44, burst)])
            got = self.take_burst(header, got, burst, 77 + r2t_sn)
            r2t_sn += 1
        self.status(header)

    def take_burst(self, header, offset, length, transfer_tag):
        end = offset + length
        number = 0
        while offset < end:
            out, data = self.receive()
            if out[0] == 0x40:
                self.take_ping_answer(out)  # it may stand between the data of a write
                continue
            self.out_pdus += 1
            self.expect(out[0] == 0x05 and out[16:20] == header[16:20], "no Data-Out of this command")
            tag, data_sn, at = struct.unpack_from(">I", out, 20) + struct.unpack_from(">II", out, 36)
            self.expect((tag, data_sn, at) == (transfer_tag, number, offset), f"Data-Out {(tag, data_sn, at)}")
            self.expect(len(data) <= int(self.limits["MaxRecvDataSegmentLength"]), "Data-Out too long")
            offset += len(data)
            number += 1
            self.expect(bool(out[1] & 0x80) == (offset == end), "F bit of a Data-Out")
        return offset

    def misbehave(self, header, length):
        tag = self.tag_of(header)
        if self.fault == "check condition":
            self.status(header, status=2, data=struct.pack(">H", 18) + bytes([0x70, 0, 3] + [0] * 9 + [0x11, 0, 0, 0, 0, 0]))
        elif self.fault == "short read":
            self.answer_read(header, length, skip_bytes=length)
            self.status(header)
        elif self.fault == "read gap":
            self.answer_read(header, length, skip_bytes=512)
        elif self.fault == "residual":
            self.status(header, flags=0x82, fields=[(44, 512)])
        elif self.fault == "status number":
            self.stat_sn += 1
            self.answer_read(header, length)
        elif self.fault == "unknown tag":
            self.send(0x21, tag=tag + 1, advance=True)
        elif self.fault == "answered twice":
            self.answer_read(header, length)
            self.answer_read(header, length)
        elif self.fault == "target failure":
            self.status(header, third=1)
        elif self.fault == "reject":
            self.send(0x3F, third=4, data=header, advance=True)
        elif self.fault == "close":
            self.socket.close()
        elif self.fault == "long segment":
            self.send(0x25, tag=tag, data=b"\0" * 300000)
        else:
            raise Misuse(f"unknown fault {self.fault}")


FAULTS = {
    "login refused": "status class 2 detail 1",
    "login key": "more than offered",
    "check condition": "SCSI status 0x02, sense key 0x3 asc 0x11",
    "short read": "answered with 0",
    "read gap": "Data-In out of order",
    "residual": "residual count 512",
    "status number": "StatSN",
    "unknown tag": "not in flight",
    "answered twice": "not in flight",
    "target failure": "the target failed",
    "reject": "rejected a PDU, reason 0x04",
    "close": "closed the connection",
    "long segment": "we declared",
}


def run_generator(target, *arguments):
    return subprocess.run(
        [GENERATOR, "--portal", f"127.0.0.1:{target.port}", "--target", "iqn.2026-11.org.replblk:fake",
         "--seconds", "0.2", "--warm-up", "0.02", *arguments], capture_output=True, text=True, timeout=60)


class IscsiLoadTest(unittest.TestCase):
    def check_good(self, target, *arguments):
        target.start()
        done = run_generator(target, *arguments)
        target.join(10)
        self.assertIsNone(target.misuse)
        self.assertEqual(done.returncode, 0, done.stderr)
        result = json.loads(done.stdout)
        self.assertGreater(result["operations"], 0)
        self.assertLessEqual(result["operations"], target.transfers)
        self.assertEqual(result["bytes"], result["operations"] * result["block_bytes"])
        self.assertLessEqual(result["p50_us"], result["p99_us"])
        return result

    def test_reads_are_counted_and_the_ping_is_answered(self):
        target = FakeTarget()
        self.check_good(target, "--workload", "randread", "--queue-depth", "8", "--block-size", "16384")
        self.assertEqual(target.pings_answered, 1)

    def test_a_command_window_smaller_than_the_queue_depth_is_respected(self):
        target = FakeTarget(window=3)
        self.check_good(target, "--workload", "randread", "--queue-depth", "32")

    def test_a_sync_follows_every_write(self):
        target = FakeTarget(window=5)
        self.check_good(target, "--workload", "randwrite", "--queue-depth", "16", "--sync-every-write")
        self.assertEqual(target.commands, 2 * target.transfers + 3)  # two TEST UNIT READY, one READ CAPACITY

    def test_write_data_goes_out_as_negotiated(self):
        # The fake target reads one write to its end before the next command, so the queue depth is 1.
        for immediate in ("Yes", "No"):
            for initial_r2t in ("Yes", "No"):
                for segment in ("8192", "4096", "262144"):
                    with self.subTest(immediate=immediate, initial_r2t=initial_r2t, segment=segment):
                        target = FakeTarget(keys={"ImmediateData": immediate, "InitialR2T": initial_r2t,
                                                  "FirstBurstLength": "20480", "MaxBurstLength": "24576",
                                                  "MaxRecvDataSegmentLength": segment})
                        self.check_good(target, "--workload", "seqwrite", "--block-size", "131072")
                        self.assertGreater(target.out_pdus, 0)

    def test_every_fault_ends_the_run_with_its_own_sentence(self):
        for fault, sentence in FAULTS.items():
            with self.subTest(fault=fault):
                target = FakeTarget(fault=fault)
                target.start()
                done = run_generator(target, "--workload", "randread")
                target.join(10)
                self.assertIsNone(target.misuse)
                self.assertEqual(done.returncode, 1)
                self.assertIn(sentence, done.stderr)
                self.assertEqual(done.stdout, "")

    def test_login_only_waits_for_the_target(self):
        target = FakeTarget()
        threading.Timer(0.1, target.start).start()
        done = run_generator(target, "--login-only")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertGreater(json.loads(done.stdout)["login_ms"], 50)


if __name__ == "__main__":
    GENERATOR = sys.argv.pop(1)
    unittest.main()
