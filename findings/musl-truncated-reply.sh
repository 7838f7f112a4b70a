#!/bin/bash
# musl 1.2.3 takes a truncated DNS reply without records for the whole answer: getaddrinfo fails at
# once with EAI_NONAME, the error for names that do not exist. It neither asks over TCP, which it never
# does, nor asks again over UDP, as it would (after 2.5 s) if it had no reply at all. So whoever answers
# by TC=1 to make a resolver prove its address must expect that such a client, Alpine up to 3.17 for
# example, tells its user that there is no such name. The guess that it waits and asks again is wrong.
#
# Seen on x86-64 with the musl in ziglang 0.10.1.post1 (1.2.3): EAI_NONAME after less than 0.1 s, no
# connection. With the musl in ziglang 0.13.0 (1.2.5): resolved over TCP.
#
# Root: network and mount namespaces of its own. Exit 0: as described; 1: it has changed; 2: it cannot
# run here.
set -euo pipefail

[[ $(id -u) == 0 ]] || { echo "needs root for namespaces" >&2; exit 2; }
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT

cat >"$directory/resolve.c" <<'C'
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

int main(void)
{
	struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *found;
	int error = getaddrinfo("www.example.net", "80", &hints, &found);
	puts(error == 0 ? "resolved" : error == EAI_NONAME ? "EAI_NONAME" : gai_strerror(error));
	return 0;
}
C

# Truncates every reply over UDP, and says over TCP that the name is at 192.0.2.80.
cat >"$directory/ask.py" <<'PYTHON'
import socket, struct, subprocess, sys, threading, time

def flags(query, set):
    return query[:2] + struct.pack(">H", struct.unpack(">H", query[2:4])[0] | set)

def truncate(server):
    while True:
        query, client = server.recvfrom(512)
        server.sendto(flags(query, 0x8600) + query[4:], client)

def serve(server, connections):
    while True:
        connection, _ = server.accept()
        connections.append(1)
        (length,) = struct.unpack(">H", connection.recv(2, socket.MSG_WAITALL))
        query = connection.recv(length, socket.MSG_WAITALL)
        address = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\x50"
        reply = flags(query, 0x8480) + b"\0\1\0\1\0\0\0\0" + query[12:] + address
        connection.sendall(struct.pack(">H", len(reply)) + reply)

udp, tcp, connections = socket.socket(type=socket.SOCK_DGRAM), socket.socket(), []
udp.bind(("127.0.0.1", 53))
tcp.bind(("127.0.0.1", 53))
tcp.listen()
threading.Thread(target=truncate, args=(udp,), daemon=True).start()
threading.Thread(target=serve, args=(tcp, connections), daemon=True).start()
began = time.monotonic()
said = subprocess.run([sys.argv[1]], capture_output=True, text=True, timeout=30).stdout.strip()
soon = "soon" if time.monotonic() - began < 1 else "late"
print(said, soon, "tcp" if connections else "no-tcp")
PYTHON

python3 -m venv "$directory/venv"
echo "nameserver 127.0.0.1" >"$directory/resolv.conf"
seen=()
for version in 0.10.1.post1 0.13.0; do
	"$directory/venv/bin/pip" -q install "ziglang==$version"
	ZIG_GLOBAL_CACHE_DIR="$directory/cache-$version" "$directory/venv/bin/python" -m ziglang cc -target x86_64-linux-musl -static -O1 -o "$directory/resolve" "$directory/resolve.c"
	seen+=("$(unshare --net --mount sh -ec '
		ip link set lo up
		mount --bind "$1/resolv.conf" "$(readlink -f /etc/resolv.conf)"
		exec "$1/venv/bin/python" "$1/ask.py" "$1/resolve"' sh "$directory")")
done
echo "musl 1.2.3: ${seen[0]}; musl 1.2.5: ${seen[1]}"
[[ ${seen[0]} == "EAI_NONAME soon no-tcp" && ${seen[1]} == "resolved soon tcp" ]]
