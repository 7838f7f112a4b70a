#!/usr/bin/env python3
"""A QUIC server and client of aioquic with its own defaults: one stream, sent back as it comes."""

import asyncio
import ssl
import sys

sys.path.insert(0, "/opt/python")

from aioquic.asyncio import connect, serve  # noqa: E402
from aioquic.quic.configuration import QuicConfiguration  # noqa: E402

PORT = 4433
ALPN = ["echo"]


async def server():
    configuration = QuicConfiguration(is_client=False, alpn_protocols=ALPN)
    configuration.load_cert_chain("/opt/clients/keys/server.crt", "/opt/clients/keys/server.key")

    async def echo(reader, writer):
        writer.write(await reader.read())
        writer.write_eof()

    def handle(reader, writer):
        asyncio.ensure_future(echo(reader, writer))

    await serve("0.0.0.0", PORT, configuration=configuration, stream_handler=handle)
    await asyncio.Event().wait()


async def client(address):
    configuration = QuicConfiguration(alpn_protocols=ALPN, verify_mode=ssl.CERT_NONE)
    async with connect(address, PORT, configuration=configuration) as connection:
        reader, writer = await connection.create_stream()
        writer.write(b"ping")
        writer.write_eof()
        return await reader.read() == b"ping"


if sys.argv[1] == "server":
    asyncio.run(server())
elif not asyncio.run(client(sys.argv[2])):
    sys.exit("another answer")
