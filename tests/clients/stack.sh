# Gives this client's address to a TCP stack in user space behind the TUN device tun0.
ip tuntap add mode tun name tun0 2> /dev/null || true
ip link set tun0 up
# The way out is bound to the address, and goes with it.
gateway=$(ip route show default | cut -d' ' -f3)
ip address delete $ADDRESS/32 dev eth0
ip route replace default via $gateway dev eth0 onlink
ip route replace $ADDRESS/32 dev tun0
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv4/conf/eth0/proxy_arp
# An answer to a broadcast request would wait for up to 0.8 s.
echo 0 > /proc/sys/net/ipv4/neigh/eth0/proxy_delay
