/* An HTTP request over lwIP's TCP as Debian builds it, out of the TUN device tun0. */
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <lwip/api.h>
#include <lwip/netif.h>
#include <lwip/pbuf.h>
#include <lwip/tcpip.h>

static int tun;

static err_t send_packet(struct netif *netif, struct pbuf *packet, const ip4_addr_t *to)
{
    char bytes[2048];
    u16_t length = pbuf_copy_partial(packet, bytes, sizeof bytes, 0);
    return write(tun, bytes, length) == length ? ERR_OK : ERR_IF;
}

static err_t set_up(struct netif *netif)
{
    netif->name[0] = 't';
    netif->name[1] = 'n';
    netif->output = send_packet;
    netif->mtu = 1500;
    return ERR_OK;
}

static void *receive(void *argument)
{
    struct netif *netif = argument;
    char bytes[2048];
    ssize_t length;
    while ((length = read(tun, bytes, sizeof bytes)) > 0) {
        struct pbuf *packet = pbuf_alloc(PBUF_RAW, length, PBUF_RAM);
        if (packet == NULL)
            continue;
        pbuf_take(packet, bytes, length);
        if (netif->input(packet, netif) != ERR_OK)
            pbuf_free(packet);
    }
    return NULL;
}

static int fail(const char *what)
{
    puts(what);
    return 1;
}

int main(int count, char **arguments)
{
    static struct netif netif;
    struct ifreq request = {.ifr_name = "tun0", .ifr_flags = IFF_TUN | IFF_NO_PI};
    ip4_addr_t ours, mask, server;
    if (count < 3 || !ip4addr_aton(arguments[1], &ours) || !ip4addr_aton(arguments[2], &server))
        return fail("our address and the server's are missing");
    tun = open("/dev/net/tun", O_RDWR);
    if (tun < 0 || ioctl(tun, TUNSETIFF, &request) < 0)
        return fail("there is no tun0");

    tcpip_init(NULL, NULL);
    IP4_ADDR(&mask, 255, 255, 255, 255);
    LOCK_TCPIP_CORE();
    netif_add(&netif, &ours, &mask, &ours, NULL, set_up, tcpip_input);
    netif_set_default(&netif);
    netif_set_link_up(&netif);
    netif_set_up(&netif);
    UNLOCK_TCPIP_CORE();
    pthread_t receiver;
    pthread_create(&receiver, NULL, receive, &netif);

    struct netconn *connection = netconn_new(NETCONN_TCP);
    ip_addr_t to;
    ip_addr_copy_from_ip4(to, server);
    err_t error = netconn_connect(connection, &to, 80);
    if (error != ERR_OK)
        return fail(lwip_strerr(error));
    static const char get[] = "GET / HTTP/1.0\r\n\r\n";
    netconn_write(connection, get, sizeof get - 1, NETCONN_COPY);
    struct netbuf *answer;
    error = netconn_recv(connection, &answer);
    return error == ERR_OK ? 0 : fail(lwip_strerr(error));
}
