//! Cases in, cases out that know what they are measured in turn with.

use std::sync::Arc;

use url::Url;

use super::{Against, Alternate, Backend, Case, DEFAULT_PAIRS, PlanError, Server, backend_names};
use crate::config::ConfigFile;
use crate::flags::Flags;
use crate::load::Load;
use crate::loopback::is_loopback;
use crate::nearest::did_you_mean;

/// Has each case measured in turn with itself.
pub(super) fn with_itself(cases: &mut [Case], flags: &Flags) -> Result<(), String> {
    let alternate = flags.alternate.unwrap_or_default();
    for case in cases.iter_mut().filter(|case| !matches!(case.load, Load::Search(_))) {
        let own = Arc::new(case.clone());
        set(case, Against { case: own, is_itself: true, alternate })?;
    }
    Ok(())
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
        with_itself(&mut cases, flags)
            .map_err(|message| PlanError::Flags(format!("--aa: {message}")))?;
        return Ok(cases);
    }
    let (a, b, place) = match (&flags.against, &file.config.ab) {
        (Some(a), _) => (a.clone(), None, None),
        (None, Some(ab)) => {
            let (a, b) = (&ab.get_ref().a, &ab.get_ref().b);
            for backend in [a, b] {
                let name = backend.get_ref();
                if !file.config.backend.iter().any(|known| known.name.get_ref() == name) {
                    let known =
                        file.config.backend.iter().map(|known| known.name.get_ref().as_str());
                    let nearest = did_you_mean(name, known);
                    let message = format!("there is no backend `{name}` to compare{nearest}");
                    return Err(file.error(backend.span(), message).into());
                }
            }
            (a.get_ref().clone(), Some(b.get_ref().clone()), Some(ab.span()))
        }
        (None, None) => return Ok(cases),
    };
    let written = file.config.ab.as_ref().and_then(|ab| ab.get_ref().alternate.as_ref());
    let written = written.map(|alternate| *alternate.get_ref());
    let alternate = flags.alternate.or(written).unwrap_or_default();
    let error = |message: String| match place.clone() {
        Some(span) => PlanError::from(file.error(span, message)),
        None => PlanError::Flags(format!("--against: {message}")),
    };
    let (others, mut cases): (Vec<Case>, Vec<Case>) =
        cases.into_iter().partition(|case| case.backend.name == a);
    if others.is_empty() {
        return Err(error(format!(
            "no case of the plan is of the backend `{a}` to compare with; it has {}{}",
            backend_names(&file.config),
            did_you_mean(&a, file.config.backend.iter().map(|known| known.name.get_ref().as_str()))
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
        let against = Against { case: Arc::new(other.clone()), is_itself: false, alternate };
        set(case, against).map_err(&error)?;
    }
    Ok(cases)
}

/// An error where the two could not be told apart, or not be restarted.
fn set(case: &mut Case, against: Against) -> Result<(), String> {
    if against.alternate == Alternate::Restart {
        let mut backends = [&*case.backend, &*against.case.backend].into_iter();
        if let Some(fixed) =
            backends.find(|b| b.launch.is_none() && matches!(b.server, Server::Remote(_)))
        {
            return Err(format!(
                "alternate = \"restart\" starts a server for each trial, and the backend `{}` has no \
                 `launch` that says how",
                fixed.name
            ));
        }
    } else if !against.is_itself && are_one_server(case, &against.case) {
        return Err(format!(
            "the backends `{}` and `{}` have one address, so that a server would be compared with \
             itself: give them two, or --aa to see the noise; two that are started one at a time \
             (alternate = \"restart\") may share it",
            against.case.backend.name, case.backend.name
        ));
    }
    // One trial is no sample.
    if case.trials == 1 {
        case.trials = DEFAULT_PAIRS;
    }
    case.against = Some(against);
    Ok(())
}

/// Whether both cases ask the same of one server, or the harness would start two at one address.
fn are_one_server(case: &Case, other: &Case) -> bool {
    let (Server::Remote(one), Server::Remote(two)) = (&case.backend.server, &other.backend.server)
    else {
        return false;
    };
    let (one, two) = (one.endpoint_url(), two.endpoint_url());
    let host = |url: &Url| match is_loopback(url) {
        true => None,
        false => url.host_str().map(str::to_owned),
    };
    let place = |url: &Url| (host(url), url.port_or_known_default());
    let starts = |case: &Case| case.backend.launch.is_some();
    let asks = |case: &Case| {
        let Backend { headers, extra_body, .. } = &*case.backend;
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.reveal().to_owned()));
        (case.model.id.clone(), extra_body.clone(), headers.collect::<Vec<_>>())
    };
    place(&one) == place(&two)
        && (starts(case) || starts(other) || one.path() == two.path() && asks(case) == asks(other))
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
        assert_error(
            TWO,
            "--against odl",
            &["--against", "`odl`", "old, new; did you mean `old`?"],
        );
        let text = format!("ab = {{ a = \"odl\", b = \"new\" }}{TWO}");
        assert_error(&text, "", &["plan.toml:1:12", "`odl`", "did you mean `old`?"]);
    }
}
