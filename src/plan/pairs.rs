//! Cases in, cases out that know what they are measured in turn with.

use std::sync::Arc;

use super::{Against, Case, DEFAULT_PAIRS};
use crate::config::{ConfigError, ConfigFile};
use crate::flags::Flags;
use crate::load::Load;

/// Has each case measured in turn with itself.
pub(super) fn with_itself(cases: &mut [Case]) {
    for case in cases.iter_mut().filter(|case| !matches!(case.load, Load::Search(_))) {
        let own = Arc::new(case.clone());
        set(case, Against { case: own, is_itself: true });
    }
}

/// Has cases of one backend measured in turn with those of another, as the flags or else the file say; those of
/// the other are then no cases of their own.
pub(super) fn pair(
    file: &ConfigFile,
    flags: &Flags,
    mut cases: Vec<Case>,
) -> Result<Vec<Case>, ConfigError> {
    if flags.quick {
        return Ok(cases);
    }
    if flags.aa {
        with_itself(&mut cases);
        return Ok(cases);
    }
    let start = 0..0;
    let (a, b, span) = match (&flags.against, &file.config.ab) {
        (Some(a), _) => (a.clone(), None, start),
        (None, Some(ab)) => {
            let (a, b) = (&ab.get_ref().a, &ab.get_ref().b);
            for backend in [a, b] {
                let name = backend.get_ref();
                if !file.config.backend.iter().any(|known| known.name.get_ref() == name) {
                    let message = format!("there is no backend `{name}` to compare");
                    return Err(file.error(backend.span(), message));
                }
            }
            (a.get_ref().clone(), Some(b.get_ref().clone()), ab.span())
        }
        (None, None) => return Ok(cases),
    };
    let (others, mut cases): (Vec<Case>, Vec<Case>) =
        cases.into_iter().partition(|case| case.backend.name == a);
    if others.is_empty() {
        let message = format!("no case of the plan is of the backend `{a}` to compare with");
        return Err(file.error(span, message));
    }
    for case in &mut cases {
        if b.as_ref().is_some_and(|b| *b != case.backend.name)
            || matches!(case.load, Load::Search(_))
        {
            continue;
        }
        let work = |case: &Case| case.name.split_once('/').map(|(_, work)| work.to_owned());
        let Some(other) = others.iter().find(|other| work(other) == work(case)) else {
            let message = format!(
                "the case `{}` has no partner: the backend `{a}` has no case of that model, workload \
                 and load",
                case.name
            );
            return Err(file.error(span, message));
        };
        set(case, Against { case: Arc::new(other.clone()), is_itself: false });
    }
    Ok(cases)
}

fn set(case: &mut Case, against: Against) {
    // One trial is no sample.
    if case.trials == 1 {
        case.trials = DEFAULT_PAIRS;
    }
    case.against = Some(against);
}
