//! Serves metrics over HTTP, on a TCP address or a Unix socket.

use std::{
    convert::Infallible,
    fmt, fs, io,
    net::SocketAddr,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use log::info;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{Format, write};
use crate::{report::StatusReport, signals::Stop};

/// Clients at once; others wait.
const MOST_CLIENTS: usize = 16;

/// A client that takes longer is cut off.
const PATIENCE: Duration = Duration::from_secs(10);

/// After a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

const UNIX: &str = "unix:";

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}/metrics"),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix(UNIX).filter(|path| path.starts_with('/')) {
            return Ok(Self::Unix(path.into()));
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            "write an address with a port, such as 127.0.0.1:9751, or unix:/run/ctguard-metrics.sock"
                .to_owned()
        })
    }
}

/// Serves what `read` finds, at each request, until a signal.
pub(crate) async fn serve<R>(listen: &Listen, stop: &mut Stop, read: R) -> io::Result<()>
where
    R: Fn() -> Result<StatusReport, String> + Clone + 'static,
{
    let clients = Arc::new(Semaphore::new(MOST_CLIENTS));
    let local = tokio::task::LocalSet::new();
    let serving = local.run_until(async {
        match listen {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address).await?;
                info!("serving metrics on {listen}");
                answer_all(async || Ok(listener.accept().await?.0), &clients, read).await
            }
            Listen::Unix(path) => {
                remove_socket(path)?;
                let listener = UnixListener::bind(path)?;
                info!("serving metrics on {listen}");
                answer_all(async || Ok(listener.accept().await?.0), &clients, read).await
            }
        }
    });
    let served = tokio::select! {
        _ = stop.requested() => Ok(()),
        failed = serving => failed,
    };
    if let Listen::Unix(path) = listen {
        remove_socket(path)?;
    }
    served
}

/// Removes what an earlier server left, and nothing but a socket.
fn remove_socket(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Answers everybody who connects. Where none can be accepted, as without descriptors, it waits.
async fn answer_all<S, R>(
    accept: impl AsyncFn() -> io::Result<S>,
    clients: &Arc<Semaphore>,
    read: R,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    R: Fn() -> Result<StatusReport, String> + Clone + 'static,
{
    loop {
        match accept().await {
            Ok(stream) => answer(stream, clients, read.clone()).await,
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn answer<S, R>(stream: S, clients: &Arc<Semaphore>, read: R)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    R: Fn() -> Result<StatusReport, String> + 'static,
{
    let Ok(place) = Arc::clone(clients).acquire_owned().await else { return };
    tokio::task::spawn_local(async move {
        let service = service_fn(move |request: Request<Incoming>| {
            let response = respond(&request, &read);
            async move { Ok::<_, Infallible>(response) }
        });
        let connection =
            http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
        // Whoever went away or was too slow has no answer.
        let _ = timeout(PATIENCE, connection).await;
        drop(place);
    });
}

fn respond(
    request: &Request<Incoming>,
    read: &impl Fn() -> Result<StatusReport, String>,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "metrics are only read");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => {
            let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
            let format = Format::accepted(accept);
            match read() {
                Ok(status) => {
                    with_type(StatusCode::OK, format.content_type(), write(&status, format))
                }
                Err(error) => plain(StatusCode::SERVICE_UNAVAILABLE, &error),
            }
        }
        "/" => plain(StatusCode::OK, "metrics are at /metrics"),
        _ => plain(StatusCode::NOT_FOUND, "metrics are at /metrics"),
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    with_type(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

fn with_type(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_listens_on_an_address_with_a_port_or_on_a_socket() {
        let tcp = |text: &str| Listen::Tcp(text.parse().unwrap());
        assert_eq!("127.0.0.1:9751".parse(), Ok(tcp("127.0.0.1:9751")));
        assert_eq!("[::1]:9751".parse(), Ok(tcp("[::1]:9751")));
        assert_eq!("unix:/run/x.sock".parse(), Ok(Listen::Unix("/run/x.sock".into())));
        for text in ["9751", "127.0.0.1", "unix:x.sock", "localhost:9751", ""] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }
}
