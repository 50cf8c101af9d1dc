//! Reading of what somebody else has written, who may have written as much as he liked: up to a bound, and an error beyond.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    path::Path,
};

/// Of a file with settings: `daemon.json`, certificates, `resolv.conf`.
pub(crate) const SETTINGS: usize = 1 << 20;
/// Of the host's `hosts`, for which lists of some 100 000 names are in use.
pub(crate) const HOSTS: usize = 16 << 20;
/// Of what an engine says to a plugin: a port map with every port of an address is 7 MB.
pub(crate) const CALL: usize = 16 << 20;
/// Of a record of rnet's own, or an answer of dockerd's: a container that publishes every port is 8 MB.
pub(crate) const RECORD: usize = 64 << 20;
/// Of a file with one word or number in it.
pub(crate) const WORD: usize = 4 << 10;

/// All that there is.
///
/// # Errors
/// It cannot be read; there are more than `most` bytes ([`ErrorKind::FileTooLarge`]).
pub(crate) fn read(from: impl Read, most: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    // One byte too many says that there are more.
    from.take(most as u64 + 1).read_to_end(&mut content)?;
    if content.len() > most {
        let why = format!("it is larger than {most} bytes, which is the most");
        return Err(io::Error::new(ErrorKind::FileTooLarge, why));
    }
    Ok(content)
}

/// The same of text.
///
/// # Errors
/// As those of [`read`]; it is not UTF-8.
pub(crate) fn read_text(from: impl Read, most: usize) -> io::Result<String> {
    String::from_utf8(read(from, most)?)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

/// A whole file.
///
/// # Errors
/// As those of [`read`].
pub(crate) fn file(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    read(File::open(path)?, most)
}

/// A whole file of text.
///
/// # Errors
/// As those of [`read_text`].
pub(crate) fn text_file(path: &Path, most: usize) -> io::Result<String> {
    read_text(File::open(path)?, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_than_may_be() {
        assert_eq!(read(&b"four"[..], 4).unwrap(), b"four");
        // Nobody would see the end of it.
        let endless = io::repeat(b'x');
        let refused = read(endless, 1000).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::FileTooLarge);
        assert_eq!(refused.to_string(), "it is larger than 1000 bytes, which is the most");
        assert_eq!(read_text(&b"\xff"[..], 4).unwrap_err().kind(), ErrorKind::InvalidData);
        let mut sparse = tempfile::NamedTempFile::new().unwrap();
        io::Write::write_all(&mut sparse, b"text").unwrap();
        assert_eq!(text_file(sparse.path(), 4).unwrap(), "text");
        sparse.as_file().set_len(1 << 40).unwrap();
        assert_eq!(file(sparse.path(), RECORD).unwrap_err().kind(), ErrorKind::FileTooLarge);
    }
}
