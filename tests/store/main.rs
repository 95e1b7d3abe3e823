//! The store between runs: several processes at once, one of them killed; full and read-only disks; files that are not
//! as they were written; what is kept, and for how long.

#[cfg(test)]
mod crash;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod kept;
#[cfg(test)]
mod support;
