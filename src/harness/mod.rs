//! The steps of a run, in order: read the command line, make the plan, select, prepare, run, print,
//! exit. libtest-mimic runs and prints the cases.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use jiff::ZonedDateTime;
use libtest_mimic::{Arguments, ColorSetting, Failed, FormatSetting, Measurement, Trial};

use crate::cli::{Cli, Color, Format, Mode, unknown_twin};
use crate::compare::Comparison;
use crate::file_name;
use crate::files::Files;
use crate::flags::{NoTests, SelfCheckMode};
use crate::journal::Journal;
use crate::launch;
use crate::live::Live;
use crate::measure::{self, Options, Prepared};
use crate::plan::{Case, Plan, Server};
use crate::progress::{Progress, ProgressStyleKind};
use crate::render::reasons::reasons;
use crate::render::table;
use crate::render::text::{plain, plain_lines};
use crate::report::saved::Identity;
use crate::report::{Ending, Report};
use crate::servers::Servers;
use crate::verdict::Verdict;

use availability::Unavailable;
use baseline::{Baseline, Compared};
use interrupt::Interrupt;
use lock::MachineLock;
use outputs::Outputs;
use terminal::{print, say};
use turn::Turnstile;

mod availability;
mod baseline;
mod file_set;
mod github;
mod interrupt;
mod lock;
mod miniature;
mod nextest;
mod outputs;
mod page;
mod root;
mod side_by_side;
mod terminal;
mod turn;
mod writable;

/// Rest between two cases, in which the last one's line is printed and its connections close.
const COOL_DOWN: Duration = Duration::from_millis(50);

/// How a run ends, as CI sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// Every case passed or was ignored.
    Passed,
    /// Bad flag, bad plan, damaged file: nothing was sent.
    CouldNotRun,
    /// Nothing failed, but a result says too little.
    Invalid,
    /// No case, and the user wants that to be a failure.
    NoCase,
    /// An objective was missed, as a failed test in libtest.
    Failed,
    /// Ctrl-C or SIGTERM.
    Interrupted,
}

impl Exit {
    fn code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::CouldNotRun => 2,
            Self::Invalid => 3,
            Self::NoCase => 4,
            Self::Failed => 101,
            Self::Interrupted => 130,
        }
    }
}

/// What [`main!`](crate::main) expands to: runs the plan `config`, seen from the package's root, as the process's own
/// arguments say. The root is `CARGO_MANIFEST_DIR` of the environment, or `manifest_dir` where it is not set.
pub fn run_bench(manifest_dir: &str, config: &str) -> ExitCode {
    let run_time = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    run(std::env::args_os(), &root::plan_of(run_time, Path::new(manifest_dir), config))
}

/// The whole program: does what `args` say with the plan in `default_config`, unless they name
/// another. `args` begins with the program's name, as in [`std::env::args_os`].
fn run(
    args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    default_config: &Path,
) -> ExitCode {
    let cli = match Cli::parse_from_args(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors too, of exit code 0.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let exit = execute(&cli, default_config).unwrap_or_else(|error| {
        say(&format!("error: {error:#}"));
        Exit::CouldNotRun
    });
    ExitCode::from(exit.code())
}

fn execute(cli: &Cli, default_config: &Path) -> anyhow::Result<Exit> {
    if !cli.flags.compare.is_empty() {
        side_by_side::compare(cli, default_config)?;
        return Ok(Exit::Passed);
    }
    if !cli.flags.report.is_empty() {
        page::rebuild(cli)?;
        return Ok(Exit::Passed);
    }
    let config = cli.flags.config.as_deref().unwrap_or(default_config);
    let text = fs::read_to_string(config).unwrap_or_default();
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    if let Some(message) = unknown_twin(names, |name| text.contains(name)) {
        bail!(message);
    }
    let plan = Plan::new(&cli.flags, default_config)?;
    let selected: Vec<&Case> = plan.cases.iter().filter(|case| cli.selects(&case.name)).collect();
    if cli.mode() == Mode::List {
        return list(cli, &selected);
    }
    for note in &plan.notes {
        say(&format!("note: {note}"));
    }
    if cli.flags.result_filename.is_some() && 1 < selected.len() {
        bail!("--result-filename names one file, and {} cases are selected", selected.len());
    }
    if cli.test_threads.is_some_and(|threads| 1 < threads) {
        say("note: cases never overlap; --test-threads has no effect");
    }
    let mode = cli.mode();
    // In miniature there is nothing to compare.
    let baseline = match mode {
        Mode::Bench => Baseline::of(&cli.flags, &plan)?,
        Mode::List | Mode::Test => Baseline::default(),
    };
    for case in baseline.gone(&plan) {
        say(&format!("gone     {case}: it is in the baseline and no more in the plan"));
    }
    if let (Some(name), Mode::Bench) = (&cli.flags.load_baseline, mode) {
        return baseline.judge_saved(name, &plan.results, &selected, print);
    }
    check_files(mode, &selected)?;
    let mut outputs = Outputs::new(&plan);
    // A filter reaches every bench binary, and what another has written is to stay.
    if mode == Mode::Bench && !selected.is_empty() {
        check_writable(&plan, &selected, &baseline, &outputs)?;
        if let Some(name) = &cli.flags.result_filename {
            writable::check_file(&plan.results.join(name))?;
        }
        outputs.begin(config)?;
    }
    terminal::outlive_readers();
    let interrupt = Interrupt::listen();
    let Unavailable { ignored: mut absent, broken } = Unavailable::of(cli, &selected)?;
    let runs = |case: &Case, absent: &BTreeMap<String, String>| {
        let ignored = absent.contains_key(&case.name);
        if cli.ignored { ignored } else { !ignored || cli.include_ignored }
    };
    let running: Vec<&Case> = selected.iter().copied().filter(|case| runs(case, &absent)).collect();
    let mut jobs = prepare(mode, &running, &mut absent, &broken)?;
    for Job { case, prepared, .. } in jobs.values() {
        // Before it takes its time.
        baseline.check(case, &Identity::to_be(case, &prepared.workload.hash))?;
    }
    let _lock = (mode == Mode::Bench && !jobs.is_empty()).then(|| MachineLock::acquire(say));
    let runner = Arc::new(Runner::new(cli, &plan, mode, interrupt, baseline, outputs));
    for case in selected.iter().filter(|case| !jobs.contains_key(&case.name)) {
        if let Some(reason) = absent.get(&case.name) {
            say(&format!("ignored {}: {reason}", case.name));
            let (case, reason) = (case.name.clone(), reason.clone());
            runner.outputs.note(Ending::Ignored { case, reason });
        }
    }
    if selected.is_empty() && cli.flags.no_tests == Some(NoTests::Fail) {
        // libtest would say that all is well.
        return Ok(no_case(cli, &plan));
    }
    let running: Vec<String> = jobs.keys().cloned().collect();
    let mut tickets = 0..;
    let trials = plan.cases.iter().map(|case| {
        let ignored = absent.contains_key(&case.name);
        let Some(job) = jobs.remove(&case.name) else {
            return Trial::bench(case.name.clone(), |_| Ok(None)).with_ignored_flag(ignored);
        };
        let ticket = tickets.next().unwrap_or_default();
        let runner = Arc::clone(&runner);
        Trial::bench(case.name.clone(), move |_| runner.run(ticket, job)).with_ignored_flag(ignored)
    });
    let trials = trials.collect();
    // From here on the cases see an interruption, and what comes after them does.
    runner.interrupt.busy.store(!running.is_empty(), Ordering::SeqCst);
    let conclusion = libtest_mimic::run(&arguments(cli, mode, &plan, &selected), trials);
    runner.options.servers.stop();
    if mode == Mode::Bench {
        runner.outputs.note_others(running.iter().map(String::as_str));
        runner.write_outputs();
        runner.outputs.with_endings(|endings| {
            let reports: Vec<&Report> = endings.iter().filter_map(Ending::report).collect();
            terminal::show(&reports, cli.color);
        });
        runner.tell_github();
    }
    if selected.is_empty() {
        return Ok(no_case(cli, &plan));
    }
    Ok(runner.exit(conclusion.has_failed()))
}

/// An error where a case names a file that is not there, unless it is left out as its server is nowhere.
fn check_files(mode: Mode, cases: &[&Case]) -> anyhow::Result<()> {
    let is_left_out = |case: &Case| {
        let mut servers = case.backends().map(|backend| &backend.server);
        mode == Mode::Bench && servers.any(|server| matches!(server, Server::Unset { .. }))
    };
    let mut read = cases.iter().filter(|case| !is_left_out(case));
    match read.find_map(|case| case.missing_file()) {
        Some(error) => Err(error.clone().into()),
        None => Ok(()),
    }
}

/// Makes sure that what these cases leave can be written.
fn check_writable(
    plan: &Plan,
    cases: &[&Case],
    baseline: &Baseline,
    outputs: &Outputs,
) -> anyhow::Result<()> {
    let launches = cases.iter().any(|case| case.backends().any(|backend| backend.launch.is_some()));
    let logs = launches.then(|| launch::logs(&plan.results));
    let folders = [Some(plan.results.as_path()), Some(outputs.folder()), logs.as_deref()];
    for folder in folders.into_iter().chain([baseline.save_to()]).flatten() {
        writable::check_folder(folder)?;
    }
    writable::check_file(baseline.history_path())
}

/// Names the cases, in the one form that libtest's readers and nextest both take.
fn list(cli: &Cli, selected: &[&Case]) -> anyhow::Result<Exit> {
    let mut text = String::new();
    for case in selected {
        // Only the environment is looked at: listing touches no network.
        if !cli.ignored || matches!(case.backend.server, Server::Unset { .. }) {
            text.push_str(&case.name);
            text.push_str(": benchmark\n");
        }
    }
    print(&text)?;
    Ok(Exit::Passed)
}

/// A case that is ready to run.
struct Job {
    case: Case,
    /// How many prompts it needs.
    prompts: Option<usize>,
    /// What is wrong with its server, where that is known already.
    broken: Option<String>,
    prepared: Prepared,
}

/// Reads tokenizers and datasets of all cases before the first request, so that a damaged file costs
/// no half run. Cases that send the same share it. One whose file is not on this machine is not run in
/// miniature: it is absent.
fn prepare(
    mode: Mode,
    cases: &[&Case],
    absent: &mut BTreeMap<String, String>,
    broken: &BTreeMap<String, String>,
) -> anyhow::Result<BTreeMap<String, Job>> {
    let mut jobs: BTreeMap<String, Job> = BTreeMap::new();
    // Cases of the same file say the same.
    let mut recognised = BTreeSet::new();
    // In miniature nothing leaves the machine.
    let files = if mode == Mode::Test { Files::only_here() } else { Files::new(say) };
    for case in cases {
        let case = if mode == Mode::Test { miniature::of(case) } else { Case::clone(case) };
        let prompts = case.prompts();
        let alike = jobs.values().find(|job| {
            measure::send_alike(&job.case, &case)
                && (job.prompts, job.case.seed) == (prompts, case.seed)
        });
        let preparing = || format!("prepare {}", case.name);
        let prepared = match measure::prepare(&case, alike.map(|job| &job.prepared), &files) {
            Err(error) if mode == Mode::Test && Files::is_missing(&error) => {
                absent.insert(case.name, format!("{error:#}"));
                continue;
            }
            prepared => prepared.with_context(preparing)?,
        };
        let prepared = if mode == Mode::Test { miniature::shorten(prepared) } else { prepared };
        measure::check(&case, &prepared).with_context(preparing)?;
        if mode == Mode::Bench {
            recognised.extend(prepared.workload.recognised.iter().cloned());
        }
        let broken = broken.get(&case.name).cloned();
        jobs.insert(case.name.clone(), Job { case, prompts, broken, prepared });
    }
    for line in recognised {
        say(&format!("note: {line}"));
    }
    Ok(jobs)
}

/// Runs one case at a time.
struct Runner {
    mode: Mode,
    format: Format,
    results: PathBuf,
    result_filename: Option<PathBuf>,
    options: Options,
    progress: ProgressStyleKind,
    interrupt: Interrupt,
    turnstile: Turnstile,
    /// Whether a case failed for what the server did.
    failed: AtomicBool,
    /// Whether the result of a case is invalid.
    invalid: AtomicBool,
    /// Whether a case could not be measured, or not be compared with the baseline.
    could_not_run: AtomicBool,
    /// Whether something that was measured could not be saved.
    unsaved: AtomicBool,
    baseline: Baseline,
    outputs: Outputs,
}

impl Runner {
    fn new(
        cli: &Cli,
        plan: &Plan,
        mode: Mode,
        interrupt: Interrupt,
        baseline: Baseline,
        outputs: Outputs,
    ) -> Self {
        let mut metadata = cli.flags.metadata.clone();
        metadata.extend(cli.flags.server_args.clone().map(|args| ("server_args".to_owned(), args)));
        Self {
            mode,
            format: cli.output_format(),
            results: plan.results.clone(),
            result_filename: cli.flags.result_filename.clone(),
            options: Options {
                test_prompt: !cli.flags.skip_test_prompt,
                self_check: match mode {
                    Mode::Test => SelfCheckMode::Never,
                    _ => cli.flags.self_check.unwrap_or_default(),
                },
                metadata,
                compared_cases: plan.cases.iter().filter(|case| case.against.is_some()).count(),
                servers: Arc::new(Servers::new(launch::logs(&plan.results), say)),
                say,
            },
            progress: ProgressStyleKind::detect(cli.flags.no_progress || mode == Mode::Test),
            interrupt,
            turnstile: Turnstile::default(),
            failed: AtomicBool::new(false),
            invalid: AtomicBool::new(false),
            could_not_run: AtomicBool::new(false),
            unsaved: AtomicBool::new(false),
            baseline,
            outputs,
        }
    }

    fn run(&self, ticket: usize, job: Job) -> Result<Option<Measurement>, Failed> {
        let _turn = self.turnstile.wait(ticket);
        if self.interrupt.stop.is_requested() {
            self.leave(None);
        }
        if self.mode == Mode::Bench {
            std::thread::sleep(COOL_DOWN);
        }
        let report = self.measure(&job);
        if self.interrupt.stop.is_requested() {
            self.leave(Some(report));
        }
        let report = report.map(|report| {
            let (report, refused) = self.compare(&job.case, report);
            match self.mode {
                Mode::Bench => {
                    let (report, unsaved) = self.keep(report);
                    (report, refused.or(unsaved))
                }
                Mode::List | Mode::Test => (report, refused),
            }
        });
        let (report, refused) = report.map_err(|error| {
            let message = format!("{error:#}");
            let case = job.case.name.clone();
            // There is no result to judge.
            self.could_not_run.store(true, Ordering::SeqCst);
            self.outputs.note(Ending::Broken { case, message: message.clone() });
            failed(&job.case, &message)
        })?;
        let concluded = self.conclude(&job.case, &report, refused);
        self.outputs.note(Ending::measured(report));
        concluded
    }

    fn measure(&self, job: &Job) -> anyhow::Result<Report> {
        if let Some(why) = &job.broken {
            bail!("{why}");
        }
        if self.mode == Mode::Bench {
            let stop = &self.interrupt.stop;
            availability::ensure(&job.case, self.options.test_prompt, stop)?;
            measure::serve(&job.case, &self.options.servers, stop)?;
        }
        let journal = match self.records_path(&job.case.name) {
            Some(path) => {
                let failed = || format!("write `{}`", path.display());
                keep_orphan(&path).with_context(failed)?;
                Some(Journal::start(&path).with_context(failed)?)
            }
            None => None,
        };
        let live = Arc::new(Live::with_journal(journal.as_ref().map(Journal::entries)));
        let requests = job.prepared.workload.turns() + job.prepared.warm_up.turns();
        if self.progress == ProgressStyleKind::Lines {
            say(&format!("{}: sending {requests} requests", job.case.name));
        }
        let _progress = Progress::start(self.progress, &job.case.name, Arc::clone(&live));
        let stop = &self.interrupt.stop;
        let report = measure::run(&job.case, &job.prepared, &self.options, &live, stop);
        let Some((path, Err(error))) = journal.map(Journal::finish) else { return report };
        report.map(|mut report| {
            let warnings = &mut report.servebench.warnings;
            warnings.push(format!("not every request is in `{}`: {error}", path.display()));
            report
        })
    }

    /// Where the requests of a case are written down as they end, if they are to be; the file gets the name
    /// of the result when there is one.
    fn records_path(&self, case: &str) -> Option<PathBuf> {
        let wanted = self.mode == Mode::Bench && self.outputs.has_records();
        let name = || file_name::of_case(case, self.baseline.is_ambiguous(case));
        wanted.then(|| self.results.join(format!("{}.records.jsonl", name())))
    }

    /// Has GitHub's checks show how the run ended, where it runs there.
    fn tell_github(&self) {
        let summary = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|path| !path.is_empty());
        let summary = summary.map(PathBuf::from);
        let written = self.outputs.with_endings(|endings| github::write_summary(summary, endings));
        if let Err(error) = written {
            say(&format!(
                "warning: the summary for GitHub is not written (GITHUB_STEP_SUMMARY): {error}"
            ));
        }
        let there = std::env::var_os("GITHUB_ACTIONS").is_some_and(|there| there == "true");
        if there && self.format == Format::Pretty {
            tell(print(&self.outputs.with_endings(github::annotations)));
        }
    }

    /// The result, compared with the baseline where there is one; or why it cannot be.
    fn compare(&self, case: &Case, report: Report) -> (Report, Option<String>) {
        if self.mode != Mode::Bench {
            return (report, None);
        }
        let identity = Identity::of(&report);
        let trials = &report.servebench.trials;
        let changes = self.baseline.changes(case, &identity, trials);
        let compared = self.baseline.compare(case, &identity, trials);
        let mut report = report;
        report.servebench.history_changes = changes;
        match compared {
            Ok(Compared::No) => (report, None),
            Ok(Compared::New(why)) => {
                say(&format!("new      {}: {why}", case.name));
                (report, None)
            }
            Ok(Compared::With(comparison)) => (report.compared_with(*comparison), None),
            // Another machine or another work is no regression: the run cannot say.
            Err(error) => (report, Some(format!("{error:#}"))),
        }
    }

    /// Saves and prints a result, and gives back what is still of use of it, and why not all is saved. It is printed
    /// whatever happens to its files.
    fn keep(&self, mut report: Report) -> (Report, Option<String>) {
        let _saving = self.interrupt.saving();
        let mut errors = Vec::new();
        let steps = report.steps.iter();
        let saved = steps.map(|step| step.save(&self.results, None, &ZonedDateTime::now()));
        errors.extend(saved.filter_map(Result::err).next());
        let name = self.result_filename.as_deref();
        let path = match report.save(&self.results, name, &ZonedDateTime::now()) {
            Ok(path) => Some(path),
            Err(error) => {
                errors.push(error);
                None
            }
        };
        let records = self.records_path(&report.servebench.case);
        if let Some((path, records)) = path.as_ref().zip(records) {
            let named = path.with_extension("records.jsonl");
            let renamed = fs::rename(&records, &named);
            let failed = || format!("name `{}` after its result", records.display());
            errors.extend(renamed.with_context(failed).err());
        }
        // Before its entries per request are dropped.
        let elsewhere =
            path.is_none().then(|| report.save(&std::env::temp_dir(), None, &ZonedDateTime::now()));
        if let (Some(_), Some(other)) = (&report.servebench.comparison, report.steps.pop()) {
            self.outputs.note_other(&report.servebench.case, other);
        }
        let report = report.without_details();
        errors.extend(self.baseline.keep(&report).err());
        self.print_result(&table::render(&report));
        match (path, elsewhere) {
            (Some(path), _) => say(&format!("saved {}", path.display())),
            (None, Some(Ok(path))) => errors.push(anyhow!("it is in `{}` instead", path.display())),
            (None, _) => {
                // The last place there is.
                let document = serde_json::to_string(&report).unwrap_or_default();
                self.print_result(&(document + "\n"));
                errors.push(anyhow!("it is printed instead, without the entries per request"));
            }
        }
        if errors.is_empty() {
            return (report, None);
        }
        self.unsaved.store(true, Ordering::SeqCst);
        let why: Vec<String> = errors.iter().map(|error| format!("{error:#}")).collect();
        let why = format!("what was measured is not all saved: {}", why.join("; "));
        say(&format!("error: {}: {why}", report.servebench.case));
        (report, Some(why))
    }

    fn print_result(&self, text: &str) {
        match self.format {
            Format::Pretty => tell(print(text)),
            // Other formats are for programs, which want nothing else on stdout.
            Format::Terse | Format::Json => say(text.trim_end()),
        }
    }

    /// Writes the files of the run, and says where the page is.
    fn write_outputs(&self) {
        let _saving = self.interrupt.saving();
        match self.outputs.write() {
            Ok(Some(path)) => say(&format!("report {}", path.display())),
            Ok(None) => {}
            Err(error) => {
                self.unsaved.store(true, Ordering::SeqCst);
                say(&format!("error: {error:#}"));
            }
        }
    }

    /// Ends an interrupted run with what was measured: the cases before, and this one, where one ran.
    fn leave(&self, report: Option<anyhow::Result<Report>>) -> ! {
        let saving = self.interrupt.saving();
        if self.mode == Mode::Bench {
            match report {
                Some(Ok(report)) => self.outputs.note(Ending::measured(self.keep(report).0)),
                Some(Err(error)) => say(&format!("error: {error:#}")),
                None => {}
            }
            self.write_outputs();
        }
        drop(saving);
        self.options.servers.stop();
        std::process::exit(Exit::Interrupted.code().into());
    }

    /// What libtest says of a case: only one that passed is `ok`, whatever the exit code of the others is.
    fn conclude(
        &self,
        case: &Case,
        report: &Report,
        refused: Option<String>,
    ) -> Result<Option<Measurement>, Failed> {
        let why = match report.servebench.verdict {
            Some(Verdict::Pass) if 0 < report.completed => None,
            // In miniature nothing is measured, so that there is nothing to doubt.
            Some(Verdict::Invalid) if self.mode == Mode::Test && is_whole(report) => None,
            Some(Verdict::Invalid) if 0 < report.completed => {
                self.invalid.store(true, Ordering::SeqCst);
                Some(format!("the result is invalid\n  {}", reasons(report).join("\n  ")))
            }
            _ => {
                self.failed.store(true, Ordering::SeqCst);
                Some(missed(report))
            }
        };
        if refused.is_some() {
            self.could_not_run.store(true, Ordering::SeqCst);
        }
        match why.or(refused) {
            Some(why) => Err(failed(case, &why)),
            None => Ok((self.mode == Mode::Bench).then(|| headline(report))),
        }
    }

    /// How the run ends: what failed outweighs what cannot be said.
    fn exit(&self, any_failed: bool) -> Exit {
        let is_set = |flag: &AtomicBool| flag.load(Ordering::SeqCst);
        match any_failed {
            _ if self.interrupt.stop.is_requested() => Exit::Interrupted,
            // Who reads the files has to know that they are not all there.
            _ if is_set(&self.unsaved) => Exit::CouldNotRun,
            _ if is_set(&self.failed) => Exit::Failed,
            _ if is_set(&self.could_not_run) => Exit::CouldNotRun,
            _ if is_set(&self.invalid) => Exit::Invalid,
            true => Exit::Failed,
            false => Exit::Passed,
        }
    }
}

/// Says that something could not be printed.
fn tell(printed: std::io::Result<()>) {
    if let Err(error) = printed {
        say(&format!("error: stdout cannot be written: {error}"));
    }
}

/// Keeps the requests of a run that was killed before it had a result, under another name.
fn keep_orphan(path: &Path) -> std::io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(".records.jsonl").unwrap_or(&name);
    let kept = format!("{stem}-unfinished-{}", ZonedDateTime::now().strftime("%Y%m%d-%H%M%S"));
    let numbers = std::iter::once(String::new()).chain((2..).map(|number| format!("-{number}")));
    let free = numbers
        .map(|number| path.with_file_name(format!("{kept}{number}.records.jsonl")))
        .find(|path| !path.exists());
    let Some(kept) = free else { return Ok(()) };
    fs::rename(path, &kept)?;
    say(&format!(
        "note: the requests of a run that ended without a result are kept in `{}`",
        kept.display()
    ));
    Ok(())
}

/// Whether every request completed.
fn is_whole(report: &Report) -> bool {
    0 < report.completed && report.failed == 0
}

fn failed(case: &Case, message: &str) -> Failed {
    // libtest prints it as it is.
    Failed::from(plain_lines(&format!("{}: {message}", case.name)))
}

/// What was missed, a line each.
fn missed(report: &Report) -> String {
    let slos = report.servebench.slos.iter().filter(|slo| slo.finding == "missed");
    let mut lines: Vec<String> = slos.map(table::slo_line).collect();
    if report.completed == 0 {
        lines.push("no request completed".to_owned());
    }
    let comparison = report.servebench.comparison.iter();
    lines.extend(comparison.flat_map(Comparison::regressions).map(table::compared_line));
    for (reason, failures) in &report.servebench.failures {
        lines.push(format!(
            "{} requests failed: {reason}, such as: {}",
            failures.count, failures.example
        ));
    }
    let ended = report.servebench.servers_ended.iter();
    lines.extend(ended.flat_map(|ended| ended.lines()).map(str::to_owned));
    let what = match report.servebench.verdict {
        _ if !report.servebench.servers_ended.is_empty() => {
            "a server that was started ended by itself"
        }
        Some(Verdict::Regressed) => "it is worse than what it was compared with",
        _ => "an objective was missed",
    };
    let lines: Vec<String> = lines.iter().map(|line| plain(line)).collect();
    format!("{what}\n  {}", lines.join("\n  "))
}

/// The one number that libtest's line has room for: the median TTFT, with half its 95 % interval. Where a server does not
/// stream, those of the end-to-end latency, and in the last resort the duration: never 0, which would be taken for a time.
fn headline(report: &Report) -> Measurement {
    let ns = |ms: f64| (ms * 1e6).round().max(1.0) as u64;
    let medians = [("ttft", report.median_ttft_ms), ("e2e", report.median_e2el_ms)];
    let (latency, median) = medians
        .into_iter()
        .find_map(|(latency, median)| Some((latency, median?)))
        .unwrap_or(("", report.duration * 1e3));
    let figure = report.servebench.latencies.get(latency);
    let figure = figure.and_then(|latency| latency.statistics.get("p50"));
    let interval = figure.and_then(|figure| figure.interval_ms);
    Measurement {
        avg: ns(median),
        variance: interval.map_or(0, |[low, high]| ns((high - low) / 2.0)),
    }
}

/// libtest-mimic's own arguments. The selection is made already: it takes a single filter.
fn arguments(cli: &Cli, mode: Mode, plan: &Plan, selected: &[&Case]) -> Arguments {
    let unselected = plan
        .cases
        .iter()
        .filter(|case| !selected.iter().any(|selected| selected.name == case.name));
    Arguments {
        include_ignored: cli.include_ignored,
        ignored: cli.ignored,
        bench: mode == Mode::Bench,
        quiet: false,
        exact: true,
        skip: unselected.map(|case| case.name.clone()).collect(),
        // Two, whatever the user asks for: see `turn`.
        test_threads: Some(2),
        logfile: cli.logfile.clone(),
        color: cli.color.map(|color| match color {
            Color::Auto => ColorSetting::Auto,
            Color::Always => ColorSetting::Always,
            Color::Never => ColorSetting::Never,
        }),
        format: Some(match cli.output_format() {
            Format::Pretty => FormatSetting::Pretty,
            Format::Terse => FormatSetting::Terse,
            Format::Json => FormatSetting::Json,
        }),
        ..Arguments::default()
    }
}

fn no_case(cli: &Cli, plan: &Plan) -> Exit {
    let names: Vec<&str> = plan.cases.iter().take(5).map(|case| case.name.as_str()).collect();
    let more = if names.len() < plan.cases.len() { ", …" } else { "" };
    let message = format!("no case is selected; the plan has {}{more}", names.join(", "));
    match cli.flags.no_tests.unwrap_or_default() {
        NoTests::Pass => Exit::Passed,
        NoTests::Warn => {
            say(&format!("warning: {message}"));
            Exit::Passed
        }
        NoTests::Fail => {
            say(&format!("error: {message}"));
            Exit::NoCase
        }
    }
}
