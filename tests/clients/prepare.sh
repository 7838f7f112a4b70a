# Builds what clients need besides their packages; runs in the root, whose /opt/clients it fills.
set -e
cd /opt/clients
umask 077
mkdir -p bin keys
musl-gcc -static -O2 -o bin/musl resolve.c
gcc -O2 -I/usr/include/lwip -o bin/lwip lwip.c -llwip -lpthread
export HOME=/tmp CGO_ENABLED=0
go build -o bin/go resolve.go
GO111MODULE=off GOPATH=/usr/share/gocode go build -o bin/gvisor gvisor.go

cd keys
[ -f ssh ] || ssh-keygen -q -t ed25519 -N '' -f ssh
for name in wireguard wireguard-0 wireguard-1 wireguard-2 wireguard-3 wireguard-4; do
    [ -f $name ] || wg genkey > $name
done
certificate() {
    [ -f "$1.crt" ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
        -days 3650 -subj "/CN=$1" -keyout "$1.key" -out "$1.crt" 2> /dev/null
    echo "peer-fingerprint $(openssl x509 -in "$1.crt" -noout -fingerprint -sha256 | cut -d= -f2)" \
        > "$2.peer"
}
certificate server client
certificate client server
