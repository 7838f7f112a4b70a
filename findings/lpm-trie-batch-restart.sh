#!/bin/bash
# Linux: a longest-prefix map that is read in batches (BPF_MAP_LOOKUP_BATCH) begins anew, without a word,
# if the key at which a batch ended is removed before the next one. The reader gets all entries so far a
# second time, and a map that changes often may keep it busy for long. A guess from hash maps, whose
# batches go on at a bucket and return each entry once, is wrong: a reader of such a map has to drop
# duplicates, and to bound how much it reads.
#
# Seen on Linux 6.18: 100 entries, read ten at a time. Where the last key of the third batch was removed,
# 129 entries came back, 29 of them twice; without that 100, each once. A hash map of the same entries
# returned none twice in either case.
#
# Root. Exit 0: as described; 1: it has changed; 2: it cannot run here.
set -euo pipefail

[[ $(id -u) == 0 ]] || { echo "needs root" >&2; exit 2; }

exec python3 - <<'PYTHON'
import collections, ctypes, os, struct, sys

ENTRIES, BATCH = 100, 10
HASH, LPM_TRIE, NO_PREALLOC = 1, 11, 1
MAP_CREATE, UPDATE, DELETE, LOOKUP_BATCH, ENOENT = 0, 2, 3, 24, 2
NUMBERS = {"x86_64": 321, "aarch64": 280}
number = NUMBERS.get(os.uname().machine)
if number is None:
    print("the number of bpf(2) on this machine is not known", file=sys.stderr)
    sys.exit(2)
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = libc.syscall(number, command, buffer, len(attributes))
    return result, ctypes.get_errno(), buffer.raw


def address(buffer):
    return ctypes.addressof(buffer)


def make(kind):
    map_, error, _ = bpf(MAP_CREATE, struct.pack("=IIIII", kind, 8, 8, 1000, NO_PREALLOC))
    if map_ < 0:
        print(f"cannot make a map: {os.strerror(error)}", file=sys.stderr)
        sys.exit(2)
    for entry in range(ENTRIES):
        # struct bpf_lpm_trie_key: prefix length, address.
        key = ctypes.create_string_buffer(struct.pack("=I", 32) + bytes([192, 0, 2, entry]), 8)
        value = ctypes.create_string_buffer(8)
        assert bpf(UPDATE, struct.pack("=IIQQQ", map_, 0, address(key), address(value), 0))[0] == 0
    return map_


def read(map_, removes):
    """How often each key came back; after the third batch its last key may be removed."""
    seen, from_, to = collections.Counter(), None, ctypes.create_string_buffer(8)
    keys, values = (ctypes.create_string_buffer(8 * ENTRIES) for _ in range(2))
    for batch in range(10 * ENTRIES):
        attributes = struct.pack("=QQQQIIQQ", address(from_) if from_ else 0, address(to), address(keys),
                                 address(values), BATCH, map_, 0, 0)
        result, error, after = bpf(LOOKUP_BATCH, attributes)
        (count,) = struct.unpack_from("=I", after, 32)
        last = [keys.raw[8 * entry:8 * entry + 8] for entry in range(count)]
        seen.update(last)
        if result < 0:
            assert error == ENOENT, os.strerror(error)
            return seen
        from_ = ctypes.create_string_buffer(to.raw, 8)
        if removes and batch == 2:
            gone = ctypes.create_string_buffer(last[-1], 8)
            assert bpf(DELETE, struct.pack("=IIQ", map_, 0, address(gone)))[0] == 0
    return seen


twice = {}
for name, kind in [("longest-prefix map", LPM_TRIE), ("hash map", HASH)]:
    for removes in [False, True]:
        seen = read(make(kind), removes)
        twice[name, removes] = sum(count > 1 for count in seen.values())
        what = "a key removed in between" if removes else "undisturbed"
        print(f"{name}, {what}: {seen.total()} entries, {twice[name, removes]} of them twice")
expected = all((count > 0) == (case == ("longest-prefix map", True)) for case, count in twice.items())
sys.exit(0 if expected else 1)
PYTHON
