# Runs a program for which epoll_ctl(…, EPOLL_CTL_ADD, descriptor, …) fails with ENOSPC from descriptor 64 on.
import ctypes, errno, os, platform, struct, sys

number, architecture = {"x86_64": (233, 0xC000003E), "aarch64": (21, 0xC00000B7)}[platform.machine()]
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000 | errno.ENOSPC
program = [
    (LOAD, 0, 0, 4), (EQUAL, 0, 7, architecture),
    (LOAD, 0, 0, 0), (EQUAL, 0, 5, number),
    (LOAD, 0, 0, 16 + 8), (EQUAL, 0, 3, 1),
    (LOAD, 0, 0, 16 + 16), (AT_LEAST, 0, 1, 64),
    (RETURN, 0, 0, FAIL), (RETURN, 0, 0, ALLOW),
]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
filter = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
prctl = ctypes.CDLL(None, use_errno=True).prctl
if prctl(38, 1, 0, 0, 0) or prctl(22, 2, ctypes.byref(filter), 0, 0):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.argv[1], sys.argv[1:])
