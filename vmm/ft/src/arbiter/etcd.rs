//! `etcd:http://HOST:PORT`: records as keys of an etcd cluster, for hosts that share no file system.
//!
//! Over etcd's JSON gateway (v3 API, 3.4 and later): a record is created by a transaction that compares
//! its key's create revision with 0, and reads it back in the same transaction otherwise. Reads are
//! linearizable, which is etcd's default. Without TLS and without a password: the endpoints belong on a
//! network of their own, like the logging channel.

use super::{Arbiter, Unreachable};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ft_protocol::arbiter::RecordName;
use serde_json::{Value, json};
use std::fmt::Display;
use std::time::Duration;
use ureq::Agent;

/// One endpoint has to answer within this; then the next is asked.
const REQUEST_LIMIT: Duration = Duration::from_secs(1);
/// Longest answer that is read, bytes; records and lists of them are far shorter.
const MAX_ANSWER: u64 = 4 << 20;
/// What all keys begin with.
const PREFIX: &str = "lockstep/";

/// An arbiter in etcd.
#[derive(Debug)]
pub struct EtcdArbiter {
    /// Base URLs, without a slash at the end.
    endpoints: Vec<String>,
    agent: Agent,
}

/// Reads what follows `etcd:` in a URL: one or more endpoints, separated by commas.
pub fn parse_endpoints(text: &str) -> Result<Vec<String>, String> {
    let endpoint = |url: &str| {
        let host = url.strip_prefix("http://")?.trim_end_matches('/');
        let good = !host.is_empty() && !host.contains(['/', ' ', '@']);
        good.then(|| format!("http://{host}"))
    };
    text.split(',')
        .map(|url| endpoint(url).ok_or_else(|| format!("`{url}` is no endpoint of etcd: give etcd:http://HOST:PORT, more of them after commas")))
        .collect()
}

impl EtcdArbiter {
    /// The arbiter behind these endpoints, which are those of one cluster.
    pub fn new(endpoints: Vec<String>) -> EtcdArbiter {
        let config = Agent::config_builder()
            .timeout_global(Some(REQUEST_LIMIT))
            // What the environment says of proxies is not about an arbiter.
            .proxy(None)
            .build();
        EtcdArbiter {
            endpoints,
            agent: config.into(),
        }
    }

    /// Posts `body` to the first endpoint that answers.
    fn post(&self, path: &str, body: &Value) -> Result<Value, Unreachable> {
        let mut why = String::new();
        for endpoint in &self.endpoints {
            let url = format!("{endpoint}{path}");
            let answered = self.agent.post(url).send_json(body).and_then(|mut answer| {
                let body = answer.body_mut().with_config().limit(MAX_ANSWER);
                body.read_json::<Value>()
            });
            match answered {
                Ok(answer) => return Ok(answer),
                Err(e) => why = e.to_string(),
            }
        }
        Err(self.damaged(&why))
    }

    /// The value of a key in an answer's `kvs`, if it is there.
    fn value(&self, kvs: &Value) -> Result<Option<String>, Unreachable> {
        match kvs.get(0) {
            Some(kv) => self.text(&kv["value"]).map(Some),
            None => Ok(None),
        }
    }

    fn text(&self, encoded: &Value) -> Result<String, Unreachable> {
        // An empty value is left out of the answer.
        let encoded = encoded.as_str().unwrap_or("");
        let bytes = STANDARD.decode(encoded).map_err(|e| self.damaged(&e))?;
        String::from_utf8(bytes).map_err(|e| self.damaged(&e))
    }
}

fn key(vm: &str, name: &dyn Display) -> String {
    STANDARD.encode(format!("{PREFIX}{vm}/{name}"))
}

impl Arbiter for EtcdArbiter {
    fn create(&self, vm: &str, name: RecordName, text: &str) -> Result<String, Unreachable> {
        let key = key(vm, &name);
        let value = STANDARD.encode(text);
        let answer = self.post(
            "/v3/kv/txn",
            &json!({
                "compare": [{"key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0"}],
                "success": [{"request_put": {"key": key, "value": value}}],
                "failure": [{"request_range": {"key": key}}],
            }),
        )?;
        if answer["succeeded"] == true {
            return Ok(text.to_owned());
        }
        let kvs = &answer["responses"][0]["response_range"]["kvs"];
        let found = self.value(kvs)?;
        found.ok_or_else(|| self.damaged(&"a transaction that neither wrote nor found a record"))
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
            // What else lies there is none of ours.
            names.extend(
                key.strip_prefix(&prefix)
                    .and_then(|name| name.parse::<RecordName>().ok()),
            );
        }
        Ok(names)
    }

    fn damaged(&self, why: &dyn Display) -> Unreachable {
        Unreachable {
            arbiter: format!("etcd:{}", self.endpoints.join(",")),
            why: why.to_string(),
        }
    }
}
