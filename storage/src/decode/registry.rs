//! Avro schemas from a schema registry, over plain HTTP, by the id that a message begins with (Confluent's wire format).
//!
//! ```text
//! message   0 | u32 schema id, big endian | Avro datum
//! ```
//!
//! A schema never changes, so each is asked for once. While the registry does not answer, or answers with an error of its
//! own, consumption waits: only a registry that says that it has no such schema makes a message wrong.

use crate::convert::avro;
use crate::environment::Environment;
use apache_avro::Schema as AvroSchema;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper::header::{ACCEPT, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use strandline_proto::{Error, Result};
use tokio::net::TcpStream;

/// How long one question may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Schemas that are kept.
const SCHEMAS_MAX: usize = 4_096;
/// The registry's codes for "schema not found" and "subject not found".
const NOT_FOUND: [u64; 2] = [40_403, 40_401];

/// Where a registry is: `http://host:port/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryUrl {
    host: String,
    port: u16,
    path: String,
}

impl RegistryUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// `Unsupported` for https and credentials, `InvalidArgument` for what is no address.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        if text
            .get(..8)
            .is_some_and(|s| s.eq_ignore_ascii_case("https://"))
        {
            return Err(Error::unsupported(
                "not supported: a schema registry over https; put a proxy before it that speaks http on a trusted network",
            ));
        }
        let wrong = || {
            Error::invalid(format!(
                "'{}' is no address of a schema registry; write http://host:8081",
                text.escape_debug()
            ))
        };
        let rest = match text.get(..7) {
            Some(scheme) if scheme.eq_ignore_ascii_case("http://") => &text[7..],
            _ => return Err(wrong()),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(Error::unsupported(
                "not supported: credentials in the address of a schema registry",
            ));
        }
        let is_host =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
        let is_path = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '"' | '<' | '>');
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong())?)
            }
            _ => (authority, 80),
        };
        if host.is_empty() || !host.chars().all(is_host) || !path.chars().all(is_path) {
            return Err(wrong());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            path: path.trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)?;
        match self.path.as_str() {
            "" => Ok(()),
            path => write!(f, "/{path}"),
        }
    }
}

/// A schema, or why there is none: then its messages are wrong.
pub(super) type Known = Result<Arc<AvroSchema>, String>;

/// A registry, and the schemas that were asked of it.
#[derive(Debug)]
pub struct SchemaRegistry {
    url: RegistryUrl,
    environment: Environment,
    schemas: Mutex<HashMap<u32, Known>>,
}

impl SchemaRegistry {
    /// The registry at an address; nothing is asked yet.
    pub fn new(url: RegistryUrl, environment: Environment) -> Self {
        Self {
            url,
            environment,
            schemas: Mutex::default(),
        }
    }

    /// A schema that was asked for.
    pub(super) fn known(&self, id: u32) -> Option<Known> {
        self.schemas.lock().get(&id).cloned()
    }

    /// Asks for a schema, so that it is known.
    ///
    /// # Errors
    /// `Unavailable` when the registry gives no answer, or one that says nothing of the schema; ask again later.
    pub async fn fetch(&self, id: u32) -> Result<()> {
        let known = tokio::select! {
            answer = self.ask(id) => answer.map_err(|reason| self.away(id, &reason))?,
            () = self.environment.clock.sleep(ANSWER_MAX) => {
                return Err(self.away(id, &format!("no answer within {ANSWER_MAX:?}")));
            }
        };
        let mut schemas = self.schemas.lock();
        if schemas.len() >= SCHEMAS_MAX {
            schemas.clear();
        }
        schemas.insert(id, known);
        Ok(())
    }

    /// Forgets that there is no schema of an id, so that it is asked for again.
    pub(super) fn forget_failures(&self) {
        self.schemas.lock().retain(|_, known| known.is_ok());
    }

    fn away(&self, id: u32, reason: &str) -> Error {
        Error::unavailable(format!(
            "schema registry {}: schema {id}: {reason}; consumption waits for it",
            self.url
        ))
    }

    async fn ask(&self, id: u32) -> Result<Known, String> {
        let host = self.url.host.trim_matches(['[', ']']);
        let stream = (TcpStream::connect((host, self.url.port)).await)
            .map_err(|e| format!("can't be reached: {e}"))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
        let path = match self.url.path.as_str() {
            "" => format!("/schemas/ids/{id}"),
            path => format!("/{path}/schemas/ids/{id}"),
        };
        let request = Request::get(path)
            .header(HOST, format!("{}:{}", self.url.host, self.url.port))
            .header(
                ACCEPT,
                "application/vnd.schemaregistry.v1+json, application/json",
            )
            .body(Empty::<Bytes>::new())
            .map_err(|e| e.to_string())?;
        let asked = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|e| e.to_string())?;
            let status = response.status();
            let mut body = response.into_body();
            let mut bytes = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|e| e.to_string())?;
                if let Some(data) = frame.data_ref() {
                    if bytes.len() + data.len() > ANSWER_BYTES_MAX {
                        return Err(format!("an answer of more than {ANSWER_BYTES_MAX} bytes"));
                    }
                    bytes.extend_from_slice(data);
                }
            }
            Ok((status, bytes.freeze()))
        };
        tokio::pin!(asked);
        tokio::pin!(connection);
        let mut connected = true;
        let (status, bytes) = loop {
            tokio::select! {
                answer = &mut asked => break answer?,
                ended = &mut connection, if connected => {
                    connected = false;
                    ended.map_err(|e| e.to_string())?;
                }
            }
        };
        read_answer(status, &bytes)
    }
}

/// What an answer says: a schema, that there is none, or nothing that can be relied on.
fn read_answer(status: StatusCode, bytes: &[u8]) -> Result<Known, String> {
    let json: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
    let text = |key: &str| {
        json.as_ref()
            .and_then(|j| j.get(key))
            .and_then(|v| v.as_str())
    };
    if status != StatusCode::OK {
        let code = json.as_ref().and_then(|j| j.get("error_code"));
        let said = text("message").map_or(String::new(), |m| {
            format!(
                ": {}",
                m.chars().take(200).collect::<String>().escape_debug()
            )
        });
        return match code.and_then(serde_json::Value::as_u64) {
            Some(code) if NOT_FOUND.contains(&code) => {
                Ok(Err(format!("the schema registry has no such schema{said}")))
            }
            _ => Err(format!("the answer {status}{said}")),
        };
    }
    let Some(schema) = text("schema") else {
        return Err("an answer without a schema".to_owned());
    };
    if let Some(other) = text("schemaType").filter(|t| !t.eq_ignore_ascii_case("AVRO")) {
        return Ok(Err(format!(
            "not supported: a schema of the type {other} for Avro messages"
        )));
    }
    let references = json.as_ref().and_then(|j| j.get("references"));
    if references
        .and_then(|r| r.as_array())
        .is_some_and(|r| !r.is_empty())
    {
        return Ok(Err(
            "not supported: a schema that refers to other schemas of the registry; register it as one".to_owned(),
        ));
    }
    Ok(super::avro_schema(schema).and_then(|schema| {
        avro::record(&schema)?;
        Ok(Arc::new(schema))
    }))
}
