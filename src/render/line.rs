//! The text of rows, which are many: numbers and addresses as the standard library writes them, without its machinery.

use std::fmt::{self, Write};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// Where the text of a cell goes. What [`Line`] has ways of its own for, a [`String`] gets from the standard library.
pub trait Put: Write {
    /// Appends text of ours, which is ASCII.
    ///
    /// # Errors
    /// Those of the writer.
    fn ascii(&mut self, text: &str) -> fmt::Result {
        self.write_str(text)
    }

    /// Appends a decimal number.
    ///
    /// # Errors
    /// Those of the writer.
    fn number(&mut self, number: u64) -> fmt::Result {
        write!(self, "{number}")
    }

    /// Appends a hexadecimal number.
    ///
    /// # Errors
    /// Those of the writer.
    fn hex(&mut self, number: u64) -> fmt::Result {
        write!(self, "{number:x}")
    }

    /// Appends an address.
    ///
    /// # Errors
    /// Those of the writer.
    fn ip(&mut self, ip: IpAddr) -> fmt::Result {
        write!(self, "{ip}")
    }
}

impl Put for String {}

/// Room for the digits of a number.
pub(super) type NumberRoom = [u8; 20];

/// Room for an address, and for what is written at once behind it.
pub(super) type IpRoom = [u8; 64];

/// The two digits of each number below 100.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let (mut rest, mut n) = (pairs.as_mut_slice(), 0);
    while let Some((pair, behind)) = rest.split_first_mut() {
        *pair = [b'0' + n / 10, b'0' + n % 10];
        (rest, n) = (behind, n + 1);
    }
    pairs
};

/// The digits of each byte and a dot.
const OCTETS: [[u8; 4]; 256] = {
    let mut octets = [[b'.'; 4]; 256];
    let (mut rest, mut n) = (octets.as_mut_slice(), 0u8);
    while let Some((octet, behind)) = rest.split_first_mut() {
        let [hundreds, tens, ones] = [b'0' + n / 100, b'0' + n / 10 % 10, b'0' + n % 10];
        *octet = match n {
            0..10 => [ones, b'.', b'.', b'.'],
            10..100 => [tens, ones, b'.', b'.'],
            100.. => [hundreds, tens, ones, b'.'],
        };
        (rest, n) = (behind, n.wrapping_add(1));
    }
    octets
};

/// So many bytes of rows are written at once.
pub(super) const PAGE: usize = 64 * 1024;

/// Text in a buffer that is used again. It has room behind its end, so that a few bytes are written at once, however
/// many of them count.
#[derive(Debug, Default)]
pub(super) struct Line {
    bytes: Vec<u8>,
    end: usize,
    /// whether something was appended since [`Line::mark`] that may take other than a column a byte
    wide: bool,
}

impl Line {
    pub(super) const fn len(&self) -> usize {
        self.end
    }

    #[cfg(test)]
    pub(super) const fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) const fn clear(&mut self) {
        self.end = 0;
    }

    /// The text. Only text was appended, so all of it is here.
    pub(super) fn text(&self, range: Range<usize>) -> &str {
        let bytes = self.bytes.get(range).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// Writes the text out if it fills a page.
    #[inline]
    pub(super) fn turn(&mut self, out: &mut impl io::Write) -> io::Result<()> {
        if self.end < PAGE {
            return Ok(());
        }
        self.write_out(out)
    }

    /// Writes the text out.
    pub(super) fn write_out(&mut self, out: &mut impl io::Write) -> io::Result<()> {
        out.write_all(self.bytes())?;
        self.end = 0;
        Ok(())
    }

    /// The text for the writer.
    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.end).unwrap_or_default()
    }

    /// Where the next text begins.
    #[inline]
    pub(super) const fn mark(&mut self) -> usize {
        self.wide = false;
        self.end
    }

    /// The columns that the text from `start` takes on a terminal, `start` being the last [`Line::mark`].
    #[inline]
    pub(super) fn width_from(&self, start: usize) -> usize {
        if self.wide {
            super::text::width(self.text(start..self.end))
        } else {
            self.end - start
        }
    }

    /// Appends so many blanks.
    #[inline]
    pub(super) fn blanks(&mut self, mut count: usize) -> fmt::Result {
        const MOST: usize = 32;
        while count > 0 {
            let some = count.min(MOST);
            *self.room::<MOST>()? = [b' '; MOST];
            self.end += some;
            count -= some;
        }
        Ok(())
    }

    /// Puts so many blanks before the text from `start`.
    #[inline]
    pub(super) fn indent(&mut self, start: usize, blanks: usize) -> fmt::Result {
        if blanks == 0 {
            return Ok(());
        }
        let end = self.end;
        self.blanks(blanks)?;
        self.bytes.copy_within(start..end, start + blanks);
        if let Some(before) = self.bytes.get_mut(start..start + blanks) {
            before.fill(b' ');
        }
        Ok(())
    }

    /// Appends a piece of another line.
    #[inline]
    pub(super) fn piece(&mut self, line: &Self, range: Range<usize>) -> fmt::Result {
        /// Most cells are not longer.
        const SHORT: usize = 32;
        let length = range.len();
        let behind = line.bytes.get(range.start..).unwrap_or_default();
        match behind.first_chunk::<SHORT>() {
            Some(chunk) if length <= SHORT => {
                *self.room()? = *chunk;
                self.end += length;
            }
            _ => self.append(behind.get(..length).unwrap_or_default()),
        }
        Ok(())
    }

    /// The next bytes behind the text.
    #[inline]
    fn room<const N: usize>(&mut self) -> Result<&mut [u8; N], fmt::Error> {
        if self.bytes.len() - self.end < N {
            self.grow(N);
        }
        let behind = self.bytes.get_mut(self.end..);
        behind.and_then(<[u8]>::first_chunk_mut).ok_or(fmt::Error)
    }

    #[cold]
    fn grow(&mut self, by: usize) {
        let size = (self.end + by).next_power_of_two().max(1024);
        self.bytes.resize(size, 0);
    }

    // So that text of a known length is a few stores.
    #[inline(always)]
    fn append(&mut self, text: &[u8]) {
        if self.bytes.len() - self.end < text.len() {
            self.grow(text.len());
        }
        let end = self.end + text.len();
        if let Some(room) = self.bytes.get_mut(self.end..end) {
            room.copy_from_slice(text);
            self.end = end;
        }
    }
}

/// Writes a decimal number and says how many digits it has.
#[inline]
pub(super) fn decimal(room: &mut NumberRoom, number: u64) -> usize {
    let digits = number.checked_ilog10().unwrap_or(0) as usize + 1;
    let mut places = room.get_mut(..digits).unwrap_or_default();
    let mut rest = number;
    // From the end, two digits at once.
    while rest > 9 {
        let Some((before, pair)) = std::mem::take(&mut places).split_last_chunk_mut() else {
            break;
        };
        *pair = PAIRS
            .get((rest % 100) as usize)
            .copied()
            .unwrap_or_default();
        (places, rest) = (before, rest / 100);
    }
    if let Some(first) = places.first_mut() {
        *first = b'0' + rest as u8;
    }
    digits
}

/// Writes a hexadecimal number and says how many digits it has.
#[inline]
pub(super) fn hexadecimal(room: &mut NumberRoom, number: u64) -> usize {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let digits = number.checked_ilog2().unwrap_or(0) as usize / 4 + 1;
    let mut rest = number;
    for place in room.iter_mut().take(digits).rev() {
        *place = DIGITS
            .get((rest & 15) as usize)
            .copied()
            .unwrap_or_default();
        rest >>= 4;
    }
    digits
}

/// Writes an address and says how many bytes it has.
#[inline]
pub(super) fn address(room: &mut IpRoom, ip: IpAddr) -> usize {
    match ip {
        IpAddr::V4(ip) => ipv4(room, 0, ip),
        IpAddr::V6(ip) => ipv6(room, ip),
    }
}

/// Writes an address from `start` and says where it ends.
#[inline]
fn ipv4(room: &mut IpRoom, start: usize, ip: Ipv4Addr) -> usize {
    let mut end = start;
    for octet in ip.octets() {
        let place = room.get_mut(end..).and_then(<[u8]>::first_chunk_mut);
        if let (Some(place), Some(text)) = (place, OCTETS.get(usize::from(octet))) {
            *place = *text;
        }
        end += 2 + usize::from(octet > 9) + usize::from(octet > 99);
    }
    // Without the last dot.
    end - 1
}

/// As RFC 5952 has it: the first of the longest runs of noughts is left out, and a v4-mapped address has its dots.
fn ipv6(room: &mut IpRoom, ip: Ipv6Addr) -> usize {
    let mut end = 0;
    let mut put = |bytes: &NumberRoom, length| {
        let place = room.get_mut(end..).and_then(<[u8]>::first_chunk_mut);
        if let Some(place) = place {
            *place = *bytes;
        }
        end += length;
    };
    const COLONS: NumberRoom = [b':'; 20];
    if let Some(ip) = ip.to_ipv4_mapped() {
        put(b"::ffff:             ", 7);
        return ipv4(room, 7, ip);
    }
    let segments = ip.segments();
    let left_out = noughts(&segments);
    for (at, segment) in segments.into_iter().enumerate() {
        if left_out.contains(&at) {
            if at == left_out.start {
                put(&COLONS, 2);
            }
            continue;
        }
        if at > 0 && at != left_out.end {
            put(&COLONS, 1);
        }
        let mut digits = NumberRoom::default();
        let length = hexadecimal(&mut digits, u64::from(segment));
        put(&digits, length);
    }
    end
}

/// The first of the longest runs of noughts; empty if none has two.
fn noughts(segments: &[u16; 8]) -> Range<usize> {
    let (mut longest, mut run) = (0..0, 0..0);
    for (at, segment) in segments.iter().enumerate() {
        if *segment != 0 {
            continue;
        }
        run = if run.end == at { run.start } else { at }..at + 1;
        if run.len() > longest.len().max(1) {
            longest = run.clone();
        }
    }
    longest
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.wide |= !text.is_ascii();
        self.append(text.as_bytes());
        Ok(())
    }
}

impl Put for Line {
    #[inline(always)]
    fn ascii(&mut self, text: &str) -> fmt::Result {
        self.append(text.as_bytes());
        Ok(())
    }

    #[inline]
    fn number(&mut self, number: u64) -> fmt::Result {
        let digits = decimal(self.room()?, number);
        self.end += digits;
        Ok(())
    }

    #[inline]
    fn hex(&mut self, number: u64) -> fmt::Result {
        let digits = hexadecimal(self.room()?, number);
        self.end += digits;
        Ok(())
    }

    #[inline]
    fn ip(&mut self, ip: IpAddr) -> fmt::Result {
        let length = address(self.room()?, ip);
        self.end += length;
        Ok(())
    }
}

impl io::Write for Line {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes);
        Ok(bytes.len())
    }

    #[inline(always)]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.append(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(put: impl FnOnce(&mut Line) -> fmt::Result) -> String {
        let mut line = Line::default();
        put(&mut line).unwrap();
        line.text(0..line.len()).to_owned()
    }

    #[test]
    fn numbers_of_every_length_are_whole() {
        let tens = (0..20).map(|power| 10u64.pow(power));
        for n in tens.flat_map(|n| [n - 1, n, n + 1]).chain([u64::MAX]) {
            assert_eq!(line(|line| line.number(n)), n.to_string());
        }
        for n in (0..64).map(|bit| 1u64 << bit).flat_map(|n| [n - 1, n]) {
            assert_eq!(line(|line| line.hex(n)), format!("{n:x}"));
        }
        assert_eq!(line(|line| line.hex(u64::MAX)), "ffffffffffffffff");
    }

    #[test]
    fn of_ipv6_the_first_of_the_longest_runs_is_left_out() {
        for text in [
            "::",
            "::1",
            "1::",
            "1:0:2:3:4:5:6:7",
            "1::2:0:0:3:4",
            "1:0:0:2::3",
            "0:1:2:3:4:5:6:0",
            "::ffff:1.2.3.4",
            "::ffff:0.0.0.0",
            "::1.2.3.4",
            "fe80::1:0:0:1",
        ] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(line(|line| line.ip(ip)), ip.to_string(), "{text}");
        }
    }

    #[test]
    fn a_piece_is_copied_whole_whatever_is_behind_it() {
        let long = "x".repeat(100);
        let mut from = Line::default();
        for text in ["ab", &long, "c"] {
            from.write_str(text).unwrap();
        }
        let mut line = Line::default();
        for range in [0..2, 2..102, 102..103, 102..102] {
            line.piece(&from, range).unwrap();
            line.blanks(1).unwrap();
        }
        line.blanks(70).unwrap();
        let want = format!("ab {long} c  {}", " ".repeat(70));
        assert_eq!(line.text(0..line.len()), want);
        assert_eq!(line.bytes(), want.as_bytes());
        line.clear();
        line.number(12_345).unwrap();
        for blanks in [0, 3, 40] {
            line.indent(2, blanks).unwrap();
        }
        let want = format!("12{}345", " ".repeat(43));
        assert_eq!(line.text(0..line.len()), want);
    }

    #[test]
    fn what_is_no_ascii_has_the_width_that_it_takes() {
        let mut line = Line::default();
        line.write_str("服务器").unwrap();
        assert_eq!(line.width_from(0), 6);
        let start = line.mark();
        line.number(12).unwrap();
        assert_eq!(line.width_from(start), 2);
    }

    proptest! {
        #[test]
        fn all_is_as_the_standard_library_writes_it(n: u64, shift in 0u32..64, v4: u32, words: [u16; 8], keep: u8) {
            let n = n >> shift;
            prop_assert_eq!(line(|line| line.number(n)), n.to_string());
            prop_assert_eq!(line(|line| line.hex(n)), format!("{n:x}"));
            // Noughts are rare by chance.
            let mut bit = 0;
            let words = words.map(|word| {
                bit += 1;
                if keep >> (bit - 1) & 1 == 1 { word } else { 0 }
            });
            for ip in [IpAddr::from(v4.to_be_bytes()), IpAddr::from(words)] {
                prop_assert_eq!(line(|line| line.ip(ip)), ip.to_string());
            }
        }
    }
}
