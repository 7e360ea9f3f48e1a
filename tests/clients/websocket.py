#!/usr/bin/python3
# A WebSocket server over TLS that sends back what it receives, and a client that tests it.
#
# usage: websocket.py serve SOCKET CERTIFICATE KEY
#        websocket.py ask CA NAME PORT    at 127.0.0.1
import asyncio
import ssl
import sys

import websockets


async def say_back(websocket):
    async for message in websocket:
        await websocket.send(message)


async def serve(path, certificate, key):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    async with websockets.unix_serve(say_back, path, ssl=context):
        print("listening", flush=True)
        await asyncio.Future()


async def ask(authority, name, port):
    context = ssl.create_default_context(cafile=authority)
    uri = f"wss://{name}:{port}/"
    async with websockets.connect(
        uri, host="127.0.0.1", port=int(port), ssl=context, server_hostname=name
    ) as websocket:
        for message in "hello", "x" * 200000, b"\0" * 70000:
            await websocket.send(message)
            if await websocket.recv() != message:
                sys.exit("another message came back")
        await websocket.ping()
    print("said back")


asyncio.run({"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:]))
