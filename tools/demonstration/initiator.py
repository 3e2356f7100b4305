"""A small iSCSI initiator (RFC 7143): one session, one connection, reads and writes with many commands in flight.

Written for the tour, so that an acknowledgement is counted where it is received, to the command. Not fast, and not a
general initiator: no authentication, no digests, no recovery of a lost connection. A login that is sent elsewhere goes there.
Invariant: a command's result is reported once, and only with the status that the target sent.
"""

import os
import select
import socket
import struct
import time

BLOCK = 512
GOOD = 0x00
CHECK_CONDITION = 0x02

NOP_OUT, SCSI_COMMAND, LOGIN, DATA_OUT, LOGOUT = 0x00, 0x01, 0x03, 0x05, 0x06
NOP_IN, SCSI_RESPONSE, LOGIN_RESPONSE, DATA_IN, LOGOUT_RESPONSE, R2T, ASYNC, REJECT = 0x20, 0x21, 0x23, 0x25, 0x26, 0x31, 0x32, 0x3F
IMMEDIATE = 0x40
NO_TAG = 0xFFFFFFFF
FIRST_BURST = 65536
SEGMENT = 262144
REDIRECTS_MAX = 2


class InitiatorError(Exception):
    """The session is of no use any more; commands without a result have none."""


class AsyncMessage(InitiatorError):
    """RFC 7143 11.9: the target wants the session ended, or has ended it."""


class _Moved(Exception):
    """RFC 7143 11.13.5: the target is at another address, for now."""


class Done:
    """The end of one command."""

    def __init__(self, tag, status, sense, data):
        self.tag, self.status, self.sense, self.data = tag, status, sense, data

    def __str__(self):
        if self.status == CHECK_CONDITION and len(self.sense) >= 14:
            return f"CHECK CONDITION, key {self.sense[2] & 15:x}h, ASC/Q {self.sense[12]:02x}h/{self.sense[13]:02x}h"
        return f"status {self.status:02x}h"


class _Command:
    def __init__(self, out, in_bytes):
        self.out, self.sent = out, 0
        self.data = bytearray(in_bytes)


def _portal_of(data):
    """RFC 7143 13.8: TargetAddress is domain or address[:port][,group], an IPv6 address in brackets."""
    for pair in data.decode().split("\0"):
        if pair.startswith("TargetAddress="):
            portal = pair.partition("=")[2].partition(",")[0]
            address, _, port = portal.rpartition(":") if not portal.endswith("]") and ":" in portal else (portal, "", "3260")
            return address.strip("[]"), int(port)
    raise InitiatorError("the login is sent elsewhere, and nobody says where")


class Initiator:
    def __init__(self, address, port, iqn, name="iqn.2026-11.org.example:tour", timeout_s=20, isid=None):
        """`isid`, 6 bytes: a session of the same name and ISID takes the place of the one before (RFC 7143 6.3.5). None: random."""
        self.timeout_s = timeout_s
        self._isid = isid or b"\x80" + os.urandom(3) + b"\0\0"
        self._received = bytearray()
        self._commands = {}
        self._done = []
        self._next_tag = 1
        self._cmd_sn = 1
        self._exp_stat_sn = 0
        self._max_cmd_sn = 1
        self._segment_out = 8192
        self._first_burst = FIRST_BURST
        self._immediate = True
        for _ in range(REDIRECTS_MAX + 1):
            try:
                self._socket = socket.create_connection((address, port), timeout_s)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._log_in(name, iqn)
                return self._until_ready()
            except _Moved as moved:
                self.close()
                address, port = moved.args
            except OSError as problem:
                raise InitiatorError(f"{address}:{port}: {problem}") from problem
        raise InitiatorError("the login is sent from one node to the other")

    # -- what the tour uses

    def in_flight(self):
        return len(self._commands)

    def has_room(self):
        """The command window of RFC 7143 4.2.2.1 is open; serial numbers wrap."""
        return 0 < (self._max_cmd_sn - self._cmd_sn + 1) & 0xFFFFFFFF < 1 << 31

    def write(self, lba, data):
        """WRITE(16), SBC-3 5.36. Returns the command's tag."""
        return self._submit(struct.pack(">BBQIBB", 0x8A, 0, lba, len(data) // BLOCK, 0, 0), out=data)

    def read(self, lba, blocks):
        """READ(16), SBC-3 5.15."""
        return self._submit(struct.pack(">BBQIBB", 0x88, 0, lba, blocks, 0, 0), in_bytes=blocks * BLOCK)

    def synchronize(self):
        """SYNCHRONIZE CACHE(16) of the whole unit, SBC-3 5.26."""
        return self._submit(struct.pack(">BBQIBB", 0x91, 0, 0, 0, 0, 0))

    def capacity_bytes(self):
        """READ CAPACITY(16), SBC-3 5.16. A unit attention that waits is taken first."""
        for _ in range(5):
            done = self.wait(self._submit(struct.pack(">BBQIBB", 0x9E, 0x10, 0, 32, 0, 0), in_bytes=32))
            if done.status == GOOD:
                last, block = struct.unpack_from(">QI", done.data)
                return (last + 1) * block
        raise InitiatorError(f"no capacity: {done}")

    def poll(self, timeout_s=0.0):
        """What has ended since. Raises when the connection is lost, but not before everything received was returned."""
        deadline = time.monotonic() + timeout_s
        while not self._done:
            left = deadline - time.monotonic()
            readable, _, _ = select.select([self._socket], [], [], max(0.0, left))
            if not readable:
                break
            self._receive()
        done, self._done = self._done, []
        return done

    def wait(self, tag):
        """The end of the one command in flight."""
        deadline = time.monotonic() + self.timeout_s
        while time.monotonic() < deadline:
            for done in self.poll(0.5):
                if done.tag == tag:
                    return done
        raise InitiatorError(f"no answer to a command within {self.timeout_s} s")

    def send_half_a_write(self, lba, data):
        """The head of a write and a part of its data: what a target sees of a command when the world ends around it."""
        pdu = self._command_pdu(struct.pack(">BBQIBB", 0x8A, 0, lba, len(data) // BLOCK, 0, 0), data, 0)
        self._send(pdu[:48 + (len(pdu) - 48) // 2])

    def log_out(self):
        """RFC 7143 11.14: closes the session."""
        self._send(struct.pack(">BB2xI8xIHxxII16x", LOGOUT | IMMEDIATE, 0x80, 0, self._tag(), 0, self._cmd_sn, self._exp_stat_sn))
        deadline = time.monotonic() + self.timeout_s
        try:
            while LOGOUT_RESPONSE not in self._receive():
                if time.monotonic() > deadline:
                    raise InitiatorError("no answer to the logout")
        finally:
            self.close()

    def close(self):
        self._socket.close()

    # -- the session

    def _tag(self):
        tag = self._next_tag
        self._next_tag += 1
        return tag

    def _log_in(self, name, iqn):
        """RFC 7143 6.3: no authentication, straight to the operational stage."""
        keys = [("InitiatorName", name), ("TargetName", iqn), ("SessionType", "Normal"), ("HeaderDigest", "None"),
                ("DataDigest", "None"), ("InitialR2T", "Yes"), ("ImmediateData", "Yes"), ("FirstBurstLength", FIRST_BURST),
                ("MaxBurstLength", SEGMENT), ("MaxRecvDataSegmentLength", SEGMENT), ("MaxOutstandingR2T", 1), ("MaxConnections", 1),
                ("DataPDUInOrder", "Yes"), ("DataSequenceInOrder", "Yes"), ("ErrorRecoveryLevel", 0)]
        text = b"".join(f"{key}={value}".encode() + b"\0" for key, value in keys)
        tag = self._tag()
        for _ in range(8):
            # CSG operational, NSG full feature, T (RFC 7143 11.12).
            self._send(struct.pack(">BBBB4s6sHIHxxII16x", LOGIN | IMMEDIATE, 0x87, 0, 0, struct.pack(">I", len(text)), self._isid, 0, tag, 0,
                                   self._cmd_sn, self._exp_stat_sn) + text + bytes(-len(text) % 4))
            head, data = self._read_pdu()
            if head[0] & 0x3F != LOGIN_RESPONSE:
                raise InitiatorError(f"the login was answered with opcode {head[0] & 0x3F:02x}h")
            if head[36] == 1:
                raise _Moved(*_portal_of(data))
            if head[36] != 0:
                raise InitiatorError(f"login refused, status {head[36]:02x}{head[37]:02x}h")
            self._exp_stat_sn = struct.unpack_from(">I", head, 24)[0] + 1
            self._max_cmd_sn = struct.unpack_from(">I", head, 32)[0]
            self._take_keys(data)
            if head[1] & 0x83 == 0x83:
                return
            text = b""
        raise InitiatorError("the login does not come to an end")

    def _take_keys(self, data):
        for pair in data.decode().split("\0"):
            key, _, value = pair.partition("=")
            if key == "MaxRecvDataSegmentLength":
                self._segment_out = int(value)
            elif key == "FirstBurstLength":
                self._first_burst = min(FIRST_BURST, int(value))
            elif key == "ImmediateData":
                self._immediate = value == "Yes"

    def _until_ready(self):
        """A fresh session begins with unit attentions (SPC-4 5.14)."""
        for _ in range(10):
            done = self.wait(self._submit(bytes(16)))
            if done.status == GOOD:
                return
        raise InitiatorError(f"the unit does not become ready: {done}")

    def _submit(self, cdb, out=b"", in_bytes=0):
        tag = self._next_tag
        pdu = self._command_pdu(cdb, out, in_bytes)
        command = _Command(out, in_bytes)
        command.sent = len(pdu) - 48
        self._commands[tag] = command
        self._send(pdu)
        return tag

    def _command_pdu(self, cdb, out, in_bytes):
        """RFC 7143 11.3."""
        immediate = out[:min(self._first_burst, self._segment_out)] if self._immediate else b""
        flags = 0x81 | (0x40 if in_bytes else 0) | (0x20 if out else 0)
        pdu = struct.pack(">BB2xIQIIII16s", SCSI_COMMAND, flags, len(immediate), 0, self._tag(), max(len(out), in_bytes), self._cmd_sn,
                          self._exp_stat_sn, cdb) + immediate
        self._cmd_sn = (self._cmd_sn + 1) & 0xFFFFFFFF
        return pdu

    def _send(self, pdu):
        try:
            self._socket.settimeout(self.timeout_s)
            self._socket.sendall(pdu)
        except OSError as problem:
            raise InitiatorError(f"connection lost: {problem}") from problem

    # -- what comes from the target

    def _receive(self):
        """Takes what there is; returns the opcodes of the PDUs it has worked off."""
        try:
            self._socket.settimeout(self.timeout_s)
            chunk = self._socket.recv(1 << 20)
        except OSError as problem:
            raise InitiatorError(f"connection lost: {problem}") from problem
        if not chunk:
            raise InitiatorError("connection closed by the target")
        self._received += chunk
        opcodes = set()
        while (pdu := self._take_pdu()) is not None:
            opcodes.add(self._on_pdu(*pdu))
        return opcodes

    def _take_pdu(self):
        if len(self._received) < 48:
            return None
        ahs, length = self._received[4] * 4, int.from_bytes(self._received[5:8], "big")
        end = 48 + ahs + length
        whole = end + (-length % 4)
        if len(self._received) < whole:
            return None
        head, data = bytes(self._received[:48]), bytes(self._received[48 + ahs:end])
        del self._received[:whole]
        return head, data

    def _read_pdu(self):
        while (pdu := self._take_pdu()) is None:
            self._socket.settimeout(self.timeout_s)
            chunk = self._socket.recv(65536)
            if not chunk:
                raise InitiatorError("connection closed by the target during login")
            self._received += chunk
        return pdu

    def _on_pdu(self, head, data):
        opcode = head[0] & 0x3F
        tag, transfer_tag, stat_sn, _, max_cmd_sn = struct.unpack_from(">IIIII", head, 16)
        self._max_cmd_sn = max_cmd_sn
        has_status = opcode in (SCSI_RESPONSE, LOGOUT_RESPONSE) or (opcode == DATA_IN and head[1] & 1)
        if has_status or (opcode == NOP_IN and tag != NO_TAG):
            self._exp_stat_sn = stat_sn + 1
        if opcode == NOP_IN and transfer_tag != NO_TAG:
            self._send(struct.pack(">BB6x8sIIII16x", NOP_OUT | IMMEDIATE, 0x80, head[8:16], NO_TAG, transfer_tag, self._cmd_sn, self._exp_stat_sn))
        elif opcode == R2T:
            self._answer_r2t(head, self._command_of(tag, opcode), tag, transfer_tag)
        elif opcode == DATA_IN:
            offset = struct.unpack_from(">I", head, 40)[0]
            self._command_of(tag, opcode).data[offset:offset + len(data)] = data
            if has_status:
                self._finish(tag, head[3], b"")
        elif opcode == SCSI_RESPONSE:
            self._command_of(tag, opcode)
            if head[2] != 0:
                raise InitiatorError(f"iSCSI response {head[2]:02x}h: the target failed")
            self._finish(tag, head[3], data[2:])
        elif opcode == ASYNC:
            raise AsyncMessage(f"asynchronous message, event {head[36]}")
        elif opcode == REJECT:
            raise InitiatorError(f"the target rejected a PDU: reason {head[2]:02x}h")
        return opcode

    def _command_of(self, tag, opcode):
        if tag not in self._commands:
            raise InitiatorError(f"opcode {opcode:02x}h for tag {tag}, which is not in flight")
        return self._commands[tag]

    def _finish(self, tag, status, sense):
        command = self._commands.pop(tag)
        self._done.append(Done(tag, status, sense, bytes(command.data)))

    def _answer_r2t(self, head, command, tag, transfer_tag):
        """RFC 7143 11.8: exactly what was asked for, in order."""
        offset, length = struct.unpack_from(">II", head, 40)
        end = offset + length
        number = 0
        while offset < end:
            piece = command.out[offset:min(end, offset + self._segment_out)]
            is_last = offset + len(piece) == end
            self._send(struct.pack(">BB2xI8sIIIIIIII", DATA_OUT, 0x80 if is_last else 0, len(piece), head[8:16], tag, transfer_tag, 0,
                                   self._exp_stat_sn, 0, number, offset, 0) + piece)
            offset += len(piece)
            number += 1
