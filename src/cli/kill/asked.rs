//! What may be asked of `linger kill`: a filter that chooses sockets, on this machine.

use crate::cli::args::{self, CollectorChoice};
use crate::cli::failure::Failure;
use crate::cli::selection;
use crate::model::{StateSet, TcpState};
use crate::query::Filter;

/// What is wrong before anything is read.
///
/// # Errors
/// For what cannot be destroyed, or judged, and for a filter that chooses too much.
pub fn refuse_slips(args: &args::Kill, filter: &Filter) -> Result<(), Failure> {
    if args.common.from.is_some() {
        return Err(Failure::usage(
            "the sockets of a capture cannot be destroyed".to_owned(),
            "leave --from out; 'linger list --from FILE FILTER' shows what the capture has"
                .to_owned(),
        ));
    }
    if args.common.collector == CollectorChoice::Procfs {
        return Err(Failure::usage(
            "sockets are destroyed by their cookie, which --collector procfs does not show"
                .to_owned(),
            "leave --collector out".to_owned(),
        ));
    }
    if filter.asks_autobound() {
        return Err(Failure::usage(
            "kill cannot judge autobound: the kernel tells it of a whole listing only".to_owned(),
            "'linger list autobound' shows them; choose by ports, addresses or a process"
                .to_owned(),
        ));
    }
    if filter.is_empty() {
        return Err(Failure::usage(
            "kill needs a FILTER: it does not destroy every socket there is".to_owned(),
            "such as 'linger kill dst 10.0.0.7'; it shows them first, and acts with --yes"
                .to_owned(),
        ));
    }
    let states = filter.states();
    let named = TcpState::SHOWN
        .iter()
        .filter(|state| states.contains(**state));
    if filter.is_states_alone() && named.count() > 1 {
        return Err(Failure::usage(
            "kill needs more than states: it does not destroy every socket there is".to_owned(),
            "name an end or a program too, such as 'linger kill state connected and dst 10.0.0.7', or a single state"
                .to_owned(),
        ));
    }
    Ok(())
}

/// The filter as it was typed, and that of the file.
///
/// # Errors
/// As [`selection::filter`].
pub fn filter(args: &args::Kill) -> Result<Filter, Failure> {
    // Elsewhere a group's name without `state` gets the hint to write `state all`, which is none here.
    let group = |word: &String| {
        let mut groups = StateSet::GROUPS.iter();
        groups.any(|(name, _)| word.trim().eq_ignore_ascii_case(name))
    };
    if let [word] = &args.filter[..]
        && group(word)
    {
        return Err(Failure::usage(
            format!(
                "'{}' is no FILTER: kill needs more than states",
                word.trim()
            ),
            "such as 'linger kill dst 10.0.0.7'; it shows them first, and acts with --yes"
                .to_owned(),
        ));
    }
    selection::filter(&args.filter, args.filter_file.as_deref())
}
