"""coredis and valkey-glide by their defaults, which begin with HELLO 3."""

import asyncio
import sys

import coredis
import glide

HOST = sys.argv[1]


async def with_coredis():
    async with coredis.Redis(host=HOST, port=6379) as client:
        assert await client.ping() == b"PONG"
        assert await client.set("coredis", "here") and await client.get("coredis") == b"here"
        assert await client.hset("co:hash", {"f": "v"}) == 1
        assert await client.hgetall("co:hash") == {b"f": b"v"}
        assert await client.incr("co:count") == 1
    print("coredis: done", flush=True)


async def with_glide():
    addresses = [glide.NodeAddress(HOST, 6379)]
    client = await glide.GlideClient.create(glide.GlideClientConfiguration(addresses))
    assert await client.ping() == b"PONG"
    assert await client.set("glide", "here") == "OK" and await client.get("glide") == b"here"
    assert await client.hset("gl:hash", {"f": "v"}) == 1
    assert await client.hgetall("gl:hash") == {b"f": b"v"}
    assert await client.incr("gl:count") == 1
    await client.close()
    print("valkey-glide: done", flush=True)


asyncio.run(with_coredis())
asyncio.run(with_glide())
