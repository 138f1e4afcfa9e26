//! What is asked.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};

use super::ClientError;
use crate::config::RemoteServer;

/// A request, to whichever server. Cheap to clone, and made so that it may be repeated.
#[derive(Debug, Clone)]
pub(crate) struct HttpRequest {
    method: Method,
    path: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl HttpRequest {
    /// A GET of this path.
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// A POST of this body to a path.
    pub(crate) fn post(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self {
            method: Method::POST,
            body: body.into(),
            ..Self::get(path)
        }
    }

    /// With a header; fails where the value is none. A secret is not shown by an error either.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Result<Self, ClientError> {
        let mut value =
            HeaderValue::from_str(value).map_err(|_bytes| ClientError::BadHeader(name))?;
        value.set_sensitive(name == "authorization");
        self.headers.push((HeaderName::from_static(name), value));
        Ok(self)
    }

    /// As it is sent to this server.
    pub(super) fn to(&self, server: &RemoteServer) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        let path = format!("{}{}", server.prefix, self.path);
        let path = path.parse::<Uri>();
        *request.uri_mut() = path.map_err(|_form| ClientError::BadHeader("path"))?;
        let host = HeaderValue::from_str(&server.authority());
        let host = host.map_err(|_bytes| ClientError::BadHeader("host"))?;
        request.headers_mut().insert(HOST, host);
        request.headers_mut().extend(self.headers.iter().cloned());
        Ok(request)
    }
}
