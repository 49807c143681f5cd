//! Cases in, cases out that know what they are measured in turn with.

use std::sync::Arc;

use super::{Against, Case, DEFAULT_PAIRS, PlanError, backend_names};
use crate::config::ConfigFile;
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
) -> Result<Vec<Case>, PlanError> {
    if flags.quick {
        return Ok(cases);
    }
    if flags.aa {
        with_itself(&mut cases);
        return Ok(cases);
    }
    let (a, b, place) = match (&flags.against, &file.config.ab) {
        (Some(a), _) => (a.clone(), None, None),
        (None, Some(ab)) => {
            let (a, b) = (&ab.get_ref().a, &ab.get_ref().b);
            for backend in [a, b] {
                let name = backend.get_ref();
                if !file.config.backend.iter().any(|known| known.name.get_ref() == name) {
                    let message = format!("there is no backend `{name}` to compare");
                    return Err(file.error(backend.span(), message).into());
                }
            }
            (a.get_ref().clone(), Some(b.get_ref().clone()), Some(ab.span()))
        }
        (None, None) => return Ok(cases),
    };
    let error = |message: String| match place.clone() {
        Some(span) => PlanError::from(file.error(span, message)),
        None => PlanError::Flags(format!("--against: {message}")),
    };
    let (others, mut cases): (Vec<Case>, Vec<Case>) =
        cases.into_iter().partition(|case| case.backend.name == a);
    if others.is_empty() {
        return Err(error(format!(
            "no case of the plan is of the backend `{a}` to compare with; it has {}",
            backend_names(&file.config)
        )));
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
            return Err(error(message));
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

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_error, plan};

    const TWO: &str = r#"
[[backend]]
name = "old"
kind = "sim"
[[backend]]
name = "new"
kind = "sim"
[[workload]]
name = "w"
dataset = "random"
[[bench]]
loads = ["4qps"]
"#;

    #[test]
    fn a_case_is_measured_in_turn_with_its_partner_which_is_none_of_its_own() {
        for (head, line) in [("", "--against old"), ("ab = { a = \"old\", b = \"new\" }", "")] {
            let cases = plan(&format!("{head}{TWO}"), line).unwrap().cases;
            assert_eq!(cases.len(), 1);
            let against = cases[0].against.as_ref().unwrap();
            assert_eq!((cases[0].name.as_str(), cases[0].trials), ("new/sim/w@4qps", 5));
            assert_eq!(against.case.name, "old/sim/w@4qps");
        }
        assert!(plan(TWO, "--aa").unwrap().cases.iter().all(|case| case.against.is_some()));
        assert!(plan(TWO, "--quick").unwrap().cases.iter().all(|case| case.against.is_none()));
    }

    #[test]
    fn a_mistake_is_said_where_it_was_made() {
        assert_error(TWO, "--against odl", &["--against", "`odl`", "old, new"]);
        let text = format!("ab = {{ a = \"odl\", b = \"new\" }}{TWO}");
        assert_error(&text, "", &["plan.toml:1:12", "`odl`"]);
    }
}
