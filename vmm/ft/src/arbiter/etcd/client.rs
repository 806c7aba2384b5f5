//! Requests to etcd's JSON gateway: which endpoint answers, users and passwords, TLS.

use serde_json::{Value, json};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use thiserror::Error;
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// How long an endpoint may take to accept a connection, and to answer; then the next one is asked.
const CONNECT_LIMIT: Duration = Duration::from_millis(500);
pub const REQUEST_LIMIT: Duration = Duration::from_secs(1);
/// Longest answer that is read, bytes; records, and lists of them, are far shorter.
const MAX_ANSWER: u64 = 4 << 20;
/// etcd's messages about a token that was valid once: it has expired, or users were changed since.
const OLD_TOKEN: [&str; 2] = ["invalid auth token", "auth store is old"];

/// How to get access to an etcd that is not open to everybody.
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
    /// Is no option set?
    pub fn is_empty(&self) -> bool {
        self.user.is_none() && self.ca.is_none() && self.identity.is_none()
    }

    fn tls(&self) -> Result<TlsConfig, AccessError> {
        let ca = self.ca.as_ref().ok_or(AccessError::NoAuthority)?;
        let builder = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&certificates(ca, "--etcd-ca")?))
            .client_cert(match &self.identity {
                Some((cert, key)) => {
                    let key = PrivateKey::from_pem(key).map_err(AccessError::NoKey)?;
                    let chain = certificates(cert, "--etcd-cert")?;
                    Some(ClientCert::new_with_certs(&chain, key))
                }
                None => None,
            });
        Ok(builder.build())
    }
}

fn certificates(
    pem: &[u8],
    option: &'static str,
) -> Result<Vec<Certificate<'static>>, AccessError> {
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        match item {
            Ok(PemItem::Certificate(one)) => found.push(one),
            Ok(_) => {}
            Err(error) => return Err(AccessError::BadPem { option, error }),
        }
    }
    match found.is_empty() {
        true => Err(AccessError::NoCertificate { option }),
        false => Ok(found),
    }
}

/// What does not fit in how an arbiter is to be reached.
#[derive(Debug, Error)]
pub enum AccessError {
    /// There is nothing to say about a directory.
    #[error("--etcd-… says how to reach an etcd, and --arbiter is a directory")]
    Directory,
    /// Without TLS there are no certificates.
    #[error("--etcd-ca, --etcd-cert and --etcd-key are for https://…")]
    NotSecure,
    /// TLS needs to know whom to believe.
    #[error("https://… needs --etcd-ca, a file with the certificate authority of the etcd cluster")]
    NoAuthority,
    /// The key is none.
    #[error("--etcd-key holds no private key ({0})")]
    NoKey(ureq::Error),
    /// A file is not as it should be.
    #[error("{option} cannot be read ({error})")]
    BadPem {
        /// What names it.
        option: &'static str,
        /// The error.
        error: ureq::Error,
    },
    /// A file is empty, or holds something else.
    #[error("{option} holds no certificate: give a file in PEM format")]
    NoCertificate {
        /// What names it.
        option: &'static str,
    },
}

/// Why a request failed.
#[derive(Debug, Error)]
pub enum RequestError {
    /// It did not get there, or no answer came back.
    #[error("{0}")]
    Transport(ureq::Error),
    /// The same, where etcd may want to see a certificate: it only hangs up.
    #[error("{0}; if it wants a client's certificate, give --etcd-cert and --etcd-key")]
    Anonymous(ureq::Error),
    /// It was refused.
    #[error("{}", said(.why.as_deref(), *.status))]
    Refused {
        /// What etcd says.
        why: Option<String>,
        /// The status of HTTP.
        status: u16,
    },
    /// Something else answers there.
    #[error("an answer that is not etcd's: {0}")]
    NotEtcd(serde_json::Error),
    /// Name and password were taken, and nothing given for them.
    #[error("etcd gave no token for --etcd-user")]
    NoToken,
    /// Each endpoint, and why.
    #[error("{}", Joined(.0))]
    All(Vec<(String, RequestError)>),
}

fn said(why: Option<&str>, status: u16) -> String {
    match why {
        Some(why) => format!("{why}, http status {status}"),
        None => format!("http status {status}"),
    }
}

/// What each endpoint said, one after the other.
struct Joined<'a>(&'a [(String, RequestError)]);

impl fmt::Display for Joined<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (endpoint, why) in self.0 {
            write!(f, "{between}{endpoint}: {why}")?;
            between = "; ";
        }
        Ok(())
    }
}

impl RequestError {
    /// Whether the user has to say who it is again.
    fn is_of_the_token(&self) -> bool {
        match self {
            RequestError::Refused { why: Some(why), .. } => {
                OLD_TOKEN.iter().any(|old| why.contains(old))
            }
            RequestError::Refused { why: None, .. }
            | RequestError::Transport(_)
            | RequestError::Anonymous(_)
            | RequestError::NotEtcd(_)
            | RequestError::NoToken
            | RequestError::All(_) => false,
        }
    }
}

/// The endpoints of one cluster.
pub struct Client {
    /// Base URLs, without a slash at the end.
    pub endpoints: Vec<String>,
    agent: Agent,
    user: Option<(String, String)>,
    /// A token, which replaces name and password until etcd forgets it.
    token: Mutex<Option<String>>,
    /// It uses TLS without a certificate of its own.
    anonymous: bool,
    /// The endpoint that answered last.
    answered: AtomicUsize,
}

impl Client {
    /// # Errors
    /// If what was said does not fit together.
    pub fn new(endpoints: Vec<String>, access: EtcdAccess) -> Result<Client, AccessError> {
        let config = Agent::config_builder()
            .timeout_global(Some(REQUEST_LIMIT))
            .timeout_connect(Some(CONNECT_LIMIT))
            // The reason is in the answer's body.
            .http_status_as_error(false)
            // Proxies in the environment are not meant for an arbiter.
            .proxy(None);
        let secure = endpoints.iter().any(|url| url.starts_with("https:"));
        let anonymous = secure && access.identity.is_none();
        let config = match secure {
            true => config.tls_config(access.tls()?),
            false if access.ca.is_some() || access.identity.is_some() => {
                return Err(AccessError::NotSecure);
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

    /// Posts `body` to the endpoint that answered last, or to the next one that answers now.
    ///
    /// # Errors
    /// What each of them said.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, RequestError> {
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
                Err(why) => whys.push((self.endpoints[index].clone(), why)),
            }
        }
        Err(RequestError::All(whys))
    }

    fn post_to(&self, endpoint: &str, path: &str, body: &Value) -> Result<Value, RequestError> {
        for fresh in [false, true] {
            let token = self.token(endpoint, fresh)?;
            match self.send(endpoint, path, body, token.as_deref()) {
                Ok(answer) => return Ok(answer),
                Err(why) if why.is_of_the_token() && !fresh && token.is_some() => {}
                Err(why) => return Err(why),
            }
        }
        unreachable!("a fresh token is the last attempt")
    }

    /// The user's token, if there is a user; a new one if the last is not valid any more.
    fn token(&self, endpoint: &str, fresh: bool) -> Result<Option<String>, RequestError> {
        let Some((name, password)) = &self.user else {
            return Ok(None);
        };
        let known = self.token.lock().expect("nobody panics with it").clone();
        if let Some(known) = known.filter(|_| !fresh) {
            return Ok(Some(known));
        }
        let who = json!({"name": name, "password": password});
        let answer = self.send(endpoint, "/v3/auth/authenticate", &who, None)?;
        let token = answer["token"].as_str().map(str::to_owned);
        let token = token.ok_or(RequestError::NoToken)?;
        *self.token.lock().expect("nobody panics with it") = Some(token.clone());
        Ok(Some(token))
    }

    fn send(
        &self,
        endpoint: &str,
        path: &str,
        body: &Value,
        token: Option<&str>,
    ) -> Result<Value, RequestError> {
        let other = |e: ureq::Error| match e {
            ureq::Error::Io(_) if self.anonymous => RequestError::Anonymous(e),
            _ => RequestError::Transport(e),
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
            return Err(RequestError::Refused {
                why: why.map(str::to_owned),
                status: status.as_u16(),
            });
        }
        told.map_err(RequestError::NotEtcd)
    }
}
