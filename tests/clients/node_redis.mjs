// node-redis by its defaults: what its users do, and then INCR until standard input ends.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const { createClient } = createRequire(`${process.argv[3]}/`)("redis");
const url = `redis://${process.argv[2]}`;

async function tour(client) {
  assert.equal(await client.ping(), "PONG");
  await client.flushAll();
  assert.equal(await client.set("key", "value", { EX: 100 }), "OK");
  assert.equal(await client.set("key", "other", { NX: true }), null);
  assert.ok((await client.ttl("key")) > 90);
  assert.equal(await client.getDel("key"), "value");
  assert.deepEqual(await client.multi().set("a", "1").incr("a").get("a").exec(), ["OK", 2, "2"]);
  await client.watch("a");
  await client.duplicate().connect().then(async (other) => {
    await other.set("a", "10");
    await other.close();
  });
  await assert.rejects(client.multi().incr("a").exec(), /watched keys/i);
  assert.equal(await client.hSet("hash", { f: "1", g: "two" }), 2);
  assert.deepEqual({ ...(await client.hGetAll("hash")) }, { f: "1", g: "two" });
  assert.equal(await client.sAdd("set", ["m", "n"]), 2);
  assert.deepEqual([...(await client.sMembers("set"))].sort(), ["m", "n"]);
  assert.equal(await client.zAdd("board", [{ score: 1.5, value: "ann" }, { score: 3, value: "bob" }]), 2);
  assert.equal(await client.zScore("board", "ann"), 1.5);
  assert.deepEqual({ ...(await client.zPopMin("board")) }, { score: 1.5, value: "ann" });
  assert.equal(await client.lPush("list", ["x", "y"]), 2);
  assert.deepEqual(await client.lRange("list", 0, -1), ["y", "x"]);
  const found = [];
  for await (const keys of client.scanIterator()) found.push(...[keys].flat());
  assert.deepEqual(found.sort(), ["a", "board", "hash", "list", "set"]);
  assert.match(await client.info(), /redis_mode:standalone/);
  const other = createClient({ url: `${url}/7`, name: "seventh" });
  await other.connect();
  assert.equal(await other.dbSize(), 0);
  const seventh = (await client.clientList()).find((one) => one.name === "seventh");
  assert.equal(seventh.db, 7);
  await other.close();
}

const client = createClient({ url });
client.on("error", (error) => console.error(String(error)));
await client.connect();
await tour(client);
const identity = await client.clientId();
let enough = false;
process.stdin.on("end", () => (enough = true)).resume();
let value = 0;
while (!enough) {
  const last = value;
  value = await client.incr("counter");
  assert.equal(value, last + 1);
  if (value % 100 === 0) console.log("at", value);
}
assert.equal(await client.clientId(), identity, "it connected anew");
console.log("counted", value);
await client.close();
