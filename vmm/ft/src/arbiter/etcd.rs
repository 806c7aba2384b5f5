//! `etcd:http://HOST:PORT`: records as keys of an etcd cluster, for hosts that share no file system.
//!
//! It uses etcd's JSON gateway (v3 API, 3.4 and later). A transaction creates a record: it compares the
//! key's create revision with 0, and otherwise reads the key. Reads are linearizable, which is etcd's
//! default.

mod client;

pub use client::{AccessError, EtcdAccess};

use super::{Arbiter, Unreachable, UrlError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Client, REQUEST_LIMIT};
use ft_protocol::arbiter::RecordName;
use serde_json::{Value, json};
use std::fmt::Display;
use std::time::Duration;

/// The prefix of all keys.
const PREFIX: &str = "lockstep/";

/// An arbiter in etcd.
pub struct EtcdArbiter {
    client: Client,
}

/// Parses the part of a URL after `etcd:`: one or more endpoints, separated by commas.
pub fn parse_endpoints(text: &str) -> Result<Vec<String>, UrlError> {
    let endpoint = |url: &str| {
        let (scheme, host) = url.split_once("://")?;
        let host = host.trim_end_matches('/');
        let good = !host.is_empty() && !host.contains(['/', ' ', '@']);
        (good && ["http", "https"].contains(&scheme)).then(|| format!("{scheme}://{host}"))
    };
    text.split(',')
        .map(|url| endpoint(url).ok_or_else(|| UrlError::NotAnEndpoint(url.into())))
        .collect()
}

impl EtcdArbiter {
    /// The arbiter at these endpoints, which must belong to one cluster.
    ///
    /// # Errors
    /// If the access does not fit.
    pub fn new(endpoints: Vec<String>, access: EtcdAccess) -> Result<EtcdArbiter, AccessError> {
        let client = Client::new(endpoints, access)?;
        Ok(EtcdArbiter { client })
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, Unreachable> {
        self.client
            .post(path, body)
            .map_err(|why| self.damaged(&why))
    }

    fn delete(&self, key: &str) -> Result<(), Unreachable> {
        self.post("/v3/kv/deleterange", &json!({"key": key}))?;
        Ok(())
    }

    /// Puts a value if the key has none and all keys in `guards` exist. Returns what was found
    /// otherwise.
    fn put_new(&self, key: &str, value: &str, guards: &[&str]) -> Result<Put, Unreachable> {
        let there = |key: &&str| json!({"key": key, "target": "CREATE", "result": "GREATER", "create_revision": "0"});
        let new =
            json!({"key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0"});
        let compare: Vec<Value> = guards.iter().map(there).chain([new]).collect();
        let range = |key: &&str| json!({"request_range": {"key": key}});
        let failure: Vec<Value> = [key].iter().chain(guards).map(range).collect();
        let put = json!([{"request_put": {"key": key, "value": STANDARD.encode(value)}}]);
        let answer = self.post(
            "/v3/kv/txn",
            &json!({"compare": compare, "success": put, "failure": failure}),
        )?;
        if answer["succeeded"] == true {
            return Ok(Put::New);
        }
        let found = |index: usize| {
            let range = &answer["responses"][index]["response_range"];
            self.value(&range["kvs"])
        };
        for index in 1..=guards.len() {
            if found(index)?.is_none() {
                return Ok(Put::Unguarded);
            }
        }
        let found = found(0)?;
        let found = found
            .ok_or_else(|| self.damaged(&"a transaction that neither wrote nor found a record"))?;
        Ok(Put::Found(found))
    }

    /// The value of a key in an answer's `kvs`, if it is there.
    fn value(&self, kvs: &Value) -> Result<Option<String>, Unreachable> {
        match kvs.get(0) {
            Some(kv) => self.text(&kv["value"]).map(Some),
            None => Ok(None),
        }
    }

    fn text(&self, encoded: &Value) -> Result<String, Unreachable> {
        // In an answer, an empty value is left out.
        let encoded = encoded.as_str().unwrap_or("");
        let bytes = STANDARD.decode(encoded).map_err(|e| self.damaged(&e))?;
        String::from_utf8(bytes).map_err(|e| self.damaged(&e))
    }
}

/// The result of an attempt to put a new value.
enum Put {
    New,
    /// The key had this value.
    Found(String),
    /// A guard is missing.
    Unguarded,
}

fn key(vm: &str, name: &dyn Display) -> String {
    STANDARD.encode(format!("{PREFIX}{vm}/{name}"))
}

impl Arbiter for EtcdArbiter {
    fn prove(&self, vm: &str) -> Result<(), Unreachable> {
        let key = key(vm, &format!(".proof.{:032x}", rand::random::<u128>()));
        self.put_new(&key, "", &[])?;
        self.delete(&key)
    }

    /// Cleaners do not remove keys by their age.
    fn keep(&self, _vm: &str, _names: &[RecordName]) {}

    /// The time for all endpoints, plus one more request if there is a user.
    fn answer_limit(&self) -> Duration {
        REQUEST_LIMIT * (self.client.endpoints.len() as u32 + 1)
    }

    fn create(&self, vm: &str, name: RecordName, text: &str) -> Result<String, Unreachable> {
        match self.put_new(&key(vm, &name), text, &[])? {
            Put::New => Ok(text.to_owned()),
            Put::Found(found) => Ok(found),
            Put::Unguarded => unreachable!("there is no guard"),
        }
    }

    fn create_under(
        &self,
        vm: &str,
        guard: RecordName,
        name: RecordName,
        text: &str,
    ) -> Result<Option<String>, Unreachable> {
        let put = self.put_new(&key(vm, &name), text, &[&key(vm, &guard)])?;
        Ok(match put {
            Put::New => Some(text.to_owned()),
            Put::Found(found) => Some(found),
            Put::Unguarded => None,
        })
    }

    fn remove(&self, vm: &str, name: RecordName) -> Result<(), Unreachable> {
        self.delete(&key(vm, &name))
    }

    fn read(&self, vm: &str, name: RecordName) -> Result<Option<String>, Unreachable> {
        let answer = self.post("/v3/kv/range", &json!({"key": key(vm, &name)}))?;
        if answer.get("header").is_none() {
            return Err(self.damaged(&"an answer that is not etcd's"));
        }
        self.value(&answer["kvs"])
    }

    fn list(&self, vm: &str) -> Result<Vec<RecordName>, Unreachable> {
        let prefix = format!("{PREFIX}{vm}/");
        // '0' follows '/': the range is all keys with the prefix.
        let end = format!("{PREFIX}{vm}0");
        let range = json!({
            "key": STANDARD.encode(&prefix), "range_end": STANDARD.encode(end), "keys_only": true,
        });
        let answer = self.post("/v3/kv/range", &range)?;
        if answer.get("header").is_none() {
            return Err(self.damaged(&"an answer that is not etcd's"));
        }
        let empty = Vec::new();
        let mut names = Vec::new();
        for kv in answer["kvs"].as_array().unwrap_or(&empty) {
            let key = self.text(&kv["key"])?;
            // Other keys there do not belong to Lockstep.
            names.extend(
                key.strip_prefix(&prefix)
                    .and_then(|name| name.parse::<RecordName>().ok()),
            );
        }
        Ok(names)
    }

    fn damaged(&self, why: &dyn Display) -> Unreachable {
        Unreachable {
            arbiter: format!("etcd:{}", self.client.endpoints.join(",")),
            why: why.to_string(),
        }
    }
}
