//! Names of interfaces, which the kernel gives as numbers.

use std::fs;

use rustc_hash::FxHashMap;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

/// The interfaces of the calling thread's network namespace: index -> name, as the kernel knows them.
pub fn interfaces() -> FxHashMap<u32, String> {
    let mut names = FxHashMap::default();
    let Ok(table) = fs::read("/proc/thread-self/net/dev") else {
        return names;
    };
    let Ok(any) = socket(AddressFamily::INET, SocketType::DGRAM, None) else {
        return names;
    };
    // Two lines of headings, then `  name: numbers`.
    for line in String::from_utf8_lossy(&table).lines().skip(2) {
        let Some((name, _)) = line.split_once(':') else {
            continue;
        };
        if let Ok(index) = netdevice::name_to_index(&any, name.trim()) {
            names.insert(index, name.trim().to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_its_name() {
        assert!(interfaces().values().any(|name| name == "lo"));
    }
}
