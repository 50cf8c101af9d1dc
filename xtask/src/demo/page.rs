//! The demonstration's own web server and client, so that nothing has to be installed for it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

/// How long a client or a server waits for the other side.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(crate) struct ServeOptions {
    /// Where to listen.
    address: SocketAddr,
    /// What the page greets with.
    #[arg(default_value = "hello")]
    greeting: String,
}

#[derive(Args)]
pub(crate) struct FetchOptions {
    /// The server.
    address: SocketAddr,
}

/// What a server said.
pub(crate) struct Page {
    /// The page's text.
    pub(crate) text: String,
    /// The client's address, as the server saw it.
    pub(crate) client: IpAddr,
}

/// Serves a page that tells each client the address it came from.
pub(crate) fn serve(options: &ServeOptions) -> Result<()> {
    let listener = listen(options.address)?;
    serve_on(&listener, &options.greeting);
    Ok(())
}

/// Prints the page of a server.
pub(crate) fn print(options: &FetchOptions) -> Result<()> {
    print!("{}", fetch(options.address)?.text);
    Ok(())
}

/// A listening socket in this thread's network namespace.
pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("listen on {address}"))
}

/// Answers until the process ends.
pub(crate) fn serve_on(listener: &TcpListener, greeting: &str) {
    thread::scope(|scope| {
        for stream in listener.incoming().flatten() {
            // A client that goes away half-way is none of the server's business.
            scope.spawn(move || answer(stream, greeting));
        }
    });
}

/// Fetches the page of a server.
pub(crate) fn fetch(server: SocketAddr) -> Result<Page> {
    let answer = (|| {
        let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET / HTTP/1.0\r\nHost: {server}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    })()
    .with_context(|| format!("fetch http://{server}/"))?;
    parse(&answer).with_context(|| format!("fetch http://{server}/"))
}

/// The page that a server's answer, or what [`print`] printed of it, holds.
pub(crate) fn parse(answer: &str) -> Result<Page> {
    let text = match answer.split_once("\r\n\r\n") {
        Some((head, text)) if head.starts_with("HTTP/1.0 200 ") => text,
        Some((head, _)) => bail!("the server answered {}", head.lines().next().unwrap_or_default()),
        None => answer,
    };
    let client =
        text.rsplit_once("you come from ").and_then(|(_, client)| client.trim().parse::<SocketAddr>().ok());
    let client = client.with_context(|| format!("no page, but {text:?}"))?;
    Ok(Page { text: text.to_owned(), client: client.ip() })
}

fn answer(mut stream: TcpStream, greeting: &str) -> std::io::Result<()> {
    let client = stream.peer_addr()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    for line in BufReader::new(&stream).take(8192).lines() {
        if line?.is_empty() {
            break;
        }
    }
    let text = format!("{greeting}: you come from {client}\n");
    let length = text.len();
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_its_client_where_it_comes_from() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let server = listener.local_addr().unwrap();
        // The server lives as long as the test's process.
        thread::spawn(move || serve_on(&listener, "hello from the test"));
        let page = fetch(server).unwrap();
        assert!(page.text.starts_with("hello from the test: you come from 127.0.0.1:"), "{}", page.text);
        assert_eq!(page.client, IpAddr::from([127, 0, 0, 1]));
        assert_eq!(parse(&page.text).unwrap().client, page.client);
    }

    #[test]
    fn what_is_no_page_is_refused() {
        assert!(parse("").is_err());
        assert!(parse("HTTP/1.0 503 Busy\r\n\r\nhello: you come from 127.0.0.1:1\n").is_err());
        assert!(parse("hello: you come from nowhere\n").is_err());
    }
}
