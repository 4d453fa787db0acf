//! Clients of HTTP servers, one way to make them: none waits without end.

use std::time::Duration;

use reqwest::{Client, ClientBuilder, Error, Response};

/// Longest wait for a connection: its name, its socket, its encryption.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest wait for an answer, all of it, where nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A client as `said`. Where the machine knows no certificate authorities none is trusted, and servers without TLS are
/// reached all the same.
///
/// # Errors
/// Where a client cannot be made with these settings.
pub fn client(said: impl Fn(ClientBuilder) -> ClientBuilder) -> Result<Client, Error> {
    let begun = || {
        let agent = concat!("radarflow/", env!("CARGO_PKG_VERSION"));
        said(Client::builder().user_agent(agent).connect_timeout(CONNECT).timeout(TIMEOUT))
    };
    begun().build().or_else(|error| {
        let client = begun().tls_certs_only([]).build()?;
        tracing::warn!(%error, "no certificate authorities are known here: servers with TLS cannot be reached");
        Ok(client)
    })
}

/// Why there is no answer, with what is behind it, and without the URL: what is asked may hold a secret.
pub fn why(error: &Error) -> String {
    // What is said of the request itself names the URL; what is behind it says why.
    let mut behind: &dyn std::error::Error = error;
    let mut said = Vec::new();
    while let Some(source) = behind.source() {
        let text = source.to_string();
        if said.last() != Some(&text) {
            said.push(text);
        }
        behind = source;
    }
    match said.is_empty() {
        true => "it cannot be asked".to_owned(),
        false => said.join(": "),
    }
}

/// The whole of an answer's body; `None` where it is larger than `most`, of which no more is read, or where `takes` says
/// that there is no memory for so many bytes more.
pub(crate) async fn whole(
    mut response: Response,
    most: usize,
    mut takes: impl FnMut(usize) -> bool,
) -> Result<Option<Vec<u8>>, Error> {
    // Who says that it is larger need not be listened to.
    if response.content_length().is_some_and(|length| length > most as u64) {
        return Ok(None);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > most || !takes(chunk.len()) {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// The beginning of an answer's text: so many bytes, or what came of them in that time. The rest is not read; its
/// connection ends.
pub(crate) async fn beginning(mut response: Response, most: usize, wait: Duration) -> String {
    let mut body = Vec::new();
    let read = async {
        while body.len() < most
            && let Ok(Some(chunk)) = response.chunk().await
        {
            body.extend_from_slice(&chunk[..chunk.len().min(most - body.len())]);
        }
    };
    // What came is what there is.
    let _ = tokio::time::timeout(wait, read).await;
    let mut text = String::from_utf8_lossy(&body).into_owned();
    // The last character may have been cut.
    if body.len() == most {
        text.truncate(text.trim_end_matches('\u{fffd}').len());
    }
    text
}

/// Asks a server, by a form where there is one: its status, and what it says where that is not larger than `most`.
///
/// # Errors
/// Why there is no answer, or that it is too large.
pub async fn ask(
    client: &Client,
    url: &str,
    form: Option<&[(&'static str, String)]>,
    authorization: Option<&str>,
    most: usize,
) -> Result<(u16, Vec<u8>), String> {
    let mut request = match form {
        Some(form) => {
            let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
            client.post(url).header("content-type", "application/x-www-form-urlencoded").body(body)
        }
        None => client.get(url),
    };
    request = request.header("accept", "application/json");
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    let response = request.send().await.map_err(|error| why(&error))?;
    let status = response.status().as_u16();
    match whole(response, most, |_| true).await {
        Ok(Some(body)) => Ok((status, body)),
        Ok(None) => Err(format!("the answer is larger than {most} bytes")),
        Err(error) => Err(why(&error)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;

    /// A server that answers with a head, and then, ever again after a pause, with a piece; so many bytes it could send.
    fn server(head: &'static str, piece: &'static [u8], pause: Duration) -> (String, std::thread::JoinHandle<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let sent = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let _ = socket.read(&mut [0; 4096]);
            let mut sent = 0;
            let _ = socket.write_all(head.as_bytes());
            while !piece.is_empty() && socket.write_all(piece).is_ok() && sent < 1 << 30 {
                sent += piece.len();
                std::thread::sleep(pause);
            }
            sent
        });
        (url, sent)
    }

    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n";
    static LARGE: [u8; 1 << 16] = [b'x'; 1 << 16];

    #[tokio::test(flavor = "multi_thread")]
    async fn of_an_answer_without_end_no_more_is_read_than_is_wanted() {
        let client = client(|client| client).unwrap();
        let (url, sent) = server(HEAD, &LARGE, Duration::ZERO);
        let response = client.get(url).send().await.unwrap();
        assert_eq!(beginning(response, 256, Duration::from_secs(5)).await, "x".repeat(256));
        assert!(sent.join().unwrap() < 64 << 20);
        let (url, sent) = server(HEAD, &LARGE, Duration::ZERO);
        let response = client.get(url).send().await.unwrap();
        assert!(whole(response, 1 << 20, |_| true).await.unwrap().is_none());
        assert!(sent.join().unwrap() < 64 << 20);
        let (url, _) = server("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"", Duration::ZERO);
        let response = client.get(url).send().await.unwrap();
        assert!(whole(response, 1 << 20, |_| true).await.unwrap().is_none());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_answer_that_trickles_is_left_after_a_time() {
        let client = client(|client| client.timeout(Duration::from_secs(2))).unwrap();
        let (url, _) = server(HEAD, "é".as_bytes(), Duration::from_millis(100));
        let response = client.get(&url).send().await.unwrap();
        let began = Instant::now();
        let text = beginning(response, 255, Duration::from_millis(500)).await;
        assert!(began.elapsed() < Duration::from_secs(2));
        assert!(!text.is_empty() && text.chars().all(|c| c == 'é'), "{text}");
        let (url, _) = server(HEAD, b"x", Duration::from_millis(100));
        let response = client.get(&url).send().await.unwrap();
        let began = Instant::now();
        assert!(whole(response, 1 << 20, |_| true).await.unwrap_err().is_timeout());
        assert!(began.elapsed() < Duration::from_secs(4));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_connection_that_nobody_takes_is_given_up_where_nothing_else_is_said() {
        // A listener whose queue is full answers nobody any more.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        let mut full = Vec::new();
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
            full.push(stream);
        }
        let client = client(|client| client).unwrap();
        let began = Instant::now();
        let error = client.get(format!("http://{addr}/")).send().await.unwrap_err();
        assert!(error.is_connect() && began.elapsed() < 2 * CONNECT, "{error}: {:?}", began.elapsed());
    }
}
