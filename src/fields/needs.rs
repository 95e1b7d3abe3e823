//! What columns need to be collected, and what they can be compared with.

use super::Field;

/// What has to be collected for a column, and so the part of a row's JSON that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// every row has it
    Row,
    /// attributes that the kernel sends unasked (`-e`)
    Extended,
    /// attributes of `-e` that have to be asked for: type of service, traffic class, class id
    Tos,
    /// `tcp_info` (`-i`)
    TcpInfo,
    /// attributes that the kernel sends together with `tcp_info` (`-i`): upper-layer protocol, MD5 signatures
    BesideInfo,
    /// what the congestion control says of itself (`-i`)
    CongestionInfo,
    /// the congestion control's name (`-i`)
    Congestion,
    /// the memory (`-m`)
    Memory,
    /// the processes (`-p`)
    Owners,
    /// attributes, and the processes where the path of the cgroup's id is not known
    Cgroup,
}

/// What several columns need together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// attributes that the kernel sends unasked
    pub extended: bool,
    /// type of service, traffic class, class id
    pub tos: bool,
    /// `tcp_info`
    pub tcp_info: bool,
    /// the congestion control's name
    pub congestion: bool,
    /// what the congestion control says of itself
    pub congestion_info: bool,
    /// the memory
    pub memory: bool,
    /// the processes
    pub owners: bool,
    /// the paths of cgroups
    pub cgroup: bool,
}

impl Needed {
    /// What `columns` need.
    pub fn by<'f>(columns: impl IntoIterator<Item = &'f &'static Field>) -> Self {
        columns
            .into_iter()
            .fold(Self::default(), |needed, field| needed.with(field.needs))
    }

    /// This and what `needs` stands for.
    #[must_use]
    pub const fn with(mut self, needs: Needs) -> Self {
        match needs {
            Needs::Row => {}
            Needs::Extended => self.extended = true,
            Needs::Tos => self.tos = true,
            Needs::TcpInfo | Needs::BesideInfo => self.tcp_info = true,
            Needs::Congestion => self.congestion = true,
            Needs::CongestionInfo => self.congestion_info = true,
            Needs::Memory => self.memory = true,
            Needs::Owners => self.owners = true,
            Needs::Cgroup => {
                self.extended = true;
                self.owners = true;
                self.cgroup = true;
            }
        }
        self
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            extended: self.extended || other.extended,
            tos: self.tos || other.tos,
            tcp_info: self.tcp_info || other.tcp_info,
            congestion: self.congestion || other.congestion,
            congestion_info: self.congestion_info || other.congestion_info,
            memory: self.memory || other.memory,
            owners: self.owners || other.owners,
            cgroup: self.cgroup || other.cgroup,
        }
    }
}

/// With what a column can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// a number without a unit
    Number,
    /// a time
    Time,
    /// bytes, or bytes a second
    Bytes,
    /// text
    Text,
    /// nothing
    Other,
}
