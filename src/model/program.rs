//! What the kernel may leave out of a dump before it copies anything.

use super::socket::Family;

/// A filter for the kernel. It lets through at least what is wanted; the receiver judges every row all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// for the sockets of IPv4
    pub ipv4: Part,
    /// for the sockets of IPv6
    pub ipv6: Part,
    /// Rows that the kernel did not filter by it mean something else: a source that cannot have it applied has to
    /// refuse.
    pub required: bool,
}

/// What the kernel may leave out of one family's table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// nothing
    #[default]
    Everything,
    /// all of it: the table need not be asked for
    Nothing,
    /// What `INET_DIAG_REQ_BYTECODE` takes (`include/uapi/linux/inet_diag.h`), the most selective first: each is for
    /// kernels, and privileges, that refuse the one before it.
    Filtered(Vec<Vec<u8>>),
}

impl Program {
    /// The part for a family's table; other sockets the kernel does not filter.
    pub const fn part(&self, family: Option<Family>) -> &Part {
        match family {
            Some(Family::Ipv4) => &self.ipv4,
            Some(Family::Ipv6) => &self.ipv6,
            None => &Part::Everything,
        }
    }

    /// Whether it leaves out every socket.
    pub fn is_nothing(&self) -> bool {
        (&self.ipv4, &self.ipv6) == (&Part::Nothing, &Part::Nothing)
    }

    /// Whether it leaves out none.
    pub fn is_everything(&self) -> bool {
        (&self.ipv4, &self.ipv6) == (&Part::Everything, &Part::Everything)
    }
}
