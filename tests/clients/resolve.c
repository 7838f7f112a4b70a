/* Asks for the addresses of a name, as every program linked with this C library does. */
#include <netdb.h>
#include <stdio.h>

int main(int count, char **arguments)
{
    struct addrinfo *found;
    int error = getaddrinfo(count > 1 ? arguments[1] : "", NULL, NULL, &found);
    if (error)
        puts(gai_strerror(error));
    return error != 0;
}
