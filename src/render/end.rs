//! An end of a socket that has no port of TCP or UDP, as a cell: `NAME:INODE`, `PROTOCOL:INTERFACE`, `FAMILY:PORT-ID`,
//! `CID:PORT`. The last colon parts it, whatever stands before, and there are no blanks, so that a cell can be cut out
//! and pasted. Nothing is allocated.

use std::fmt::{self, Write};

use super::cell::{write_interface, write_ip};
use super::line::Put;
use super::text::Safe;
use crate::fields::{End, Record};
use crate::model::Ends;
use crate::model::numbers::{ethertype, ip_protocol, netlink_family};
use crate::model::printable::is_printable;
use crate::model::unix::Name;

/// Appends `end` to `out`, safe to print.
pub(super) fn write(out: &mut impl Put, end: &End<'_>) -> fmt::Result {
    match end {
        End::Raw {
            ip,
            protocol,
            interface,
        } => {
            write_ip(out, *ip)?;
            if let Some(interface) = interface {
                out.write_char('%')?;
                write_interface(out, interface)?;
            }
            match ip_protocol(*protocol) {
                Some(name) => write!(out, ":{name}"),
                None => write!(out, ":{protocol}"),
            }
        }
        End::Unix { name, inode } => {
            match name {
                Some(name) => write_name(out, *name)?,
                None => out.write_char('*')?,
            }
            write_number(out, (*inode != 0).then_some(*inode))
        }
        End::Packet {
            ethertype: number,
            interface,
        } => {
            match ethertype(*number) {
                Some(name) => out.write_str(name)?,
                None => write!(out, "0x{number:04x}")?,
            }
            match interface {
                Some(interface) => {
                    out.write_char(':')?;
                    write_interface(out, interface)
                }
                None => out.write_str(":*"),
            }
        }
        End::Netlink {
            family,
            portid,
            holder,
        } => {
            match netlink_family(*family) {
                Some(name) => out.write_str(name)?,
                None => write!(out, "{family}")?,
            }
            match (portid, holder) {
                (0, _) => out.write_str(":kernel"),
                (portid, Some(holder)) => {
                    out.write_char(':')?;
                    for c in holder.chars() {
                        write_char(out, c)?;
                    }
                    write!(out, "/{portid}")
                }
                (portid, None) => write!(out, ":{portid}"),
            }
        }
        End::Vsock { cid, port } => {
            match *cid {
                u32::MAX => out.write_char('*')?,
                cid => write!(out, "{cid}")?,
            }
            write_number(out, (*port != u32::MAX).then_some(*port))
        }
    }
}

/// Appends what `-e` adds, each word with a blank before it.
pub(super) fn write_extended(out: &mut impl Write, record: &Record<'_>) -> fmt::Result {
    match record.ends {
        Ends::Ip | Ends::Vsock(_) => Ok(()),
        Ends::Unix(unix) => {
            if let Some((device, inode)) = unix.file {
                // A number of the kernel's own: twelve bits of major, twenty of minor (`include/linux/kdev_t.h`).
                let (major, minor) = (device >> 20, device & 0xf_ffff);
                write!(out, " file:{major}:{minor}/{inode}")?;
            }
            match unix.waiting.map(|waiting| waiting.len() / 4) {
                Some(waiting) if waiting > 0 => write!(out, " pending:{waiting}"),
                _ => Ok(()),
            }
        }
        Ends::Packet(packet) => {
            if let Some(bytes) = packet.rx_ring {
                write!(out, " rx-ring:{bytes}")?;
            }
            if let Some(bytes) = packet.tx_ring {
                write!(out, " tx-ring:{bytes}")?;
            }
            match packet.fanout {
                Some(fanout) => write!(out, " fanout:{}/{}", fanout & 0xffff, fanout >> 16),
                None => Ok(()),
            }
        }
        Ends::Netlink(netlink) => {
            for (at, group) in netlink.joined().enumerate() {
                let before = if at == 0 { " groups:" } else { "," };
                write!(out, "{before}{group}")?;
            }
            match netlink.drops {
                Some(drops) if drops > 0 => write!(out, " drops:{drops}"),
                _ => Ok(()),
            }
        }
    }
}

/// Appends the name of a UNIX socket, safe to print. What is not printable, no UTF-8 or blank is shown as `\x1b`,
/// because a cell has no blanks; an abstract name has `@` in front.
pub(super) fn write_name(out: &mut impl Write, name: Name<'_>) -> fmt::Result {
    for piece in name.pieces() {
        match piece {
            Ok(c) => write_char(out, c)?,
            Err(bytes) => {
                for byte in bytes {
                    write!(out, "\\x{byte:02x}")?;
                }
            }
        }
    }
    Ok(())
}

fn write_char(out: &mut impl Write, c: char) -> fmt::Result {
    if c == ' ' {
        out.write_str("\\x20")
    } else if is_printable(c) {
        out.write_char(c)
    } else {
        write!(out, "{}", Safe(c.encode_utf8(&mut [0; 4])))
    }
}

fn write_number(out: &mut impl Write, number: Option<u32>) -> fmt::Result {
    match number {
        Some(number) => write!(out, ":{number}"),
        None => out.write_str(":*"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::Interface;

    fn cell(end: End<'_>) -> String {
        let mut out = String::new();
        write(&mut out, &end).unwrap();
        out
    }

    fn unix(name: &[u8], inode: u32) -> String {
        let name = Name::new(name);
        cell(End::Unix { name, inode })
    }

    #[test]
    fn names_are_whole_safe_and_without_blanks() {
        assert_eq!(unix(b"/run/x\0", 12), "/run/x:12");
        assert_eq!(unix(b"\0/tmp/.X11-unix/X0", 12), "@/tmp/.X11-unix/X0:12");
        assert_eq!(unix(b"", 0), "*:*");
        assert_eq!(
            unix(b"/a b\n\x1b[31m\xff\"=\xe2\x80\xae", 1),
            "/a\\x20b\\x0a\\x1b[31m\\xff\"=\\u{202e}:1"
        );
        let long = [b'/'; 107];
        assert_eq!(unix(&long, 4_294_967_295).len(), 107 + 11);
    }

    #[test]
    fn the_numbers_in_place_of_ports_have_their_names() {
        let interface = Some(Interface {
            index: 2,
            name: Some("eth0"),
        });
        let raw = |ip: &str, protocol, interface| {
            let ip = ip.parse().unwrap();
            cell(End::Raw {
                ip,
                protocol,
                interface,
            })
        };
        assert_eq!(raw("0.0.0.0", 1, None), "0.0.0.0:icmp");
        assert_eq!(raw("::", 58, interface), "[::]%eth0:ipv6-icmp");
        assert_eq!(raw("::", 253, None), "[::]:253");
        let packet = |ethertype, interface| {
            cell(End::Packet {
                ethertype,
                interface,
            })
        };
        assert_eq!(packet(3, None), "*:*");
        assert_eq!(packet(0x806, interface), "arp:eth0");
        assert_eq!(packet(0x1234, None), "0x1234:*");
        let netlink = |family, portid, holder| {
            cell(End::Netlink {
                family,
                portid,
                holder,
            })
        };
        assert_eq!(netlink(0, 0, Some("x")), "rtnl:kernel");
        assert_eq!(netlink(9, 77, Some("a b")), "audit:a\\x20b/77");
        assert_eq!(netlink(99, 4_000_000_000, None), "99:4000000000");
        let vsock = |cid, port| cell(End::Vsock { cid, port });
        assert_eq!(vsock(2, 1024), "2:1024");
        assert_eq!(vsock(u32::MAX, u32::MAX), "*:*");
    }
}
