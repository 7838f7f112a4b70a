//! An HTTP request over smoltcp's TCP with its own defaults, out of the TUN device `tun0`.

use std::{env, error::Error, fs::File, io::Read as _, net::Ipv4Addr, os::fd::AsRawFd as _};

use smoltcp::{
    iface::{Config, Interface, SocketSet},
    phy::{Medium, TunTapInterface, wait},
    socket::tcp,
    time::Instant,
    wire::{HardwareAddress, IpCidr},
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut addresses = env::args().skip(1).map(|argument| argument.parse::<Ipv4Addr>());
    let ours = addresses.next().ok_or("our address is missing")??;
    let server = addresses.next().ok_or("the server's address is missing")??;
    let mut random = [0; 10];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let [seed @ .., high, low] = random;

    let mut device = TunTapInterface::new("tun0", Medium::Ip)?;
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = u64::from_ne_bytes(seed);
    let mut interface = Interface::new(config, &mut device, Instant::now());
    interface.update_ip_addrs(|list| {
        let _ = list.push(IpCidr::new(ours.into(), 32));
    });
    interface.routes_mut().add_default_ipv4_route(ours)?;

    let buffer = || tcp::SocketBuffer::new(vec![0; 65_536]);
    let mut sockets = SocketSet::new(Vec::new());
    let handle = sockets.add(tcp::Socket::new(buffer(), buffer()));
    let port = 49_152 + u16::from_ne_bytes([high, low]) % 16_384;
    sockets.get_mut::<tcp::Socket>(handle).connect(interface.context(), (server, 80), port)?;
    let mut asked = false;
    loop {
        interface.poll(Instant::now(), &mut device, &mut sockets);
        let socket = sockets.get_mut::<tcp::Socket>(handle);
        if socket.can_send() && !asked {
            socket.send_slice(b"GET / HTTP/1.0\r\n\r\n")?;
            asked = true;
        }
        if socket.can_recv() {
            let served = socket.recv(|bytes| (bytes.len(), bytes.starts_with(b"HTTP/")))?;
            return if served { Ok(()) } else { Err("another answer".into()) };
        }
        if !socket.is_open() {
            return Err("the connection was refused".into());
        }
        wait(device.as_raw_fd(), interface.poll_delay(Instant::now(), &sockets))?;
    }
}
