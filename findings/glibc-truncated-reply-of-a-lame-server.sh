#!/bin/bash
# glibc asks again over TCP after a truncated DNS reply only if that reply says that recursion is available
# (RA), or that it is authoritative (AA), or has an additional record, such as that of EDNS. Without any of
# these, a reply without records is taken for the referral of a lame server, before anybody looks at the bit
# TC: getaddrinfo tries the next server, and fails at once with EAI_AGAIN if there is none. A guess that
# QR, the question and TC=1 are enough for whoever answers from a cookie or a rate limit to send a resolver
# to TCP is wrong: such a reply ends the lookup.
#
# Seen with glibc 2.36 (Debian 12): flags 0x8200 (QR, TC) and 0x8300 (and RD): EAI_AGAIN in less than a second,
# no connection; 0x8280 (RA), 0x8600 (AA), and 0x8200 with a record of EDNS: resolved over TCP.
#
# Root, on Debian 12 on x86-64: network and mount namespaces of its own. Exit 0: as described; 1: it has changed;
# 2: it cannot run here.
set -euo pipefail

[[ $(id -u) == 0 ]] || { echo "needs root for namespaces" >&2; exit 2; }
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
apt-get -qq -o APT::Sandbox::User=root download libc6=2.36-9+deb12u14 ||
    { echo "needs the packages of Debian 12" >&2; exit 2; }
dpkg -x libc6_*.deb unpacked

cat >resolve.py <<'PYTHON'
import ctypes, struct

libc = ctypes.CDLL("libc.so.6")
found = ctypes.c_void_p()
# struct addrinfo: flags, AF_INET, SOCK_STREAM
hints = ctypes.create_string_buffer(struct.pack("=iii", 0, 2, 1), 48)
error = libc.getaddrinfo(b"www.example.net", b"80", hints, ctypes.byref(found))
libc.gnu_get_libc_version.restype = ctypes.c_char_p
print({0: "resolved", -2: "EAI_NONAME", -3: "EAI_AGAIN"}.get(error, error), libc.gnu_get_libc_version().decode())
PYTHON

# Truncates every reply over UDP, with the flags that it is told, and says over TCP that the name is at 192.0.2.80.
cat >ask.py <<'PYTHON'
import socket, struct, subprocess, sys, threading, time

def truncate(server, flags, edns):
    while True:
        query, client = server.recvfrom(512)
        end = query.index(b"\0", 12) + 5
        counts = struct.pack(">4H", 1, 0, 0, 1 if edns else 0)
        server.sendto(query[:2] + struct.pack(">H", flags) + counts + query[12:end] + edns, client)

def serve(server, connections):
    while True:
        connection, _ = server.accept()
        connections.append(1)
        (length,) = struct.unpack(">H", connection.recv(2, socket.MSG_WAITALL))
        query = connection.recv(length, socket.MSG_WAITALL)
        end = query.index(b"\0", 12) + 5
        address = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\x50"
        reply = query[:2] + b"\x84\x80\0\1\0\1" + bytes(4) + query[12:end] + address
        connection.sendall(struct.pack(">H", len(reply)) + reply)

flags, edns = int(sys.argv[1], 16), b"\0\0\x29\4\xd0" + bytes(6) if sys.argv[2] == "edns" else b""
udp, tcp, connections = socket.socket(type=socket.SOCK_DGRAM), socket.socket(), []
udp.bind(("127.0.0.1", 53))
tcp.bind(("127.0.0.1", 53))
tcp.listen()
threading.Thread(target=truncate, args=(udp, flags, edns), daemon=True).start()
threading.Thread(target=serve, args=(tcp, connections), daemon=True).start()
began = time.monotonic()
said = subprocess.run(sys.argv[3:], capture_output=True, text=True, timeout=30).stdout.strip()
soon = "soon" if time.monotonic() - began < 1 else "late"
print(said, soon, "tcp" if connections else "no-tcp")
PYTHON

echo "nameserver 127.0.0.1" >resolv.conf
echo "hosts: dns" >nsswitch.conf
cat >trial <<'BASH'
set -euo pipefail
ip link set lo up
for file in resolv.conf nsswitch.conf; do mount --bind "$file" "$(readlink -f "/etc/$file")"; done
libraries=$PWD/unpacked/lib/x86_64-linux-gnu
python3 ask.py "$1" "$2" "$libraries/ld-linux-x86-64.so.2" \
    --library-path "$libraries:/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu" "$(readlink -f /usr/bin/python3)" resolve.py
BASH
seen=()
for reply in "8200 plain" "8300 plain" "8280 plain" "8600 plain" "8200 edns"; do
    read -r flags edns <<<"$reply"
    seen+=("$(unshare --net --mount bash trial "$flags" "$edns")")
    echo "flags 0x$flags, $edns: ${seen[-1]}"
done
lame="EAI_AGAIN 2.36 soon no-tcp" told="resolved 2.36 soon tcp"
[[ "$(IFS=,; echo "${seen[*]}")" == "$lame,$lame,$told,$told,$told" ]] || { echo "this differs from what was seen" >&2; exit 1; }
