// An HTTP request over the TCP of gVisor's netstack with its own defaults, out of the TUN device
// tun0.
package main

import (
	"fmt"
	"net"
	"os"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/link/tun"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

func main() {
	if err := ask(os.Args[1], os.Args[2]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func ask(ours, server string) error {
	descriptor, err := tun.Open("tun0")
	if err != nil {
		return err
	}
	link, err := fdbased.New(&fdbased.Options{FDs: []int{descriptor}, MTU: 1500})
	if err != nil {
		return err
	}
	network := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	if err := network.CreateNIC(1, link); err != nil {
		return fmt.Errorf("cannot make an interface: %s", err)
	}
	address := tcpip.ProtocolAddress{
		Protocol:          ipv4.ProtocolNumber,
		AddressWithPrefix: parse(ours).WithPrefix(),
	}
	if err := network.AddProtocolAddress(1, address, stack.AddressProperties{}); err != nil {
		return fmt.Errorf("cannot take the address: %s", err)
	}
	network.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: 1}})

	to := tcpip.FullAddress{NIC: 1, Addr: parse(server), Port: 80}
	connection, err := gonet.DialTCP(network, to, ipv4.ProtocolNumber)
	if err != nil {
		return err
	}
	if _, err := connection.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
		return err
	}
	_, err = connection.Read(make([]byte, 1500))
	return err
}

func parse(address string) tcpip.Address {
	return tcpip.Address(net.ParseIP(address).To4())
}
