// ioredis by its defaults: what its users do, and then INCR until standard input ends.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const { Redis } = createRequire(`${process.argv[3]}/`)("ioredis");
const host = process.argv[2];

async function tour(client) {
  assert.equal(await client.ping(), "PONG");
  await client.flushall();
  assert.equal(await client.set("key", "value", "EX", 100), "OK");
  assert.equal(await client.set("key", "other", "NX"), null);
  assert.ok((await client.ttl("key")) > 90);
  assert.equal(await client.getdel("key"), "value");
  const results = await client.multi().set("a", 1).incr("a").get("a").exec();
  assert.deepEqual(results, [[null, "OK"], [null, 2], [null, "2"]]);
  assert.deepEqual(await client.pipeline().incr("a").get("none").exec(), [[null, 3], [null, null]]);
  assert.equal(await client.hset("hash", { f: 1, g: "two" }), 2);
  assert.deepEqual(await client.hgetall("hash"), { f: "1", g: "two" });
  assert.equal(await client.zadd("board", 1.5, "ann", 3, "bob"), 2);
  assert.deepEqual(await client.zrange("board", 0, -1, "WITHSCORES"), ["ann", "1.5", "bob", "3"]);
  assert.equal(await client.lpush("list", "x", "y"), 2);
  assert.deepEqual(await client.lrange("list", 0, -1), ["y", "x"]);
  const found = [];
  for await (const keys of client.scanStream()) found.push(...keys);
  assert.deepEqual(found.sort(), ["a", "board", "hash", "list"]);
  assert.equal((await client.command("INFO", "get"))[0][0], "get");
  const other = new Redis(6379, host, { db: 7, connectionName: "seventh" });
  assert.equal(await other.dbsize(), 0);
  assert.match(await client.client("LIST"), /name=seventh .*db=7 /);
  await other.quit();
}

const client = new Redis(6379, host);
client.on("error", (error) => console.error(String(error)));
await tour(client);
const identity = await client.client("ID");
let enough = false;
process.stdin.on("end", () => (enough = true)).resume();
let value = 0;
while (!enough) {
  const last = value;
  value = await client.incr("counter");
  assert.equal(value, last + 1);
  if (value % 100 === 0) console.log("at", value);
}
assert.equal(await client.client("ID"), identity, "it connected anew");
console.log("counted", value);
await client.quit();
