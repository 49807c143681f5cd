//! A load, its course and a seed in, the offset of every arrival out. Pure: made before the run, the same
//! each time.

use std::num::NonZeroUsize;
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;
use rand_distr::{Distribution as _, Gamma};

use crate::course::{Course, RampShape, RampUp, WarmUp};
use crate::load::{ArrivalProcess, Load};

/// How far apart the users of a closed loop begin. All at the same instant, a server would read the last
/// request milliseconds after the first, and the queue in front of its socket would be part of every TTFT,
/// round after round, since users that begin together stay together.
const USER_GAP: Duration = Duration::from_micros(200);
/// Where an exponential ramp of a rate begins, as a share of it.
const RAMP_FROM: f64 = 0.01;

/// When requests are sent, and which of them count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// When they are sent.
    pub sends: Sends,
    /// How long requests may still take when no more are sent; of conversations, when no more begin.
    pub drain: Option<Duration>,
}

/// Who sends when. Every offset is from the start of the case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sends {
    /// Each request at its offset.
    Open {
        /// In order.
        offsets: Vec<Duration>,
        /// How many of them, the first, are of the warm-up and do not count.
        warm_up: usize,
        /// Which request of the workload is the first that counts.
        first: usize,
        /// The most requests in flight; arrivals past it wait.
        cap: Option<usize>,
        /// No later turn of a conversation is due from then on; `None` where each is played to its end.
        end: Option<Duration>,
    },
    /// Users who send their next request when their last has ended.
    Closed {
        /// When each user begins, in order.
        starts: Vec<Duration>,
        /// What does not count. A number of requests is at least that of the users.
        warm_up: WarmUp,
        /// How many requests count; `None` where only time ends the run.
        requests: Option<usize>,
        /// For how long requests that count are sent; `None` where only their number ends the run.
        duration: Option<Duration>,
    },
}

impl Sends {
    /// Requests at these offsets, of which some are the warm-up.
    fn open(offsets: Vec<Duration>, cap: Option<NonZeroUsize>, course: &Course) -> Self {
        let warm_up = course.warm_up.of(&offsets);
        let begins = match course.warm_up {
            WarmUp::Time(time) => Some(time),
            WarmUp::Requests(_) => offsets.get(warm_up).copied(),
        };
        let end = course.duration.zip(begins).map(|(duration, begins)| begins + duration);
        Self::Open { offsets, warm_up, first: 0, cap: cap.map(NonZeroUsize::get), end }
    }
}

impl Schedule {
    /// The schedule of a trace: each request at its time of `arrivals`, in order.
    pub fn replay(arrivals: &[Duration], cap: Option<NonZeroUsize>, course: &Course) -> Self {
        let mut ends = Ends::new(course);
        let offsets = arrivals.iter().copied().take_while(|at| ends.admit(*at)).collect();
        let mut sends = Sends::open(offsets, cap, course);
        // What counts of a trace comes with the prompts of its own times.
        if let Sends::Open { warm_up, first, .. } = &mut sends {
            *first = *warm_up;
        }
        Self { sends, drain: course.drain }
    }

    /// The schedule of `load`; empty for a trace, whose times are not the load's, and for a search, whose
    /// steps have schedules of their own.
    pub fn new(load: &Load, course: &Course, arrivals: ArrivalProcess, seed: u64) -> Self {
        let open = |rates: Rates, cap: Option<NonZeroUsize>| {
            Sends::open(offsets(&rates, course, arrivals, seed), cap, course)
        };
        let sends = match load {
            // Nothing comes before what comes at once.
            Load::Infinite => Sends::Open {
                offsets: vec![Duration::ZERO; course.requests.unwrap_or_default()],
                warm_up: 0,
                first: 0,
                cap: None,
                end: None,
            },
            Load::Open { rate, cap } => open(Rates::of(rate.as_per_s(), course.ramp_up), *cap),
            Load::Staged(stages) => {
                let stages = stages.stages.iter();
                let pieces = stages.map(|stage| Piece {
                    from_per_s: stage.from_per_s,
                    to_per_s: stage.to_per_s,
                    shape: RampShape::Linear,
                    length_s: stage.length.as_secs_f64(),
                });
                open(Rates { pieces: pieces.collect(), then_per_s: None }, None)
            }
            Load::Trace { cap } => Sends::open(Vec::new(), *cap, course),
            Load::Search(_) => Sends::open(Vec::new(), None, course),
            Load::Closed(users) => Sends::Closed {
                starts: starts(users.get(), course),
                warm_up: match course.warm_up {
                    WarmUp::Requests(requests) if 0 < requests => {
                        WarmUp::Requests(requests.max(users.get()))
                    }
                    warm_up => warm_up,
                },
                requests: course.requests,
                duration: course.duration,
            },
        };
        Self { sends, drain: course.drain }
    }

    /// How many requests that count the schedule holds; `None` where the server's speed decides.
    pub fn requests(&self) -> Option<usize> {
        match &self.sends {
            Sends::Open { offsets, warm_up, .. } => Some(offsets.len() - warm_up),
            Sends::Closed { requests, .. } => *requests,
        }
    }

    /// How many requests of the warm-up it holds; `None` where the server's speed decides.
    pub fn warm_up_requests(&self) -> Option<usize> {
        match &self.sends {
            Sends::Open { warm_up, .. } => Some(*warm_up),
            Sends::Closed { warm_up, .. } if warm_up.is_none() => Some(0),
            Sends::Closed { warm_up: WarmUp::Requests(requests), .. } => Some(*requests),
            Sends::Closed { warm_up: WarmUp::Time(_), .. } => None,
        }
    }
}

/// Says how far arrivals go: as many as are to count, and as long.
struct Ends {
    course: Course,
    seen: usize,
    counting: usize,
    /// When the time is over; known from the first that counts on.
    end: Option<Duration>,
}

impl Ends {
    fn new(course: &Course) -> Self {
        Self { course: *course, seen: 0, counting: 0, end: None }
    }

    /// Whether the next arrival, which is at `at`, is still sent.
    fn admit(&mut self, at: Duration) -> bool {
        let Course { requests, duration, warm_up, .. } = self.course;
        let counts = match warm_up {
            WarmUp::Time(time) => time <= at,
            WarmUp::Requests(requests) => requests <= self.seen,
        };
        self.seen += 1;
        if !counts {
            return true;
        }
        let begins = warm_up.time().unwrap_or(at);
        self.end = self.end.or(duration.map(|duration| begins + duration));
        let wanted = requests.is_none_or(|requests| self.counting < requests)
            && self.end.is_none_or(|end| at < end);
        self.counting += 1;
        wanted
    }
}

/// Requests per second over time.
struct Rates {
    /// In order, from zero on.
    pieces: Vec<Piece>,
    /// The rate behind them; `None` where nothing more comes.
    then_per_s: Option<f64>,
}

struct Piece {
    from_per_s: f64,
    to_per_s: f64,
    shape: RampShape,
    length_s: f64,
}

impl Rates {
    fn of(per_s: f64, ramp_up: Option<RampUp>) -> Self {
        let pieces = ramp_up.map(|RampUp { over, shape }| Piece {
            from_per_s: match shape {
                RampShape::Linear => 0.0,
                RampShape::Exponential => per_s * RAMP_FROM,
            },
            to_per_s: per_s,
            shape,
            length_s: over.as_secs_f64(),
        });
        Self { pieces: pieces.into_iter().collect(), then_per_s: Some(per_s) }
    }

    /// When `events` are to be expected, s; `None` where there are never so many. A process of rate 1 in
    /// this time is a process of these rates (the time change of a point process).
    fn time_of_s(&self, mut events: f64) -> Option<f64> {
        let mut begun_s = 0.0;
        for piece in &self.pieces {
            let holds = piece.events();
            if events < holds {
                return Some(begun_s + piece.time_of_s(events));
            }
            events -= holds;
            begun_s += piece.length_s;
        }
        Some(begun_s + events / self.then_per_s?)
    }
}

impl Piece {
    /// How many events are to be expected in it.
    fn events(&self) -> f64 {
        match self.shape {
            RampShape::Linear => (self.from_per_s + self.to_per_s) / 2.0 * self.length_s,
            RampShape::Exponential => {
                (self.to_per_s - self.from_per_s) * self.length_s
                    / (self.to_per_s / self.from_per_s).ln()
            }
        }
    }

    /// When so many of them are to be expected, s from its beginning.
    fn time_of_s(&self, events: f64) -> f64 {
        let time_s = match self.shape {
            // The smaller root of from·t + (to − from)·t²/(2·length) = events, in the form that holds
            // for equal rates too.
            RampShape::Linear => {
                let slope = (self.to_per_s - self.from_per_s) / self.length_s;
                let root = self.from_per_s.mul_add(self.from_per_s, 2.0 * slope * events);
                let speed = self.from_per_s + root.max(0.0).sqrt();
                if speed == 0.0 { 0.0 } else { 2.0 * events / speed }
            }
            RampShape::Exponential => {
                let growth_per_s = (self.to_per_s / self.from_per_s).ln() / self.length_s;
                (events * growth_per_s / self.from_per_s).ln_1p() / growth_per_s
            }
        };
        time_s.min(self.length_s)
    }
}

/// Offsets in order. The first arrival of equal gaps is at zero; of random ones, one gap after it. Times
/// are sums of `f64` events, so no rounding adds up over a long run.
fn offsets(rates: &Rates, course: &Course, arrivals: ArrivalProcess, seed: u64) -> Vec<Duration> {
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let gamma = |shape: f64| {
        Gamma::new(shape, 1.0 / shape).expect("shape and scale are above zero and finite")
    };
    let mut gap: Box<dyn FnMut() -> f64> = match arrivals {
        ArrivalProcess::Constant => Box::new(|| 1.0),
        // The inverse of the exponential distribution; the draw is below 1.
        ArrivalProcess::Poisson => Box::new(move || -(1.0 - rng.random::<f64>()).ln()),
        ArrivalProcess::Gamma(burstiness) => {
            let gaps = gamma(burstiness.shape());
            Box::new(move || gaps.sample(&mut rng))
        }
    };
    let mut events = match arrivals {
        ArrivalProcess::Constant => 0.0,
        ArrivalProcess::Poisson | ArrivalProcess::Gamma(_) => gap(),
    };
    let mut ends = Ends::new(course);
    let mut offsets = Vec::new();
    while let Some(at_s) = rates.time_of_s(events) {
        let at = Duration::from_secs_f64(at_s);
        if !ends.admit(at) {
            break;
        }
        offsets.push(at);
        events += gap();
    }
    offsets
}

/// When each of the users begins; no more of them than there are requests, unless there is a warm-up.
fn starts(users: usize, course: &Course) -> Vec<Duration> {
    let requests = course.requests.filter(|_| course.warm_up.is_none());
    let begin = requests.map_or(users, |requests| users.min(requests));
    let start = |user: usize| match course.ramp_up {
        None => USER_GAP * u32::try_from(user).unwrap_or(u32::MAX),
        Some(RampUp { over, shape: RampShape::Linear }) => over.mul_f64(user as f64 / users as f64),
        // Their number grows by the same factor each second, from one.
        Some(RampUp { over, shape: RampShape::Exponential }) => match users {
            1 => Duration::ZERO,
            users => over.mul_f64(((user + 1) as f64).ln() / (users as f64).ln()),
        },
    };
    (0..begin).map(start).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::load::{Stage, Stages};
    use crate::record::tests::ms;

    fn of(load: &Load, course: &Course, arrivals: ArrivalProcess, seed: u64) -> Vec<Duration> {
        match Schedule::new(load, course, arrivals, seed).sends {
            Sends::Open { offsets, .. } => offsets,
            closed => panic!("{closed:?}"),
        }
    }

    fn offsets(load: &str, arrivals: ArrivalProcess, requests: usize, seed: u64) -> Vec<Duration> {
        of(&load.parse().unwrap(), &Course::of_requests(requests), arrivals, seed)
    }

    fn ramp(s: u64, shape: RampShape) -> Option<RampUp> {
        Some(RampUp { over: Duration::from_secs(s), shape })
    }

    #[test]
    fn a_constant_rate_has_equal_gaps_that_do_not_drift() {
        let offsets = offsets("3qps", ArrivalProcess::Constant, 30_001, 0);
        assert_eq!(offsets[30_000], Duration::from_secs(10_000));
        assert_eq!(offsets[1], Duration::from_secs_f64(1.0 / 3.0));
    }

    #[test]
    fn random_arrivals_have_the_rate_and_the_spread_of_their_process() {
        let n = 100_000;
        let gamma = |shape: f64| ArrivalProcess::Gamma(shape.try_into().unwrap());
        for (process, expected_cv) in
            [(ArrivalProcess::Poisson, 1.0), (gamma(0.25), 2.0), (gamma(4.0), 0.5)]
        {
            let offsets = offsets("200qps", process, n, 7);
            let gaps: Vec<f64> =
                offsets.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance =
                gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            let cv = variance.sqrt() / mean;
            // Four standard errors of the mean; the coefficient of variation's is of that order.
            let error = 4.0 * expected_cv / (n as f64).sqrt();
            assert!((mean * 200.0 - 1.0).abs() < error, "{process:?}: mean gap {mean}");
            assert!((cv - expected_cv).abs() < 2.0 * error, "{process:?}: variation {cv}");
        }
    }

    #[test]
    fn the_seed_decides_the_schedule() {
        let of_seed = |seed| offsets("4qps", ArrivalProcess::Poisson, 50, seed);
        assert_eq!(of_seed(1), of_seed(1));
        assert_ne!(of_seed(1), of_seed(2));
        assert!(of_seed(1).is_sorted());
    }

    #[test]
    fn infinite_means_all_at_once() {
        assert_eq!(offsets("inf", ArrivalProcess::Poisson, 3, 0), [Duration::ZERO; 3]);
    }

    /// How many of `offsets` are in each second.
    fn per_second(offsets: &[Duration], seconds: usize) -> Vec<usize> {
        let count = |s| offsets.iter().filter(|offset| offset.as_secs() == s as u64).count();
        (0..seconds).map(count).collect()
    }

    #[test]
    fn a_ramp_rises_to_the_rate_and_stays_there() {
        let course = Course {
            duration: Some(Duration::from_secs(7)),
            ramp_up: ramp(5, RampShape::Linear),
            ..Course::default()
        };
        let load = "100qps".parse().unwrap();
        let counts = per_second(&of(&load, &course, ArrivalProcess::Constant, 0), 7);
        let expected = [10, 30, 50, 70, 90, 100, 100];
        let near = counts.iter().zip(expected).all(|(&count, wanted)| count.abs_diff(wanted) <= 1);
        assert!(near, "{counts:?}");
    }

    #[test]
    fn an_exponential_ramp_grows_by_the_same_factor_each_second() {
        let course = Course {
            duration: Some(Duration::from_secs(4)),
            ramp_up: ramp(4, RampShape::Exponential),
            ..Course::default()
        };
        let load = "100000qps".parse().unwrap();
        let counts = per_second(&of(&load, &course, ArrivalProcess::Constant, 0), 4);
        for pair in counts.windows(2) {
            // A factor of 100 over four seconds.
            let factor = pair[1] as f64 / pair[0] as f64;
            assert!((factor - 100f64.powf(0.25)).abs() < 0.01, "{counts:?}");
        }
    }

    #[test]
    fn stages_follow_each_other_and_end() {
        let stage = |from_per_s, to_per_s, s| Stage {
            from_per_s,
            to_per_s,
            length: Duration::from_secs(s),
        };
        let stages = vec![
            stage(10.0, 10.0, 2),
            stage(10.0, 50.0, 2),
            stage(50.0, 0.0, 2),
            stage(0.0, 0.0, 1),
            stage(20.0, 20.0, 1),
        ];
        let load = Load::Staged(Arc::new(Stages { name: "hill".to_owned(), stages }));
        assert_eq!(load.request_rate(), (20.0 + 60.0 + 50.0 + 20.0) / 8.0);
        let offsets = of(&load, &Course::default(), ArrivalProcess::Constant, 0);
        assert_eq!(per_second(&offsets, 9), [10, 10, 20, 40, 38, 12, 0, 20, 0]);
        assert!(offsets.is_sorted());
        let offsets = of(&load, &Course::default(), ArrivalProcess::Poisson, 3);
        assert!(offsets.is_sorted() && offsets.last().unwrap().as_secs() < 8);
        assert!((110..190).contains(&offsets.len()), "{}", offsets.len());
    }

    #[test]
    fn the_warm_up_comes_before_what_counts() {
        let load: Load = "10qps".parse().unwrap();
        let warm_up = WarmUp::Time(Duration::from_secs(2));
        let count = |requests, s: Option<u64>| {
            let duration = s.map(Duration::from_secs);
            let course = Course { requests, duration, warm_up, ..Course::default() };
            of(&load, &course, ArrivalProcess::Constant, 0).len()
        };
        assert_eq!(count(Some(30), None), 20 + 30);
        assert_eq!(count(None, Some(3)), 20 + 30);
        assert_eq!(count(Some(5), Some(3)), 20 + 5, "whichever comes first");
        assert_eq!(count(Some(50), Some(3)), 20 + 30, "whichever comes first");
    }

    #[test]
    fn users_begin_one_after_the_other() {
        let starts = |users: &str, course: Course| match Schedule::new(
            &users.parse().unwrap(),
            &course,
            ArrivalProcess::Poisson,
            0,
        )
        .sends
        {
            Sends::Closed { starts, .. } => starts,
            open => panic!("{open:?}"),
        };
        let course = Course::of_requests(100);
        assert_eq!(starts("3conc", course), [0, 200, 400].map(Duration::from_micros));
        assert_eq!(starts("3conc", Course::of_requests(2)).len(), 2);
        let linear = Course { ramp_up: ramp(4, RampShape::Linear), ..course };
        assert_eq!(starts("4conc", linear), [0, 1000, 2000, 3000].map(ms));
        let exponential = Course { ramp_up: ramp(3, RampShape::Exponential), ..course };
        let starts = starts("8conc", exponential);
        assert_eq!(
            (starts[0], starts[1], starts[3], starts[7]),
            (ms(0), ms(1000), ms(2000), ms(3000))
        );
    }

    #[test]
    fn a_closed_loop_ends_by_number_or_time() {
        let load = "2conc".parse().unwrap();
        let duration = Some(Duration::from_secs(9));
        let schedule = |course: Course| Schedule::new(&load, &course, ArrivalProcess::Poisson, 0);
        let timed = schedule(Course { duration, ..Course::default() });
        assert_eq!(timed.requests(), None);
        let counted = schedule(Course::of_requests(5));
        assert_eq!((counted.requests(), counted.warm_up_requests()), (Some(5), Some(0)));
    }

    #[test]
    fn a_number_of_requests_comes_before_those_that_count() {
        let load: Load = "10qps".parse().unwrap();
        let course = |requests, s: Option<u64>| Course {
            requests,
            duration: s.map(Duration::from_secs),
            warm_up: WarmUp::Requests(7),
            ..Course::default()
        };
        let sends = |course| Schedule::new(&load, &course, ArrivalProcess::Constant, 0).sends;
        let Sends::Open { offsets, warm_up, first, end, .. } = sends(course(Some(30), None)) else {
            panic!()
        };
        assert_eq!((offsets.len(), warm_up, first, end), (37, 7, 0, None));
        let Sends::Open { offsets, warm_up, end, .. } = sends(course(None, Some(2))) else {
            panic!()
        };
        assert_eq!((offsets.len(), warm_up, end), (27, 7, Some(ms(2700))), "the time follows it");
        let arrivals: Vec<Duration> = (0..20).map(|n| ms(n * 100)).collect();
        let replay = Schedule::replay(&arrivals, None, &course(Some(5), None));
        assert_eq!((replay.requests(), replay.warm_up_requests()), (Some(5), Some(7)));
        assert!(matches!(replay.sends, Sends::Open { first: 7, .. }), "prompts keep their times");
    }

    #[test]
    fn each_user_sends_at_least_one_request_of_the_warm_up() {
        let schedule = |warm_up, requests| {
            let course = Course { warm_up, ..Course::of_requests(requests) };
            Schedule::new(&"8conc".parse().unwrap(), &course, ArrivalProcess::Poisson, 0)
        };
        for (asked, sent) in [(0, 0), (1, 8), (8, 8), (20, 20)] {
            let schedule = schedule(WarmUp::Requests(asked), 100);
            assert_eq!(schedule.warm_up_requests(), Some(sent), "{asked}");
        }
        let timed = schedule(WarmUp::Time(ms(100)), 2);
        assert_eq!(timed.warm_up_requests(), None);
        let Sends::Closed { starts, .. } = timed.sends else { panic!() };
        assert_eq!(starts.len(), 8, "all warm up, however few requests count");
    }

    #[test]
    fn everything_at_once_has_no_warm_up() {
        let course = Course { warm_up: WarmUp::Requests(5), ..Course::of_requests(9) };
        let schedule = Schedule::new(&Load::Infinite, &course, ArrivalProcess::Poisson, 0);
        assert_eq!((schedule.requests(), schedule.warm_up_requests()), (Some(9), Some(0)));
    }
}
