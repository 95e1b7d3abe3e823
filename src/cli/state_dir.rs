//! Where this program keeps what it writes unasked.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::failure::Failure;

/// Captures hold addresses, process names and users: their owner's business.
const MODE: u32 = 0o700;

/// The directory: the one that was named; else systemd's `$STATE_DIRECTORY`; else `/var/lib/linger` for root,
/// `$XDG_STATE_HOME/linger` or `~/.local/state/linger` for others.
///
/// # Errors
/// When nothing names one.
pub fn find(named: Option<&Path>) -> Result<PathBuf, Failure> {
    let root = rustix::process::geteuid().is_root();
    let chosen = named
        .map(Path::to_owned)
        .or_else(|| choose(root, &|name| std::env::var_os(name)));
    chosen.ok_or_else(|| {
        Failure::failed(
            "there is no state directory: neither STATE_DIRECTORY nor XDG_STATE_HOME nor HOME is set",
            None,
        )
    })
}

/// The same, made if it is not there.
///
/// # Errors
/// When nothing names one, or when it cannot be made.
pub fn prepare(named: Option<&Path>) -> Result<PathBuf, Failure> {
    let path = find(named)?;
    let made = DirBuilder::new().recursive(true).mode(MODE).create(&path);
    match made {
        Ok(()) => Ok(path),
        Err(error) => Err(Failure::failed(
            format!(
                "cannot make the state directory '{}': {error}",
                path.display()
            ),
            None,
        )),
    }
}

/// The directory that the environment means. A name that is not absolute is none, as the XDG Base Directory
/// Specification has it.
fn choose(root: bool, variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name: &str| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    // systemd.exec(5): several directories are separated by colons.
    let service = variable("STATE_DIRECTORY").and_then(|all| {
        let all = all.into_string().ok()?;
        let first = PathBuf::from(all.split(':').next()?);
        first.is_absolute().then_some(first)
    });
    if service.is_some() {
        return service;
    }
    if root {
        return Some(PathBuf::from("/var/lib/linger"));
    }
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("linger"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_environment_says_where() {
        type Case<'a> = (bool, &'a [(&'a str, &'a str)], Option<&'a str>);
        let table: &[Case<'_>] = &[
            (
                true,
                &[("STATE_DIRECTORY", "/var/lib/linger-kill:/x")],
                Some("/var/lib/linger-kill"),
            ),
            (true, &[("XDG_STATE_HOME", "/s")], Some("/var/lib/linger")),
            (true, &[("STATE_DIRECTORY", "")], Some("/var/lib/linger")),
            (
                false,
                &[("XDG_STATE_HOME", "/s"), ("HOME", "/h")],
                Some("/s/linger"),
            ),
            (
                false,
                &[("XDG_STATE_HOME", "s"), ("HOME", "/h")],
                Some("/h/.local/state/linger"),
            ),
            (false, &[("HOME", "h")], None),
            (false, &[], None),
        ];
        for (root, variables, expected) in table {
            let chosen = choose(*root, &|name| {
                let (_, value) = variables.iter().find(|(own, _)| *own == name)?;
                Some(OsString::from(value))
            });
            assert_eq!(chosen, expected.map(PathBuf::from), "{variables:?}");
        }
    }

    #[test]
    fn it_is_made_for_its_owner_alone_and_taken_as_it_is_if_it_is_there() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a/b");
        for _ in 0..2 {
            assert_eq!(prepare(Some(&path)).unwrap(), path);
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o700);
        }
        let file = scratch.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(prepare(Some(&file)).is_err());
        assert!(prepare(Some(&file.join("below"))).is_err());
    }
}
