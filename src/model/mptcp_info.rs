//! `struct mptcp_info` (`include/uapi/linux/mptcp.h`): every member by name, read by the length that the kernel sent.

use super::tcp_info::{Kind, Member, member};

use Kind::{U8, U32, U64};

/// Every member, in the kernel's order, under the uapi name without `mptcpi_` and with its unit. The kernel appends
/// members and never moves one.
pub const MEMBERS: &[Member] = &[
    member("subflows", 0, U8),
    member("add_addr_signal", 1, U8),
    member("add_addr_accepted", 2, U8),
    member("subflows_max", 3, U8),
    member("add_addr_signal_max", 4, U8),
    member("add_addr_accepted_max", 5, U8),
    member("flags", 8, U32),
    member("token", 12, U32),
    member("write_seq", 16, U64),
    member("snd_una", 24, U64),
    member("rcv_nxt", 32, U64),
    member("local_addr_used", 40, U8),
    member("local_addr_max", 41, U8),
    member("csum_enabled", 42, U8),
    member("retransmits", 44, U32),
    member("bytes_retrans", 48, U64),
    member("bytes_sent", 56, U64),
    member("bytes_received", 64, U64),
    member("bytes_acked", 72, U64),
    member("subflows_total", 80, U8),
    member("endp_laminar_max", 81, U8),
    member("endp_fullmesh_max", 82, U8),
    member("last_data_sent_ms", 84, U32),
    member("last_data_recv_ms", 88, U32),
    member("last_ack_recv_ms", 92, U32),
];

/// The member called `key`, of what the kernel sent; `None` where its structure ends before it.
pub fn get(key: &str, raw: &[u8]) -> Option<u64> {
    let member = MEMBERS.iter().find(|member| member.key == key)?;
    member.get(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_end_where_the_kernels_structure_ends() {
        let mut raw = vec![0u8; 96];
        raw[0] = 2;
        raw[56..64].copy_from_slice(&7u64.to_ne_bytes());
        raw[92..].copy_from_slice(&9u32.to_ne_bytes());
        assert_eq!(get("subflows", &raw), Some(2));
        assert_eq!(get("bytes_sent", &raw), Some(7));
        assert_eq!(get("last_ack_recv_ms", &raw), Some(9));
        assert_eq!(get("last_ack_recv_ms", &raw[..95]), None);
        assert_eq!(get("rtt_us", &raw), None);
    }
}
