//! The trials of a case, and what came of them.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;

use super::sending::{Sending, records, schedule, start};
use super::{Controls, Prepared, prepare};
use crate::compare::Trial;
use crate::drive::{self, Driven};
use crate::evidence::{Looks, Requests};
use crate::files::Files;
use crate::flags::SelfCheckMode;
use crate::journal::Part;
use crate::live::Goal;
use crate::load::Load;
use crate::plan::{Address, Case};
use crate::record::RequestRecord;
use crate::self_check::{self, LoadPoint, SelfCheck};
use crate::strain::Strain;
use crate::summary::{Counted, Summary};
use crate::telemetry::Telemetry;
use crate::tokens;
use crate::verdict::{self, Finding, Judgement};
use crate::workload::Workload;

/// What the trial of this number is to come to.
pub(super) fn goal(
    case: &Case,
    prepared: &Prepared,
    number: usize,
    controls: Controls<'_>,
) -> Goal {
    let requests = prepared.workload.turns() + prepared.warm_up.turns();
    let warm_up = case.course.warm_up.time().unwrap_or_default();
    Goal {
        name: match (case.until_decided, case.trials) {
            _ if controls.is_step => format!("step {}", case.load),
            (Some(_), _) => format!("trial {}", number + 1),
            (None, 1) => String::new(),
            (None, trials) => format!("trial {} of {trials}", number + 1),
        },
        requests: (!case.course.is_open_ended()).then_some(requests as u64),
        duration: case.course.duration.map(|duration| warm_up + duration),
        more: case.trials.saturating_sub(number + 1),
    }
}

/// A trial of a case but the first: the same work by another seed, with prompts that no trial before it has
/// left in a cache.
pub(super) fn of_trial(
    case: &Case,
    prepared: &Prepared,
    number: usize,
) -> anyhow::Result<(Case, Prepared)> {
    let seed = case.seed.wrapping_add(number as u64);
    let case = Case { seed, ..case.clone() };
    let salted = Case { name: format!("{}#{number}", case.name), ..case.clone() };
    let prepared = prepare(&salted, Some(prepared), &Files::only_here())?;
    Ok((case, prepared))
}

/// `records` are in order, the turns of a conversation one after the other.
fn counted(
    records: Vec<RequestRecord>,
    prepared: &Prepared,
    chat: bool,
) -> anyhow::Result<Vec<Counted>> {
    let (workload, tokenizer) = (&prepared.workload, prepared.tokenizer.as_ref());
    let mut tokens = Vec::with_capacity(records.len());
    for conversation in records.chunk_by(|one, next| one.index == next.index) {
        let request = workload.request(conversation[0].index);
        for turns in 1..=conversation.len() {
            tokens.push(tokens::count(&conversation[..turns], request, tokenizer, chat)?);
        }
    }
    Ok(records.into_iter().zip(tokens).collect())
}

/// What came of the trials of a case, one after the other as if no time had passed between them.
#[derive(Default)]
pub(super) struct Trials {
    /// The requests that count.
    pub(super) requests: Vec<Counted>,
    pub(super) runs: Vec<TrialRun>,
    /// What is compared of them.
    pub(super) compared: Vec<Trial>,
    /// What was read while they ran.
    pub(super) telemetry: Telemetry,
    /// What of it was read while the requests ran that count.
    pub(super) counted_telemetry: Telemetry,
    end: Duration,
}

/// The time in which requests ran that count.
#[derive(Clone, Copy)]
struct Counting {
    from: Duration,
    to: Duration,
}

impl Counting {
    fn of(requests: &[Counted]) -> Self {
        let from = requests.iter().map(|(record, _)| record.sent).min().unwrap_or_default();
        let to = requests.iter().map(|(record, _)| record.ended).max().unwrap_or_default();
        Self { from, to }
    }
}

/// What came of a trial.
pub(super) struct TrialRun {
    /// Which of the requests are its own.
    requests: Range<usize>,
    pub(super) summary: Summary,
    pub(super) workload: Arc<Workload>,
    /// Requests that were sent, those of the warm-up included.
    pub(super) sent: usize,
    /// Those that count, one for all turns of a conversation.
    pub(super) began: usize,
    pub(super) strain: Strain,
    /// What was found out before the clock started.
    pub(super) notes: Vec<String>,
    pub(super) version: Option<String>,
    pub(super) address: Address,
}

impl Trials {
    /// Runs the case once more, which is to come to `goal`.
    pub(super) fn add(
        &mut self,
        case: &Case,
        prepared: &Prepared,
        goal: Goal,
        controls: Controls<'_>,
    ) -> anyhow::Result<()> {
        let (server, address) = start(case, prepared.tokenizer.as_ref())?;
        let schedule = schedule(case, prepared);
        let (backend, load) = (case.backend.name.clone(), case.load.to_string());
        controls.live.begin_run(goal, Part { backend, load, seed: case.seed });
        let waiting = matches!(case.load, Load::Closed(_)) || prepared.workload.has_turns();
        let runtime = drive::runtime(waiting, controls.live)?;
        let sending = runtime.block_on(records(case, prepared, &address, &schedule, controls))?;
        let Sending { driven, telemetry, notes, version, address } = sending;
        let Driven { records, strain, .. } = driven;
        let sent = records.len();
        let measured: Vec<RequestRecord> =
            records.into_iter().filter(|record| !record.warm_up).collect();
        let began = measured.iter().filter(|record| record.turn == 0).count();
        let requests = counted(measured, prepared, case.backend.protocol.is_chat())?;
        // The case's own server would be in the way of the next one.
        drop(server);
        let counted = Counting::of(&requests);
        let from_s = counted.from.as_secs_f64();
        let counted_telemetry = telemetry.within(from_s, counted.to.as_secs_f64());
        let summary = Summary::new(&requests, case.goodput).with(&counted_telemetry);
        self.compared.push(Trial::new(case.seed, requests.len(), &summary));
        let workload = Arc::clone(&prepared.workload);
        let (requests, by) = self.append(requests, counted);
        let (strain, by_s) = (strain.later(by), by.as_secs_f64());
        let telemetry = match self.runs.as_slice() {
            [] => telemetry,
            // What was read before its first request belongs to the trial before.
            _ => telemetry.within(from_s, f64::INFINITY),
        };
        self.telemetry.append(telemetry.moved(by_s));
        self.counted_telemetry.append(counted_telemetry.moved(by_s));
        self.runs.push(TrialRun {
            requests,
            summary,
            workload,
            sent,
            began,
            strain,
            notes,
            version,
            address,
        });
        Ok(())
    }

    /// Adds the requests of a trial behind those of the trials before: which they are then, and how much
    /// later.
    fn append(&mut self, requests: Vec<Counted>, counted: Counting) -> (Range<usize>, Duration) {
        let begin = self.requests.len();
        let by = if begin == 0 { Duration::ZERO } else { self.end.saturating_sub(counted.from) };
        let later = |(record, tokens): Counted| (record.later(by), tokens);
        self.requests.extend(requests.into_iter().map(later));
        self.end = counted.to + by;
        (begin..self.requests.len(), by)
    }

    pub(super) fn of(&self, run: &TrialRun) -> &[Counted] {
        &self.requests[run.requests.clone()]
    }

    /// The statistics of all of them together.
    pub(super) fn summary(&self, case: &Case) -> Summary {
        match self.runs.as_slice() {
            [one] => one.summary.clone(),
            _ => Summary::new(&self.requests, case.goodput).with(&self.counted_telemetry),
        }
    }

    /// What they say about the objectives.
    pub(super) fn judge(&self, case: &Case, summary: &Summary) -> Vec<Judgement> {
        let parts = self.runs.iter().map(|run| run.requests.clone()).collect();
        let evidence = Requests::new(&self.requests, parts, case.goodput);
        let looks = match case.until_decided {
            None => Looks::One,
            Some(_) => Looks::Many(u32::try_from(self.runs.len()).unwrap_or(u32::MAX)),
        };
        verdict::judge(&case.slos, summary, &evidence, looks)
    }

    /// Whether they settle every objective.
    pub(super) fn are_decisive(&self, case: &Case) -> bool {
        self.judge(case, &self.summary(case)).iter().all(|judgement| {
            !judgement.is_undecided() && !matches!(judgement.finding, Finding::Unknown(_))
        })
    }

    /// The check of the client at the load of the first trial.
    pub(super) fn self_check(
        &self,
        Controls { options, stop, .. }: Controls<'_>,
    ) -> anyhow::Result<SelfCheck> {
        let Some(first) = self.runs.first() else { bail!("the run was interrupted") };
        let load = LoadPoint::of(self.of(first).iter().map(|(record, _)| record));
        let interrupted = stop.is_requested();
        let mode = if interrupted { SelfCheckMode::Never } else { options.self_check };
        self_check::of(mode, load, first.strain.wall, stop)
    }
}
