//! The body as the upstream is going to read it: decompressed, and in UTF-8. What cannot be turned into that is not inspected,
//! and the setting `uninspected` decides.

use std::io::Read;

use bytes::Bytes;
use encoding_rs::Encoding;
use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE};

/// How many times its own size a body may take, once it takes more than [`SMALL`].
const MOST_RATIO: usize = 200;
const SMALL: usize = 16 << 10;
/// The largest window of Zstandard: RFC 9659. A decoder keeps so much before it gives anything out.
const LARGEST_WINDOW: u64 = 8 << 20;

/// Why a body, or a part of it, cannot be inspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It goes on behind what is held back.
    TooLong,
    /// Its encoding is unknown, applied more than once, or not what it says.
    Encoding,
    /// It is larger than may be inspected, or than its compressed size allows, once it is decompressed.
    Bomb,
    /// Its character set is unknown or not what it says, or a form is in one that changes what its bytes mean.
    Charset,
}

impl Unread {
    /// Returns a few words for the log.
    pub fn name(self) -> &'static str {
        match self {
            Unread::TooLong => "longer than inspect_body_bytes",
            Unread::Encoding => "content-encoding",
            Unread::Bomb => "larger than inspect_body_bytes when decompressed",
            Unread::Charset => "charset",
        }
    }
}

/// Returns a whole body as the rules are to see it, of at most `cap` bytes.
pub fn readable(headers: &HeaderMap, body: Bytes, cap: usize) -> Result<Bytes, Unread> {
    if body.is_empty() {
        return Ok(body);
    }
    in_utf8(headers, decompressed(headers, body, cap)?)
}

/// Checks what has come of a body that is shown to the rules as it is: it must not begin as one in another character set.
pub fn check_beginning(headers: &HeaderMap, body: &[u8]) -> Result<(), Unread> {
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.to_str()).transpose().map_err(|_| Unread::Charset)?;
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    let is_text = is_text(media(&kind));
    let in_utf16 = Encoding::for_bom(body).is_some_and(|(encoding, _)| is_utf16(encoding));
    if is_text && (in_utf16 || is_in_wide_units(body)) {
        return Err(Unread::Charset);
    }
    if !is_text && !kind.is_empty() {
        return Ok(());
    }
    match declared(body)?.as_deref() {
        None | Some("utf-8" | "us-ascii") => Ok(()),
        Some(_) => Err(Unread::Charset),
    }
}

fn decompressed(headers: &HeaderMap, body: Bytes, cap: usize) -> Result<Bytes, Unread> {
    let mut encodings = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        let value = value.to_str().map_err(|_| Unread::Encoding)?;
        encodings.extend(value.split(',').map(|name| name.trim().to_ascii_lowercase()));
    }
    encodings.retain(|name| name != "identity");
    let name = match &encodings[..] {
        [] => return Ok(body),
        [name] => name.as_str(),
        _ => return Err(Unread::Encoding),
    };
    let most = cap.min(SMALL.max(body.len().saturating_mul(MOST_RATIO)));
    let packed = &body[..];
    let read = |reader: &mut dyn Read| {
        let mut out = Vec::new();
        reader.take(most as u64 + 1).read_to_end(&mut out).map_err(|_| Unread::Encoding)?;
        if out.len() > most { Err(Unread::Bomb) } else { Ok(Bytes::from(out)) }
    };
    match name {
        // Of several members some read only the first one.
        "gzip" | "x-gzip" => whole(packed, |rest| read(&mut flate2::bufread::GzDecoder::new(rest))),
        "deflate" => {
            // Some send it without the header that it should have, and some read it so even if it has one.
            let zlib = whole(packed, |rest| read(&mut flate2::bufread::ZlibDecoder::new(rest)));
            let raw = whole(packed, |rest| read(&mut flate2::bufread::DeflateDecoder::new(rest)));
            match (zlib, raw) {
                (Ok(zlib), Err(Unread::Encoding)) => Ok(zlib),
                (Err(Unread::Encoding), raw) => raw,
                (Ok(zlib), Ok(raw)) if zlib == raw => Ok(zlib),
                (Ok(_), _) => Err(Unread::Encoding),
                (error, _) => error,
            }
        }
        "br" if has_large_window(packed) => Err(Unread::Bomb),
        "br" => whole(packed, |rest| read(&mut brotli_decompressor::Decompressor::new(Single(rest), 4096))),
        // Of several frames only the first one is decoded: what is behind it is not read.
        "zstd" if window(packed).ok_or(Unread::Encoding)? > LARGEST_WINDOW => Err(Unread::Bomb),
        "zstd" => whole(packed, |rest| {
            read(&mut ruzstd::decoding::StreamingDecoder::new(rest).map_err(|_| Unread::Encoding)?)
        }),
        _ => Err(Unread::Encoding),
    }
}

/// The window that a frame of Zstandard asks for: RFC 8878, section 3.1.1.1.
fn window(frame: &[u8]) -> Option<u64> {
    let (descriptor, rest) = frame.strip_prefix(b"\x28\xb5\x2f\xfd")?.split_first()?;
    if descriptor & 0x20 == 0 {
        let window = u64::from(*rest.first()?);
        let base = 1 << (10 + (window >> 3));
        return Some(base + base / 8 * (window & 7));
    }
    // A single segment: the window is as large as the content.
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size = rest.get(dictionary..)?;
    let read = |length: usize| Some(size.get(..length)?.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte)));
    match descriptor >> 6 {
        0 => read(1),
        1 => Some(read(2)? + 256),
        2 => read(4),
        _ => read(8),
    }
}

/// Whether Brotli data has a window beyond those of RFC 7932, which has no meaning for these bits.
fn has_large_window(packed: &[u8]) -> bool {
    packed.first().is_some_and(|first| first & 0x7f == 0x11)
}

/// Reads a byte at a time, so that a decoder takes no more than it needs.
struct Single<'r, 'b>(&'r mut &'b [u8]);

impl Read for Single<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let one = buffer.len().min(1);
        self.0.read(&mut buffer[..one])
    }
}

/// What follows the compressed data is read by some and not by others.
fn whole(packed: &[u8], read: impl FnOnce(&mut &[u8]) -> Result<Bytes, Unread>) -> Result<Bytes, Unread> {
    let mut rest = packed;
    let out = read(&mut rest)?;
    if rest.is_empty() { Ok(out) } else { Err(Unread::Encoding) }
}

fn in_utf8(headers: &HeaderMap, body: Bytes) -> Result<Bytes, Unread> {
    let kind = match headers.get(CONTENT_TYPE).map(|kind| kind.to_str()) {
        None => String::new(),
        Some(Ok(kind)) => kind.to_ascii_lowercase(),
        Some(Err(_)) => return Err(Unread::Charset),
    };
    let charsets: Vec<&str> =
        kind.split(';').skip(1).filter_map(|parameter| parameter.trim().strip_prefix("charset")).collect();
    let media = media(&kind);
    let is_xml = media.contains("xml") || kind.is_empty() && looks_like_xml(&body);
    let is_text = is_xml || is_text(media);
    let named = match &charsets[..] {
        [] if is_xml => declared(&body)?,
        [] => None,
        [one] => Some(one.trim_start().strip_prefix('=').unwrap_or("?").trim().trim_matches(['"', '\'']).to_owned()),
        _ => return Err(Unread::Charset),
    };
    let mark = Encoding::for_bom(&body).map(|(encoding, _)| encoding);
    let encoding = match named.as_deref() {
        Some(label) => Some(Encoding::for_label(label.as_bytes()).ok_or(Unread::Charset)?),
        None => mark,
    };
    if let (Some(label), Some(encoding)) = (named.as_deref(), encoding)
        && (is_utf16(encoding) || mark.is_some_and(is_utf16))
    {
        // Without an order of bytes in the name there has to be a mark, and a mark has to agree.
        let ordered = matches!(label, "utf-16le" | "utf-16be");
        let agrees = if ordered { mark.is_none_or(|mark| mark == encoding) } else { mark.is_some_and(is_utf16) };
        if !agrees || !is_utf16(encoding) {
            return Err(Unread::Charset);
        }
    }
    if is_xml && !charsets.is_empty() {
        let own = declared(&body)?;
        let known = own.as_deref().map(|label| Encoding::for_label(label.as_bytes()).ok_or(Unread::Charset));
        if known.transpose()?.is_some_and(|own| Some(own) != encoding) {
            return Err(Unread::Charset);
        }
    }
    let ascii = encoding.is_none_or(|encoding| {
        encoding == encoding_rs::UTF_8 || encoding.is_ascii_compatible() && encoding.is_single_byte()
    });
    let hidden = is_in_wide_units(&body);
    match encoding {
        _ if is_text && hidden && ascii => Err(Unread::Charset),
        _ if ascii => Ok(body),
        Some(encoding) if is_text => match encoding.decode(&body) {
            (_, _, true) => Err(Unread::Charset),
            (text, _, false) => Ok(Bytes::from(text.into_owned())),
        },
        // In a form, what the percent signs stand for is in that character set.
        _ if named.is_some() => Err(Unread::Charset),
        // The mark at the beginning of a file is the file's own.
        _ => Ok(body),
    }
}

/// The type alone: parameters say nothing of what a body is.
fn media(kind: &str) -> &str {
    kind.split([';', ',']).next().unwrap_or_default().trim()
}

fn is_text(media: &str) -> bool {
    media.contains("xml") || media.contains("json") || media.starts_with("text/") || media.contains("graphql")
}

/// Whether it is in UTF-16 or UTF-32, announced or not.
fn is_in_wide_units(body: &[u8]) -> bool {
    body.iter().take(4).any(|byte| *byte == 0)
}

/// Whether it begins as XML with a declaration does, in ASCII or in EBCDIC.
fn looks_like_xml(body: &[u8]) -> bool {
    let head = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    head.starts_with(b"<?xml") || head.starts_with(b"\x4c\x6f\xa7\x94")
}

fn is_utf16(encoding: &Encoding) -> bool {
    encoding == encoding_rs::UTF_16LE || encoding == encoding_rs::UTF_16BE
}

/// The longest XML declaration that is looked at.
const LONGEST_DECLARATION: usize = 256;

/// The character set in an XML declaration, which is in ASCII or, behind a mark that says so, in UTF-16.
fn declared(body: &[u8]) -> Result<Option<String>, Unread> {
    let head = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    // The same five characters in EBCDIC.
    if head.starts_with(b"\x4c\x6f\xa7\x94") {
        return Err(Unread::Charset);
    }
    if !head.starts_with(b"<?xml") {
        return Ok(None);
    }
    let end = head.iter().take(LONGEST_DECLARATION).position(|byte| *byte == b'>').ok_or(Unread::Charset)?;
    let declaration = head.get(..end).and_then(|head| std::str::from_utf8(head).ok()).ok_or(Unread::Charset)?;
    let Some((_, value)) = declaration.split_once("encoding") else { return Ok(None) };
    let value = value.trim_start().strip_prefix('=').ok_or(Unread::Charset)?.trim_start();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\'')).ok_or(Unread::Charset)?;
    let (label, _) = value[1..].split_once(quote).ok_or(Unread::Charset)?;
    Ok(Some(label.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use hyper::header::HeaderValue;

    use super::*;

    fn read(lines: &[(&'static str, &str)], body: &[u8]) -> Result<Vec<u8>, Unread> {
        let headers = lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        readable(&headers, Bytes::copy_from_slice(body), 64 << 10).map(|body| body.to_vec())
    }

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        out.write_all(body).unwrap();
        out.finish().unwrap()
    }

    /// `q=<script>` in Brotli and in Zstandard, as their own programs write it.
    const BROTLI: &[u8] = &[139, 4, 128, 113, 61, 60, 115, 99, 114, 105, 112, 116, 62, 3];
    const ZSTD: &[u8] = &[40, 181, 47, 253, 32, 10, 81, 0, 0, 113, 61, 60, 115, 99, 114, 105, 112, 116, 62];

    #[test]
    fn compressed_bodies_are_read() {
        let plain = b"q=<script>";
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        zlib.write_all(plain).unwrap();
        let zlib = zlib.finish().unwrap();
        let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        raw.write_all(plain).unwrap();
        let raw = raw.finish().unwrap();
        for (name, packed) in [
            ("gzip", gzip(plain)),
            ("x-gzip, identity", gzip(plain)),
            ("deflate", zlib.clone()),
            ("deflate", raw),
            ("br", BROTLI.to_vec()),
            ("zstd", ZSTD.to_vec()),
        ] {
            assert_eq!(read(&[("content-encoding", name)], &packed).as_deref(), Ok(&plain[..]), "{name}");
            let cut = &packed[..packed.len() - 3];
            assert_eq!(read(&[("content-encoding", name)], cut), Err(Unread::Encoding), "{name}, cut");
            let more = [&packed[..], b"q=<svg>"].concat();
            assert_eq!(
                read(&[("content-encoding", name)], &more),
                Err(Unread::Encoding),
                "{name}, with more behind it"
            );
        }
    }

    #[test]
    fn what_no_one_can_read_is_not_read() {
        let packed = gzip(b"a=1");
        for name in ["gzip, gzip", "br, gzip", "compress", "", "gzip;q=1", "aws-chunked"] {
            assert_eq!(read(&[("content-encoding", name)], &packed), Err(Unread::Encoding), "{name}");
        }
        let joined = [gzip(b"a=1"), gzip(b"&q=<script>")].concat();
        assert_eq!(read(&[("content-encoding", "gzip")], &joined), Err(Unread::Encoding), "joined members");
        let twice = [("content-encoding", "gzip"), ("content-encoding", "gzip")];
        assert_eq!(read(&twice, &gzip(&packed)), Err(Unread::Encoding));
        assert_eq!(read(&[("content-encoding", "gzip")], &gzip(&vec![b'a'; 1 << 20])), Err(Unread::Bomb));
        assert_eq!(read(&[("content-encoding", "gzip")], &gzip(&vec![b'a'; 60 << 10])), Err(Unread::Bomb));
    }

    #[test]
    fn a_type_or_a_declaration_that_hides_the_character_set_is_not_read() {
        let strange = HeaderValue::from_bytes(b"text/plain; x=\xe9; charset=ibm037").unwrap();
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, strange)]);
        assert_eq!(readable(&headers, Bytes::from_static(b"q=1"), 64), Err(Unread::Charset));
        let of = |kind: &str, body: &str| read(&[("content-type", kind)], body.as_bytes());
        let xml = |label: &str| format!("<?xml version='1.0' encoding='{label}'?><a/>");
        for (kind, label) in [("text/xml", "utf-8"), ("text/xml; charset=utf-8", "UTF-8")] {
            assert_eq!(of(kind, &xml(label)), Ok(xml(label).into_bytes()), "{kind}, {label}");
        }
        assert!(of("text/xml; charset=utf-8", "<?xml version='1.0'?><a/>").is_ok());
        for label in ["utf-7", "ibm037", "iso-8859-5", "utf-16", "shift_jis"] {
            assert_eq!(of("text/xml; charset=utf-8", &xml(label)), Err(Unread::Charset), "{label}");
        }
        let long = format!("<?xml version='1.0' {}encoding='utf-7'?><a/>", " ".repeat(256));
        assert_eq!(of("text/xml", &long), Err(Unread::Charset));
        assert_eq!(of("application/soap+xml; charset=utf-8", &long), Err(Unread::Charset));
        for kind in ["text/xml", "text/xml; charset=utf-8"] {
            assert_eq!(read(&[("content-type", kind)], b"\x4c\x6f\xa7\x94\x93"), Err(Unread::Charset), "{kind}");
        }
        assert_eq!(read(&[], b"\x4c\x6f\xa7\x94\x93"), Err(Unread::Charset));
    }

    #[test]
    fn a_beginning_in_another_character_set_does_not_go_on() {
        let check = |kind: &'static str, body: &[u8]| {
            let kind = (!kind.is_empty()).then(|| (CONTENT_TYPE, HeaderValue::from_static(kind)));
            check_beginning(&kind.into_iter().collect(), body)
        };
        for kind in ["", "text/plain", "application/x-ndjson"] {
            for body in [
                &b"<?xml version='1.0' encoding='utf-7'?><q>"[..],
                b" <?xml version='1.0' encoding=\"ISO-8859-5\"?>",
                b"<?xml version='1.0' enc",
                b"\x4c\x6f\xa7\x94\x93",
            ] {
                assert_eq!(check(kind, body), Err(Unread::Charset), "{kind}: {body:?}");
            }
            for body in [
                &b""[..],
                b"q=1",
                b"<?x",
                b"<?xml version='1.0'?><q>",
                b"\xef\xbb\xbf<?xml version='1.0' encoding='UTF-8'?>",
                b"<?xml version='1.0' encoding='us-ascii'?>",
            ] {
                assert_eq!(check(kind, body), Ok(()), "{kind}: {body:?}");
            }
        }
        for body in [&b"\xff\xfe{\0"[..], b"{\0\"\0", b"\0{\0\"", b"\xfe\xff\0{"] {
            assert_eq!(check("text/plain", body), Err(Unread::Charset), "{body:?}");
            assert_eq!(check("application/x-ndjson", body), Err(Unread::Charset), "{body:?}");
            // The rules read them in such a one.
            assert_eq!(check("", body), Ok(()), "{body:?}");
            assert_eq!(check("application/octet-stream", body), Ok(()), "{body:?}");
        }
        let strange = HeaderValue::from_bytes(b"text/plain\xe9").unwrap();
        assert_eq!(check_beginning(&[(CONTENT_TYPE, strange)].into_iter().collect(), b"q"), Err(Unread::Charset));
    }

    /// Two readings: behind a header of zlib, a block of `0xfefe` bytes and their checksum; and without one, two blocks.
    #[test]
    fn what_is_deflated_in_two_ways_is_not_read() {
        let mut data = vec![b'a'; 0xfefe];
        let second = 65_022_u16;
        data[255] = 1;
        data[256..258].copy_from_slice(&second.to_le_bytes());
        data[258..260].copy_from_slice(&(!second).to_le_bytes());
        let (mut low, mut high) = (1_u32, 0_u32);
        for byte in &data {
            low = (low + u32::from(*byte)) % 65_521;
            high = (high + low) % 65_521;
        }
        let packed = [&[0x78, 1, 1, 0xfe, 0xfe, 1, 1][..], &data, &(high << 16 | low).to_be_bytes()].concat();
        let mut ways = [Vec::new(), Vec::new()];
        flate2::bufread::ZlibDecoder::new(&packed[..]).read_to_end(&mut ways[0]).unwrap();
        flate2::bufread::DeflateDecoder::new(&packed[..]).read_to_end(&mut ways[1]).unwrap();
        assert!(ways[0] == data && ways[0] != ways[1]);
        assert_eq!(read(&[("content-encoding", "deflate")], &packed), Err(Unread::Encoding));
    }

    #[test]
    fn large_windows_are_refused_before_anything_is_decoded() {
        let magic = b"\x28\xb5\x2f\xfd";
        // The last block, raw, of one byte.
        let block = b"\x09\0\0a";
        let zstd = |header: &[u8]| read(&[("content-encoding", "zstd")], &[&magic[..], header, block].concat());
        assert_eq!(zstd(&[0, 0x68]).as_deref(), Ok(&b"a"[..]), "8 MiB");
        assert_eq!(zstd(&[0x20, 1]).as_deref(), Ok(&b"a"[..]));
        for header in [
            &[0, 0x69][..],
            &[0, 0x80],
            &[0, 0xff],
            &[0x40, 0x69, 0, 0],
            &[0xa0, 1, 0, 0x80, 0],
            &[0xa1, 0, 1, 0, 0x80, 0],
            &[0xa3, 0, 0, 0, 0, 1, 0, 0x80, 0],
            &[0xe0, 0, 0, 0, 0, 0, 0, 0, 0x80],
        ] {
            assert_eq!(zstd(header), Err(Unread::Bomb), "{header:x?}");
        }
        let twice = [ZSTD, magic, &[0, 0xff], block].concat();
        assert_eq!(read(&[("content-encoding", "zstd")], &twice), Err(Unread::Encoding));
        assert_eq!(read(&[("content-encoding", "zstd")], magic), Err(Unread::Encoding));
        for first in [0x11, 0x91] {
            assert_eq!(read(&[("content-encoding", "br")], &[first, 0x1e, 3]), Err(Unread::Bomb));
        }
    }

    #[test]
    fn character_sets_are_read_or_refused() {
        let utf16: Vec<u8> = "\u{feff}<script>".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let of = |kind: &str, body: &[u8]| read(&[("content-type", kind)], body);
        assert_eq!(of("text/plain; charset=utf-16le", &utf16[2..]).as_deref(), Ok(&b"<script>"[..]));
        assert_eq!(of("application/json", &utf16).as_deref(), Ok(&b"<script>"[..]));
        assert_eq!(of("application/json", &utf16[2..]), Err(Unread::Charset));
        assert_eq!(of("application/json; charset=utf-8", &utf16[2..]), Err(Unread::Charset));
        assert_eq!(of("text/plain; charset=\"windows-1251\"", b"q=1").as_deref(), Ok(&b"q=1"[..]));
        assert_eq!(of("text/plain; charset=shift_jis", b"\x83\x5c").as_deref(), Ok("ソ".as_bytes()));
        assert_eq!(of("text/xml", b"<?xml version='1.0' encoding='utf-7'?>"), Err(Unread::Charset));
        for kind in [
            "application/x-www-form-urlencoded; charset=ibm037",
            "application/x-www-form-urlencoded; charset=utf-16",
            "application/x-www-form-urlencoded; charset=shift_jis",
            "multipart/form-data; boundary=x; charset=utf-16",
            "text/plain; charset=utf-7",
            "text/plain; charset=utf-8; charset=utf-16",
            "text/plain; charset",
        ] {
            assert_eq!(of(kind, b"q=1"), Err(Unread::Charset), "{kind}");
        }
        let be: Vec<u8> = "\u{feff}<script>".encode_utf16().flat_map(u16::to_be_bytes).collect();
        for label in ["utf-16", "unicode", "ucs-2", "csunicode", "iso-10646-ucs-2", "UTF-16"] {
            let kind = format!("text/plain; charset={label}");
            assert_eq!(of(&kind, &utf16[2..]), Err(Unread::Charset), "{label}");
            assert_eq!(of(&kind, &utf16).as_deref(), Ok(&b"<script>"[..]), "{label}");
            assert_eq!(of(&kind, &be).as_deref(), Ok(&b"<script>"[..]), "{label}");
        }
        assert_eq!(of("text/plain; charset=utf-16be", &be).as_deref(), Ok(&b"<script>"[..]));
        assert_eq!(of("text/plain; charset=utf-16be", &utf16), Err(Unread::Charset));
        assert_eq!(of("text/plain; charset=utf-16le", &be), Err(Unread::Charset));
        assert_eq!(of("text/plain; charset=utf-8", &be), Err(Unread::Charset));
        // What is no text is in no character set that could be undone, whatever its parameters say.
        for parameter in ["x=json", "boundary=xml", "a=text/plain"] {
            let kind = format!("application/x-www-form-urlencoded; {parameter}; charset=utf-16le");
            assert_eq!(of(&kind, &utf16[2..]), Err(Unread::Charset), "{kind}");
        }
        assert_eq!(of("image/png", b"\0\0\0\0").as_deref(), Ok(&b"\0\0\0\0"[..]));
    }
}
