//! A case in miniature, for `cargo test --benches`: the plan, the dataset, the bodies and the readers are
//! the real ones; the server is the embedded engine, so that nothing leaves the machine. Pure.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use crate::config::StreamOptions;
use crate::course::Course;
use crate::load::Load;
use crate::measure::Prepared;
use crate::plan::{Backend, Case, Server};
use crate::sim::{Preset, SimConfig};
use crate::slo::Slo;
use crate::workload::Workload;

const REQUESTS: usize = 2;
const OUTPUT_TOKENS: u32 = 4;
const THINK: Duration = Duration::from_millis(10);

/// The case with a handful of requests, all at once, against the embedded engine.
pub(super) fn of(case: &Case) -> Case {
    let server = Server::Sim(SimConfig::preset(Preset::Small));
    let backend = Backend {
        server,
        api_key: None,
        metrics: None,
        stream_options: StreamOptions::Auto,
        ..Backend::clone(&case.backend)
    };
    let load = match case.load {
        Load::Closed(users) => {
            Load::Closed(users.min(NonZeroUsize::new(REQUESTS).unwrap_or(NonZeroUsize::MIN)))
        }
        Load::Infinite
        | Load::Open { .. }
        | Load::Staged(_)
        | Load::Trace { .. }
        | Load::Search(_) => Load::Infinite,
    };
    Case {
        backend: Arc::new(backend),
        load,
        trials: 1,
        until_decided: None,
        gpu: None,
        against: None,
        course: Course::of_requests(case.course.requests.unwrap_or(REQUESTS).min(REQUESTS)),
        slos: vec![Slo::no_errors()],
        ..case.clone()
    }
}

/// The requests with short answers; of a conversation, one more turn after a moment's thought.
pub(super) fn shorten(prepared: Prepared) -> Prepared {
    let mut workload = Workload::clone(&prepared.workload);
    for request in &mut workload.requests {
        request.output_tokens = request.output_tokens.min(OUTPUT_TOKENS);
        request.fields.remove("min_tokens");
        request.follow_ups.truncate(1);
        for follow_up in &mut request.follow_ups {
            follow_up.output_tokens = follow_up.output_tokens.min(OUTPUT_TOKENS);
            follow_up.think = follow_up.think.min(THINK);
        }
    }
    Prepared { workload: Arc::new(workload), ..prepared }
}
