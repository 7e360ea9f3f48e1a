#!/usr/bin/python3
# Between sniproxy and a backend: passes connections on, and writes a line for each about the
# ClientHello that has arrived: its length in bytes, the groups of its key_share (RFC 8446, 4.2.8)
# in hexadecimal, and "ech" if it has an encrypted_client_hello (RFC 9849).
#
# usage: record.py SOCKET BACKEND-SOCKET    the lines go to stdout
import asyncio
import sys


def describe(hello):
    """Returns the line for a ClientHello, which has no handshake header."""
    at = 34  # legacy_version, random
    at += 1 + hello[at]  # legacy_session_id
    at += 2 + int.from_bytes(hello[at : at + 2], "big")  # cipher_suites
    at += 1 + hello[at]  # legacy_compression_methods
    at += 2
    while at < len(hello):
        kind = int.from_bytes(hello[at : at + 2], "big")
        end = at + 4 + int.from_bytes(hello[at + 2 : at + 4], "big")
        if kind == 51:
            at += 6
            while at < end:
                yield hello[at : at + 2].hex()
                at += 4 + int.from_bytes(hello[at + 2 : at + 4], "big")
        if kind == 0xFE0D:
            yield "ech"
        at = end


async def read_hello(reader):
    """The bytes of the records with the ClientHello, and it."""
    received = message = b""
    while len(message) < 4 or len(message) < 4 + int.from_bytes(message[1:4], "big"):
        header = await reader.readexactly(5)
        fragment = await reader.readexactly(int.from_bytes(header[3:], "big"))
        received += header + fragment
        message += fragment
    return received, message[4:]


async def pass_on(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()


async def serve(reader, writer):
    try:
        received, hello = await read_hello(reader)
    except (OSError, asyncio.IncompleteReadError):
        return writer.close()
    print(len(hello), *describe(hello), flush=True)
    reply, backend = await asyncio.open_unix_connection(sys.argv[2])
    backend.write(received)
    await asyncio.gather(pass_on(reader, backend), pass_on(reply, writer))
    backend.close()
    writer.close()


async def main():
    async with await asyncio.start_unix_server(serve, sys.argv[1]) as server:
        await server.serve_forever()


asyncio.run(main())
