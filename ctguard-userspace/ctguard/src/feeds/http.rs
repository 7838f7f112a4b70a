//! One request over HTTP/1, without TLS: no time, answer or header without a bound.

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{ACCEPT, CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, runtime::Builder, time::timeout};

/// 50,000 decisions take half a second.
const PATIENCE: Duration = Duration::from_secs(15);
/// 490,000 decisions.
const MOST_BYTES: usize = 1 << 26;

pub(super) struct Request<'r> {
    /// An IPv6 address is in brackets.
    pub(super) host: &'r str,
    pub(super) port: u16,
    pub(super) path: &'r str,
    pub(super) key: &'r str,
}

/// The body of the answer. An error is a sentence.
pub(super) fn get(request: &Request<'_>) -> Result<Bytes, String> {
    get_within(request, PATIENCE, MOST_BYTES)
}

fn get_within(request: &Request<'_>, most: Duration, bytes: usize) -> Result<Bytes, String> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot ask the API: {error}"))?;
    let answer = runtime.block_on(async { timeout(most, ask(request, bytes)).await });
    // A name that is being looked up is left alone.
    runtime.shutdown_background();
    answer.unwrap_or_else(|_| Err(format!("the API has not answered within {most:?}")))
}

async fn ask(request: &Request<'_>, bytes: usize) -> Result<Bytes, String> {
    let Request { host, port, path, key } = request;
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((name, *port)).await;
    let stream = stream.map_err(|error| format!("cannot reach {host}:{port}: {error}"))?;
    let lost = |error: hyper::Error| format!("cannot ask {host}:{port}: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    let request = hyper::Request::get(*path)
        .header(HOST, format!("{host}:{port}"))
        .header(USER_AGENT, concat!("ctguard/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "application/json")
        .header(CONNECTION, "close")
        .header("X-Api-Key", *key)
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("cannot ask {host}:{port}: {error}"))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(lost)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => {
                return Err(format!(
                    "{host}:{port} refuses the key; make one: cscli bouncers add ctguard -o raw"
                ));
            }
            status => return Err(format!("{host}:{port} answers {status}")),
        }
        let body = Limited::new(response.into_body(), bytes).collect().await;
        let body =
            body.map_err(|error| format!("cannot read the answer of {host}:{port}: {error}"));
        Ok(body?.to_bytes())
    };
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // It ends with the answer, or without one.
        ended = connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(lost(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
        thread::{self, JoinHandle},
    };

    use super::*;

    /// A server that takes one request and does as it likes.
    fn server(answer: fn(&mut TcpStream) -> std::io::Result<()>) -> (u16, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut request = vec![0; 4096];
            let bytes = client.read(&mut request).unwrap();
            let _ = answer(&mut client);
            String::from_utf8_lossy(&request[..bytes]).into_owned()
        });
        (port, serving)
    }

    fn ask(answer: fn(&mut TcpStream) -> std::io::Result<()>) -> (Result<Bytes, String>, String) {
        let (port, serving) = server(answer);
        let request =
            Request { host: "127.0.0.1", port, path: "/v1/x?startup=true", key: "secret" };
        let answer = get_within(&request, Duration::from_millis(500), 1000);
        (answer, serving.join().unwrap())
    }

    #[test]
    fn a_request_has_the_key_and_its_answer_is_the_body() {
        let (answer, request) = ask(|client| {
            client.write_all(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            )
        });
        assert_eq!(answer.unwrap(), "{}");
        assert!(request.starts_with("GET /v1/x?startup=true HTTP/1.1\r\n"), "{request}");
        assert!(request.to_lowercase().contains("\r\nx-api-key: secret\r\n"), "{request}");
    }

    #[test]
    fn an_answer_up_to_the_end_of_the_connection_is_whole() {
        let (answer, _) = ask(|client| client.write_all(b"HTTP/1.0 200 OK\r\n\r\n{\"new\":null}"));
        assert_eq!(answer.unwrap(), "{\"new\":null}");
    }

    #[test]
    fn whoever_stalls_lies_or_never_ends_is_an_error_in_words() {
        let stalls: fn(&mut TcpStream) -> _ = |client| {
            client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{")?;
            client.read(&mut [0; 16]).map(|_| ())
        };
        let floods: fn(&mut TcpStream) -> _ = |client| {
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            loop {
                client.write_all(&[b' '; 1000])?;
            }
        };
        for (answer, message) in [
            (stalls, "has not answered within"),
            (floods, "length limit exceeded"),
            (|client| client.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n"), "refuses the key"),
            (|client| client.write_all(b"HTTP/1.1 500 Oops\r\n\r\n"), "answers 500"),
            (|client| client.write_all(b"SSH-2.0-OpenSSH\r\n"), "cannot ask"),
            (|_| Ok(()), "cannot ask"),
            (
                |client| client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"),
                "cannot",
            ),
        ] {
            let (error, _) = ask(answer);
            let error = error.unwrap_err();
            assert!(error.contains(message), "{message}: {error}");
        }
        let nobody = Request { host: "127.0.0.1", port: 1, path: "/", key: "x" };
        let error = get_within(&nobody, Duration::from_secs(5), 10).unwrap_err();
        assert!(error.starts_with("cannot reach 127.0.0.1:1: "), "{error}");
    }
}
