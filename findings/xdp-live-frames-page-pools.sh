#!/bin/bash
# Linux: a BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES makes a page pool for itself. If one of its
# frames is still on its way when the run ends, for example in the queue of a veth's peer, the pool is
# freed a second later by a worker of the kernel, which walks the list of all such pools first
# (mem_allocator_disconnect in net/core/xdp.c). A guess that many short runs cost what few long ones cost
# is wrong: four times as many within a second cost the worker more than eight times as much, their pages
# are not free until then, and whatever is measured next shares its processor with that worker. A pool
# whose frames have all come back by the end of the run is freed at once.
#
# Seen on Linux 6.18 with pyroute2 0.9.5, two CPUs, 64 frames a run, hundredths of a second of the
# kernel's workers: 17, 15 and 18 for 3,000 runs in three trials,
# 194, 168 and 250 for 12,000, and at most 1 for 12,000 whose program drops every frame.
#
# Root. Frames go through a veth pair in a network namespace of their own. Exit 0: as described; 1: it has
# changed; 2: it cannot run here.
set -euo pipefail

[[ $(id -u) == 0 && $(nproc) -gt 1 ]] || { echo "needs root and two CPUs" >&2; exit 2; }
directory=$(mktemp -d)
namespace=live-frames-$$
trap 'ip netns delete "$namespace" 2>/dev/null || true; rm -rf "$directory"' EXIT
python3 -m venv "$directory/venv"
"$directory/venv/bin/pip" -q install pyroute2==0.9.5
ip netns add "$namespace"

cat >"$directory/runs.py" <<'PYTHON'
import ctypes, os, pathlib, struct, sys, time
from pyroute2 import IPRoute

SYSCALL = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
PROG_LOAD, TEST_RUN, LIVE_FRAMES, XDP = 5, 10, 1 << 1, 6
DROP, TX, BATCH = 1, 3, 64
FEW, MANY = 3000, 12000
libc = ctypes.CDLL(None, use_errno=True)

def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, 144)
    result = libc.syscall(SYSCALL, command, buffer, len(buffer))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def program(verdict):
    code = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, verdict, 0x95, 0, 0, 0), 16)
    licence = ctypes.create_string_buffer(b"GPL")
    return bpf(PROG_LOAD, struct.pack("=IIQQ", XDP, 2, ctypes.addressof(code), ctypes.addressof(licence)))

def runs(fd, count, device):
    frame = ctypes.create_string_buffer(bytes(12) + b"\x88\xb5" + bytes(46), 60)
    context = ctypes.create_string_buffer(struct.pack("=6I", 0, 60, 0, device, 0, 0), 24)
    attributes = struct.pack("=IIIIQQIIIIQQIII", fd, 0, 60, 0, ctypes.addressof(frame), 0, BATCH, 0,
                             24, 0, ctypes.addressof(context), 0, LIVE_FRAMES, 0, BATCH)
    for _ in range(count):
        bpf(TEST_RUN, attributes)

def workers():
    ticks = 0
    for entry in pathlib.Path("/proc").iterdir():
        try:
            name, _, rest = (entry / "stat").read_text().rpartition(")")
        except OSError:
            continue
        if entry.name.isdigit() and "(kworker/" in name:
            fields = rest.split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks

def cost(fd, count, device):
    before = workers()
    runs(fd, count, device)
    quiet = 0
    while quiet < 3:  # the worker tries again every second
        last = workers()
        time.sleep(1)
        quiet = quiet + 1 if workers() - last < 3 else 0
    return workers() - before

with IPRoute() as ip:
    ip.link("add", ifname="from0", kind="veth", peer={"ifname": "to0"})
    indexes = {name: ip.link_lookup(ifname=name)[0] for name in ("from0", "to0")}
    drop, send = program(DROP), program(TX)
    # A program that is attached need not be entered into the dispatcher for each run; and a veth takes
    # frames of XDP only while its peer has a program. The device that runs are of sends, to0 receives.
    held = program(2)
    for name in indexes:
        ip.link("set", index=indexes[name], xdp_fd=send if name == "from0" else held, state="up")
    pathlib.Path("/sys/class/net/to0/threaded").write_text("1")
    time.sleep(1)
    few, many = cost(send, FEW, indexes["from0"]), cost(send, MANY, indexes["from0"])
    ip.link("set", index=indexes["from0"], xdp_fd=drop)
    dropped = cost(drop, MANY, indexes["from0"])
print(f"{FEW} runs that send: {few}; {MANY}: {many}; {MANY} that send nothing: {dropped}")
sys.exit(not (many > 8 * few and many > 8 * dropped))
PYTHON
ip netns exec "$namespace" "$directory/venv/bin/python" "$directory/runs.py"
