//! What Cargo, nextest and the user pass: libtest's flags beside our own, each of ours with an
//! environment twin. Does none of it.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::builder::FalseyValueParser;
use clap::{Arg, ArgAction, Args as _, Command, CommandFactory as _, FromArgMatches as _, Parser};

use crate::flags::{Flags, TWIN_PREFIX};
use crate::nearest::did_you_mean;

/// Everything on the command line.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "servebench",
    bin_name = "cargo bench --",
    version,
    about = "Benchmarks LLM serving: drives each case of the plan, prints its result and fails on missed objectives",
    after_help = "Each of servebench's own flags has an environment twin: --base-url is \
                  SERVEBENCH_BASE_URL. The flag wins over the twin, the twin over the plan file.\n\n\
                  Exit codes: 0 passed or ignored; 2 could not run; 3 a result is invalid; \
                  4 no case (--no-tests fail); 101 an objective was missed; 130 interrupted.",
    args_override_self = true,
    disable_help_subcommand = true,
    next_line_help = false
)]
pub struct Cli {
    /// Run only cases whose name holds one of these; a text with `*` must match the whole name
    #[arg(value_name = "FILTER", help_heading = SELECT)]
    pub filters: Vec<String>,
    /// Filters must match the whole name
    #[arg(long, help_heading = SELECT)]
    pub exact: bool,
    /// Leave out cases whose name holds this; may repeat
    #[arg(long, value_name = "FILTER", help_heading = SELECT)]
    pub skip: Vec<String>,
    /// Run only ignored cases
    #[arg(long, help_heading = SELECT)]
    pub ignored: bool,
    /// Run ignored cases too
    #[arg(long, help_heading = SELECT)]
    pub include_ignored: bool,
    /// List the cases and run nothing
    #[arg(long, help_heading = SELECT)]
    pub list: bool,

    /// How results are printed
    #[arg(long, value_enum, value_name = "FORMAT", help_heading = OUTPUT)]
    pub format: Option<Format>,
    /// When to use colour
    #[arg(long, value_enum, value_name = "WHEN", help_heading = OUTPUT)]
    pub color: Option<Color>,
    /// Print one character per case: --format terse
    #[arg(short, long, help_heading = OUTPUT)]
    pub quiet: bool,
    /// Also write the list of results to a file
    #[arg(long, value_name = "PATH", help_heading = OUTPUT)]
    pub logfile: Option<String>,

    /// Measure (Cargo passes it)
    #[arg(long, help_heading = LIBTEST)]
    pub bench: bool,
    /// Try each case in miniature against the embedded engine; wins over --bench
    #[arg(long, help_heading = LIBTEST)]
    pub test: bool,
    /// Accepted; cases never overlap
    #[arg(long, value_name = "N", help_heading = LIBTEST)]
    pub test_threads: Option<usize>,
    /// Accepted; output is never captured
    #[arg(long, alias = "no-capture", help_heading = LIBTEST)]
    pub nocapture: bool,
    /// Accepted; output is always shown
    #[arg(long, help_heading = LIBTEST)]
    pub show_output: bool,
    /// Accepted; has no effect
    #[arg(short = 'Z', value_name = "FLAG", help_heading = LIBTEST)]
    pub unstable: Vec<String>,

    /// The flags of our own.
    #[command(flatten)]
    pub flags: Flags,
}

const SELECT: &str = "Selection";
const OUTPUT: &str = "Output";
const LIBTEST: &str = "Of the test harness";

/// How libtest prints results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table and a line per case.
    #[default]
    Pretty,
    /// A character per case.
    Terse,
    /// A JSON object per line.
    Json,
}

/// When colour is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What is to be done with the selected cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Name them.
    List,
    /// Try each in miniature against the embedded engine.
    Test,
    /// Measure them.
    Bench,
}

impl Cli {
    /// Reads a command line, its first word the program. The error holds help and version too.
    pub fn parse_from_args(
        args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        let matches = command(|twin| std::env::var_os(twin)).try_get_matches_from(args)?;
        Self::from_arg_matches(&matches)
    }

    /// What is to be done: as in libtest, tests unless `--bench` is given.
    pub fn mode(&self) -> Mode {
        if self.list {
            Mode::List
        } else if self.bench && !self.test {
            Mode::Bench
        } else {
            Mode::Test
        }
    }

    /// How results are printed.
    pub fn output_format(&self) -> Format {
        match self.format {
            Some(format) => format,
            None if self.quiet => Format::Terse,
            None => Format::Pretty,
        }
    }

    /// Whether filters and `--skip` select the case.
    pub fn selects(&self, case: &str) -> bool {
        let matches = |filter: &String| match globset::Glob::new(filter) {
            _ if self.exact => filter == case,
            Ok(glob) if filter.contains('*') => glob.compile_matcher().is_match(case),
            _ => case.contains(filter.as_str()),
        };
        (self.filters.is_empty() || self.filters.iter().any(matches))
            && !self.skip.iter().any(matches)
    }
}

/// What to say of the first of these environment variables that looks like a twin and is none, unless the plan
/// mentions it.
pub fn unknown_twin(
    names: impl IntoIterator<Item = String>,
    is_mentioned: impl Fn(&str) -> bool,
) -> Option<String> {
    let own = Flags::augment_args(Command::new("own"));
    let twin = |arg: &Arg| format!("{TWIN_PREFIX}{}", arg.get_id().as_str().to_uppercase());
    let twins: Vec<String> = own.get_arguments().map(twin).collect();
    let is_unknown = |name: &String| {
        name.starts_with(TWIN_PREFIX) && !twins.contains(name) && !is_mentioned(name)
    };
    let name = names.into_iter().find(is_unknown)?;
    let nearest = did_you_mean(&name, twins.iter().map(String::as_str));
    Some(format!("the environment variable {name} is the twin of no flag{nearest}"))
}

/// The command line's definition, with the environment twins that `environment` has a value for.
fn command(environment: impl Fn(&str) -> Option<OsString>) -> Command {
    let own = Flags::augment_args(Command::new("own"));
    let own: BTreeSet<&str> = own.get_arguments().map(|arg| arg.get_id().as_str()).collect();
    Cli::command().mut_args(|arg| {
        if !own.contains(arg.get_id().as_str()) {
            return arg;
        }
        with_twin(arg, &environment)
    })
}

fn with_twin(arg: Arg, environment: impl Fn(&str) -> Option<OsString>) -> Arg {
    let twin = format!("{TWIN_PREFIX}{}", arg.get_id().as_str().to_uppercase());
    // An empty twin is taken for none: CI systems set variables that they have no value for.
    if environment(&twin).is_some_and(|value| value.is_empty()) {
        return arg;
    }
    // The value may be a secret, and help is no place for it.
    let arg = arg.env(twin).hide_env_values(true).hide_env(true);
    match arg.get_action() {
        ArgAction::SetTrue => arg.value_parser(FalseyValueParser::new()),
        _ => arg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Cli {
        let command = command(|_| None);
        let args = ["servebench"].iter().chain(args);
        Cli::from_arg_matches(&command.try_get_matches_from(args).unwrap()).unwrap()
    }

    #[test]
    fn the_definition_is_sound() {
        command(|_| None).debug_assert();
    }

    #[test]
    fn cargo_and_the_user_may_both_pass_bench() {
        assert_eq!(parse(&["--bench", "--bench"]).mode(), Mode::Bench);
    }

    #[test]
    fn without_bench_it_is_a_test_and_test_wins() {
        assert_eq!(parse(&[]).mode(), Mode::Test);
        assert_eq!(parse(&["--bench", "--test"]).mode(), Mode::Test);
        assert_eq!(parse(&["--bench", "--list"]).mode(), Mode::List);
    }

    #[test]
    fn any_of_several_filters_selects() {
        let cli = parse(&["@4qps", "chat/", "--skip", "@inf"]);
        assert!(cli.selects("sim/m/sharegpt@4qps"));
        assert!(!cli.selects("sim/m/sharegpt@14qps"), "@4qps is delimited");
        assert!(!cli.selects("chat/m/sharegpt@inf"));
        assert!(cli.selects("chat/m/sharegpt@8conc"));
    }

    #[test]
    fn a_glob_matches_the_whole_name_and_exact_takes_it_literally() {
        let cli = parse(&["sim/*@4qps"]);
        assert!(cli.selects("sim/m/sharegpt@4qps"));
        assert!(!cli.selects("a-sim/m/sharegpt@4qps"));
        assert!(!parse(&["--exact", "sim"]).selects("sim/m"));
        assert!(parse(&["--exact", "sim/m"]).selects("sim/m"));
    }

    #[test]
    fn a_typing_error_in_a_twin_is_named_with_the_twin_that_was_meant() {
        let of = |name: &str| unknown_twin([name.to_owned()], |name| name == "SERVEBENCH_MY_HOST");
        let said = of("SERVEBENCH_REQUIRE_SERVERS").unwrap();
        assert!(said.contains("did you mean `SERVEBENCH_REQUIRE_SERVER`?"), "{said}");
        assert!(of("SERVEBENCH_FORMAT").is_some(), "a flag of libtest has no twin");
        for name in ["SERVEBENCH_REQUIRE_SERVER", "SERVEBENCH_MY_HOST", "OTHER"] {
            assert_eq!(of(name), None, "{name}");
        }
    }

    #[test]
    fn every_own_flag_has_a_twin_and_no_flag_of_libtest_has() {
        let command = command(|_| None);
        for arg in command.get_arguments() {
            let own = !matches!(arg.get_help_heading(), Some(SELECT | OUTPUT | LIBTEST) | None);
            assert_eq!(arg.get_env().is_some(), own, "{}", arg.get_id());
        }
    }
}
