"""redis-py by its defaults: what its users do, and then INCR until standard input ends."""

import sys
import threading

import redis

HOST = sys.argv[1]


def tour(r):
    """Each thing once; the answers in the types that redis-py makes of them."""
    assert r.ping() is True
    r.flushall()
    assert r.set("key", "value", ex=100) is True
    assert r.set("key", "other", nx=True) is None
    assert r.set("key", "third", xx=True, get=True, keepttl=True) == b"value"
    assert 90 < r.ttl("key") <= 100 and 90_000 < r.pttl("key") <= 100_000
    assert r.persist("key") is True and r.ttl("key") == -1
    assert r.getrange("key", 1, 2) == b"hi" and r.getset("key", "x") == b"third"
    assert r.type("key") == b"string" and r.keys("k*") == [b"key"]
    assert r.getdel("key") == b"x" and r.get("key") is None

    with r.pipeline() as pipe:
        pipe.set("a", 1).incr("a").mget("a", "none").lpush("list", "x", "y")
        assert pipe.execute() == [True, 2, [b"2", None], 2]
    with r.pipeline() as pipe:
        pipe.watch("a")
        r.set("a", 10)
        pipe.multi()
        pipe.incr("a")
        try:
            pipe.execute()
            raise AssertionError("a watched key was changed")
        except redis.WatchError:
            pass
    assert r.transaction(lambda pipe: (pipe.multi(), pipe.incr("a")), "a") == [11]

    assert r.lrange("list", 0, -1) == [b"y", b"x"] and r.lpop("list") == b"y"
    assert r.hset("hash", mapping={"f": 1, "g": "two"}) == 2
    assert r.hgetall("hash") == {b"f": b"1", b"g": b"two"}
    assert r.sadd("set", "m", "n") == 2 and r.smembers("set") == {b"m", b"n"}
    assert r.zadd("board", {"ann": 1.5, "bob": 3}) == 2
    assert r.zscore("board", "ann") == 1.5 and r.zincrby("board", 2, "ann") == 3.5
    ranks = [tuple(pair) for pair in r.zrange("board", 0, -1, withscores=True)]
    assert ranks == [(b"bob", 3.0), (b"ann", 3.5)], ranks
    assert [tuple(pair) for pair in r.zpopmin("board", 1)] == [(b"bob", 3.0)]

    r.mset({f"many:{number}": number for number in range(100)})
    assert len(set(r.scan_iter("many:*"))) == 100
    assert dict(r.hscan_iter("hash")) == {b"f": b"1", b"g": b"two"}
    assert r.unlink("hash", "set", "board") == 3

    assert r.info()["redis_mode"] == "standalone" and r.info()["db0"]["keys"] > 100
    assert r.config_get("save") == {"save": ""}
    assert r.command_count() > 100 and "get" in r.command()
    other = redis.Redis(host=HOST, db=7, client_name="seventh", username="default", password="any")
    assert other.dbsize() == 0 and other.set("here", 1) and r.exists("here") == 0
    assert any(one["name"] == "seventh" and one["db"] == "7" for one in r.client_list())
    other.close()
    old = redis.Redis(host=HOST, protocol=2)
    assert old.hset("old", "f", "v") == 1 and old.hgetall("old") == {b"f": b"v"}
    old.close()
    try:
        redis.Redis(host=HOST, username="who", password="any").ping()
        raise AssertionError("a user that there is not")
    except redis.AuthenticationError:
        pass


def main():
    r = redis.Redis(host=HOST)
    tour(r)
    identity = r.client_id()
    enough = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), enough.set()), daemon=True).start()
    value = 0
    while not enough.is_set():
        last, value = value, r.incr("counter")
        assert value == last + 1, f"{value} came after {last}"
        if value % 100 == 0:
            print("at", value, flush=True)
    assert r.client_id() == identity, "it connected anew"
    print("counted", value, flush=True)


main()
