//! The store between runs: several processes at once, one of them killed; full and read-only disks; files that are not
//! as they were written; what is kept, and for how long.

mod crash;
mod damage;
mod disk;
mod kept;
mod support;
