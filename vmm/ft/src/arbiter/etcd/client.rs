//! Requests to etcd's JSON gateway: which endpoint answers, users and passwords, TLS.

use serde_json::{Value, json};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// An endpoint has to take a connection within this, and to answer within that; then the next is asked.
const CONNECT_LIMIT: Duration = Duration::from_millis(500);
pub const REQUEST_LIMIT: Duration = Duration::from_secs(1);
/// Longest answer that is read, bytes; records and lists of them are far shorter.
const MAX_ANSWER: u64 = 4 << 20;
/// What etcd says of a token that was good once: its time is over, or users were changed since.
const OLD_TOKEN: [&str; 2] = ["invalid auth token", "auth store is old"];

/// How an etcd is to be reached that does not let everybody in.
#[derive(Clone, Default)]
pub struct EtcdAccess {
    /// Name and password.
    pub user: Option<(String, String)>,
    /// The cluster's certificate authorities, PEM.
    pub ca: Option<Vec<u8>>,
    /// This client's certificate and its key, PEM.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl EtcdAccess {
    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.user.is_none() && self.ca.is_none() && self.identity.is_none()
    }

    fn tls(&self) -> Result<TlsConfig, String> {
        let ca = self.ca.as_ref().ok_or(
            "https://… needs --etcd-ca, a file with the certificate authority of the etcd cluster",
        )?;
        let builder = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&certificates(ca, "--etcd-ca")?))
            .client_cert(match &self.identity {
                Some((cert, key)) => {
                    let key = PrivateKey::from_pem(key)
                        .map_err(|e| format!("--etcd-key holds no private key ({e})"))?;
                    let chain = certificates(cert, "--etcd-cert")?;
                    Some(ClientCert::new_with_certs(&chain, key))
                }
                None => None,
            });
        Ok(builder.build())
    }
}

fn certificates(pem: &[u8], option: &str) -> Result<Vec<Certificate<'static>>, String> {
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        match item {
            Ok(PemItem::Certificate(one)) => found.push(one),
            Ok(_) => {}
            Err(e) => return Err(format!("{option} cannot be read ({e})")),
        }
    }
    match found.is_empty() {
        true => Err(format!(
            "{option} holds no certificate: give a file in PEM format"
        )),
        false => Ok(found),
    }
}

/// Why a request came to nothing.
enum Failure {
    /// The user has to say who it is again.
    OldToken(String),
    Other(String),
}

/// The endpoints of one cluster.
pub struct Client {
    /// Base URLs, without a slash at the end.
    pub endpoints: Vec<String>,
    agent: Agent,
    user: Option<(String, String)>,
    /// What stands for name and password until etcd forgets it.
    token: Mutex<Option<String>>,
    /// It speaks TLS and has no certificate to show.
    anonymous: bool,
    /// The endpoint that answered last.
    answered: AtomicUsize,
}

impl Client {
    /// # Errors
    /// A sentence, if what was said does not fit together.
    pub fn new(endpoints: Vec<String>, access: EtcdAccess) -> Result<Client, String> {
        let config = Agent::config_builder()
            .timeout_global(Some(REQUEST_LIMIT))
            .timeout_connect(Some(CONNECT_LIMIT))
            // The reason is in the answer's body.
            .http_status_as_error(false)
            // What the environment says of proxies is not about an arbiter.
            .proxy(None);
        let secure = endpoints.iter().any(|url| url.starts_with("https:"));
        let anonymous = secure && access.identity.is_none();
        let config = match secure {
            true => config.tls_config(access.tls()?),
            false if access.ca.is_some() || access.identity.is_some() => {
                return Err("--etcd-ca, --etcd-cert and --etcd-key are for https://…".into());
            }
            false => config,
        };
        Ok(Client {
            endpoints,
            agent: config.build().into(),
            user: access.user,
            token: Mutex::default(),
            anonymous,
            answered: AtomicUsize::new(0),
        })
    }

    /// Posts `body` to the endpoint that answered last, or to the first after it that answers now.
    ///
    /// # Errors
    /// What each of them said.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let (first, count) = (self.answered.load(Ordering::Acquire), self.endpoints.len());
        let mut whys = Vec::new();
        for turn in 0..count {
            let index = (first + turn) % count;
            match self.post_to(&self.endpoints[index], path, body) {
                Ok(answer) => {
                    self.answered.store(index, Ordering::Release);
                    return Ok(answer);
                }
                Err(why) if count == 1 => return Err(why),
                Err(why) => whys.push(format!("{}: {why}", self.endpoints[index])),
            }
        }
        Err(whys.join("; "))
    }

    fn post_to(&self, endpoint: &str, path: &str, body: &Value) -> Result<Value, String> {
        for fresh in [false, true] {
            let token = self.token(endpoint, fresh)?;
            match self.send(endpoint, path, body, token.as_deref()) {
                Ok(answer) => return Ok(answer),
                Err(Failure::OldToken(_)) if !fresh && token.is_some() => {}
                Err(Failure::OldToken(why) | Failure::Other(why)) => return Err(why),
            }
        }
        unreachable!("a fresh token is the last attempt")
    }

    /// The token of the user, if there is one; a fresh one if the last is no good.
    fn token(&self, endpoint: &str, fresh: bool) -> Result<Option<String>, String> {
        let Some((name, password)) = &self.user else {
            return Ok(None);
        };
        let known = self.token.lock().expect("nobody panics with it").clone();
        if let Some(known) = known.filter(|_| !fresh) {
            return Ok(Some(known));
        }
        let who = json!({"name": name, "password": password});
        let answer = self.send(endpoint, "/v3/auth/authenticate", &who, None);
        let answer = match answer {
            Ok(answer) => answer,
            Err(Failure::OldToken(why) | Failure::Other(why)) => return Err(why),
        };
        let token = answer["token"].as_str().map(str::to_owned);
        let token = token.ok_or("etcd gave no token for --etcd-user")?;
        *self.token.lock().expect("nobody panics with it") = Some(token.clone());
        Ok(Some(token))
    }

    fn send(
        &self,
        endpoint: &str,
        path: &str,
        body: &Value,
        token: Option<&str>,
    ) -> Result<Value, Failure> {
        let other = |e: ureq::Error| {
            let hint = match e {
                // Whoever wants to see one only hangs up.
                ureq::Error::Io(_) if self.anonymous => {
                    "; if it wants a client's certificate, give --etcd-cert and --etcd-key"
                }
                _ => "",
            };
            Failure::Other(format!("{e}{hint}"))
        };
        let mut request = self.agent.post(format!("{endpoint}{path}"));
        if let Some(token) = token {
            request = request.header("Authorization", token);
        }
        let mut answer = request.send_json(body).map_err(other)?;
        let status = answer.status();
        let body = answer.body_mut().with_config().limit(MAX_ANSWER);
        let text = body.read_to_string().map_err(other)?;
        let told = serde_json::from_str::<Value>(&text);
        if !status.is_success() {
            let told = told.unwrap_or_default();
            let why = ["message", "error"]
                .iter()
                .find_map(|key| told[key].as_str());
            let why = match why {
                Some(why) => format!("{why}, http status {}", status.as_u16()),
                None => format!("http status {}", status.as_u16()),
            };
            return Err(match OLD_TOKEN.iter().any(|old| why.contains(old)) {
                true => Failure::OldToken(why),
                false => Failure::Other(why),
            });
        }
        told.map_err(|e| Failure::Other(format!("an answer that is not etcd's: {e}")))
    }
}
