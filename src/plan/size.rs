//! How large a case may be: what no machine can send is a mistake in the plan, not a lack of memory. Pure.

use std::time::Duration;

use crate::course::{Course, WarmUp};
use crate::load::Load;

/// The most requests of a case.
const MOST_REQUESTS: f64 = 1e7;
/// The most users, and requests in flight.
const MOST_USERS: usize = 1_000_000;
/// The highest rate, requests per second.
pub(super) const HIGHEST_RATE: f64 = 1e6;
/// The lowest rate: a request in eleven days.
const LOWEST_RATE: f64 = 1e-6;
/// The most trials of a case.
const MOST_TRIALS: usize = 10_000;
/// The most steps of a search.
const MOST_STEPS: usize = 1000;
/// The longest time that requests are sent: that of the longest warm-up and the longest `duration`.
const LONGEST_DAYS: f64 = 2.0 * 366.0;

/// Why a case cannot be so large; `None` where it can.
pub(super) fn fault(load: &Load, course: &Course, trials: usize, steps: usize) -> Option<String> {
    let rate = match load {
        Load::Open { rate, .. } => rate.as_per_s(),
        Load::Staged(stages) => stages
            .stages
            .iter()
            .map(|stage| stage.from_per_s.max(stage.to_per_s))
            .fold(0.0, f64::max),
        _ => 0.0,
    };
    if HIGHEST_RATE < rate {
        return Some(format!("a rate of {rate:e} requests/s is above {HIGHEST_RATE:e}"));
    }
    if matches!(load, Load::Open { .. }) && rate < LOWEST_RATE {
        return Some(format!("a rate of {rate:e} requests/s is below {LOWEST_RATE:e}"));
    }
    if let Some(users) = load.max_concurrency().filter(|users| MOST_USERS < *users) {
        return Some(format!("{users} users or requests in flight are more than {MOST_USERS}"));
    }
    if MOST_TRIALS < trials {
        return Some(format!("{trials} trials are more than {MOST_TRIALS}"));
    }
    if MOST_STEPS < steps {
        return Some(format!("{steps} steps of a search are more than {MOST_STEPS}"));
    }
    let warm_up = match course.warm_up {
        WarmUp::Requests(requests) => requests as f64,
        WarmUp::Time(time) => load_events(load, time),
    };
    let timed = course.duration.map(|duration| load_events(load, duration));
    let numbered = course.requests.map(|requests| requests as f64);
    let counting = match (load, timed, numbered) {
        (Load::Staged(stages), ..) => load_events(load, stages.length()),
        // Whichever comes first; how many users send in a time, only the server knows.
        (Load::Open { .. }, Some(timed), Some(numbered)) => timed.min(numbered),
        (_, timed, numbered) => numbered.or(timed).unwrap_or_default(),
    };
    let requests = warm_up + counting;
    let days = if 0.0 < rate { requests / rate / 86_400.0 } else { 0.0 };
    if matches!(load, Load::Open { .. }) && LONGEST_DAYS < days {
        return Some(format!("{requests} requests at {rate:e} requests/s take {days:.0} days"));
    }
    (MOST_REQUESTS < requests).then(|| {
        format!("it comes to {requests:.3e} requests, and a case may have {MOST_REQUESTS:e}")
    })
}

/// How many requests an open loop sends in a time; 0 of other loads.
fn load_events(load: &Load, time: Duration) -> f64 {
    match load {
        Load::Open { .. } | Load::Staged(_) => load.request_rate() * time.as_secs_f64(),
        _ => 0.0,
    }
}
